"""A web server on loopback that behaves as it is told: with or without ranges, cut, slow, refusing."""

import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass
class WebServer:
    """files: by path. cuts: how many answers end after cut_after bytes. statuses: what the next answers are instead.

    asked: the range of each request. stalls: an answer waits for the end of the server after its headers.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    cuts: int = 0
    cut_after: int = 1000
    statuses: list[int] = field(default_factory=list)
    stalls: bool = False
    tag: str | None = '"1"'
    length: bool = True
    leads_to: str | None = None
    asked: list[tuple[int, int | None]] = field(default_factory=list)
    sent: int = 0

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"told": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/{path}"

    def wait(self) -> None:
        self._over.wait(20)


class _Handler(BaseHTTPRequestHandler):
    told: WebServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        told = self.told
        data = told.files.get(self.path.removeprefix("/"))
        if told.leads_to is not None:
            self.send_response(302)
            self.send_header("Location", told.leads_to)
            self.end_headers()
            return
        status = told.statuses.pop(0) if told.statuses else 404 if data is None else 200
        if status != 200 or data is None:
            self.send_error(status)
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        start, end = (int(asked[1]), int(asked[2]) + 1 if asked[2] else None) if asked else (0, None)
        told.asked.append((start, end))
        if told.ranges and start >= len(data):
            self.send_error(416)
            return
        part = data[start:end] if told.ranges else data
        self.send_response(206 if told.ranges else 200)
        if told.ranges:
            self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(data)}")
        if told.length:
            self.send_header("Content-Length", str(len(part)))
        if told.tag is not None:
            self.send_header("ETag", told.tag)
        self.end_headers()
        if told.stalls:
            told.wait()
        if told.cuts:
            told.cuts -= 1
            part = part[: told.cut_after]
        told.sent += len(part)
        self.wfile.write(part)
