"""A file on a web server, read by ranges: a cut connection goes on where it ended, a bounded number of times.

A server without ranges can be read from the start only, and not again after a cut.
"""

import http.client
import re
import time
import urllib.error
import urllib.request
from typing import Any

from sessionize.connectors.remote_errors import read_failure
from sessionize.errors import InputError, SessionizeError, UnavailableError

_TIMEOUT_S = 30.0
_PAUSES_S = (0.2, 1.0, 3.0)  # before each further try, in a row without a byte in between
_AT_ONCE_BYTES = 64 << 10  # a smaller range is read as one of this size: a footer takes several small reads
_CUT = (OSError, http.client.HTTPException)  # of a connection; timeouts are OSErrors
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


class HttpFile:
    """A readable, seekable binary file. It is closed like one; reads after close fail.

    random: it is read by pieces here and there, each asked for on its own; otherwise from some place on to the end.
    size_bytes: None where the server does not say. Errors: InputError for a file that is not there, may not be read or
    has changed meanwhile; UnavailableError.
    """

    def __init__(
        self,
        url: str,
        *,
        random: bool = False,
        timeout_s: float = _TIMEOUT_S,
        pauses_s: tuple[float, ...] = _PAUSES_S,
    ) -> None:
        self._url = url
        self._random = random
        self._timeout_s = timeout_s
        self._pauses_s = pauses_s
        self._at = 0
        self._answer: Any = None
        self._answer_at = 0
        self._held, self._held_at = b"", 0
        self._tag: str | None = None
        self.closed = False
        self.has_ranges = False
        self.size_bytes: int | None = None
        self.mode = "rb"
        self._first()

    def readable(self) -> bool:
        """It is."""
        return True

    def writable(self) -> bool:
        """It is not."""
        return False

    def seekable(self) -> bool:
        """Whether any place of it can be read."""
        return self.has_ranges

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place; nothing is read. Errors: OSError where the size is unknown and is needed."""
        if whence == 2:
            if self.size_bytes is None:
                raise OSError("the size of the file is unknown")
            offset += self.size_bytes
        elif whence == 1:
            offset += self._at
        self._at = max(0, offset)
        return self._at

    def read(self, size: int = -1) -> bytes:
        """The next bytes, as many as asked for unless the file ends before. Errors: as the class."""
        if size < 0:
            size = 1 << 62 if self.size_bytes is None else max(0, self.size_bytes - self._at)
        parts = []
        while size:
            part = self._some(size)
            if not part:
                break
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def readinto(self, buffer: memoryview) -> int:
        """Some of the next bytes; 0 at the end. Errors: as the class."""
        part = self._some(len(buffer))
        buffer[: len(part)] = part
        return len(part)

    def flush(self) -> None:
        """Nothing is written."""

    def close(self) -> None:
        """End the connection."""
        self.closed = True
        self._end()

    def __enter__(self) -> "HttpFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _some(self, size: int) -> bytes:
        if self.closed:
            raise ValueError("the file is closed")
        if self.size_bytes is not None and self._at >= self.size_bytes:
            return b""
        if self._random:
            return self._of_range(size)
        for number in range(len(self._pauses_s) + 1):
            try:
                if self._answer is None or self._answer_at != self._at:
                    self._ask(self._at, None)
                part = bytes(self._answer.read(min(size, 1 << 20)))
                if not part and self.size_bytes is not None:  # the file ends later
                    raise http.client.IncompleteRead(b"")
            except _CUT as error:
                self._again(number, error)
                continue
            self._at += len(part)
            self._answer_at = self._at
            return part
        raise AssertionError

    def _of_range(self, size: int) -> bytes:
        inside = self._at - self._held_at
        if not 0 <= inside < len(self._held):
            wanted = max(size, _AT_ONCE_BYTES)
            end = self._at + wanted if self.size_bytes is None else min(self._at + wanted, self.size_bytes)
            for number in range(len(self._pauses_s) + 1):
                try:
                    self._ask(self._at, end)
                    data = self._answer.read(end - self._at)
                    if len(data) < end - self._at:
                        raise http.client.IncompleteRead(data)
                except _CUT as error:
                    self._again(number, error)
                    continue
                break
            self._end()
            self._held, self._held_at, inside = data, self._at, 0
        part = self._held[inside : inside + size]
        self._at += len(part)
        return part

    def _again(self, number: int, error: Exception) -> None:
        """Wait before the next try. Errors: UnavailableError when there is none."""
        self._end()
        if number < len(self._pauses_s) and (self.has_ranges or self._at == 0):
            time.sleep(self._pauses_s[number])
            return
        why = "the connection was cut" if isinstance(error, http.client.HTTPException) else str(error)
        raise UnavailableError(
            "a file cannot be read now",
            detail=f"{self._url}: {why} at byte {self._at:,}"
            + ("" if self.size_bytes is None else f" of {self.size_bytes:,}"),
            hint="check the network, and run again"
            if self.has_ranges
            else "the server cannot go on in the middle of a file; run again, or download it first",
        ) from error

    def _first(self) -> None:
        for number in range(len(self._pauses_s) + 1):
            try:
                self._ask(0, None)
                return
            except _CUT as error:
                self._again(number, error)

    def _ask(self, start: int, end: int | None) -> None:
        """Begin to read at a place. end: the first byte that is not needed. Errors: OSError, HTTPException."""
        self._end()
        request = urllib.request.Request(self._url, headers={"Accept-Encoding": "identity"})
        request.add_header("Range", f"bytes={start}-{'' if end is None else end - 1}")
        try:
            answer = _OPENER.open(request, timeout=self._timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416 and start == 0:
                    self.size_bytes, self.has_ranges = 0, True
                    return
                if error.code not in _TRANSIENT:
                    raise _refused(self._url, error) from error
                raise OSError(f"the server answers {error.code} {error.reason}") from None
        except urllib.error.URLError as error:
            raise OSError(str(error.reason)) from error
        self._answer, self._answer_at = answer, start
        self._check(answer, start)

    def _check(self, answer: Any, start: int) -> None:
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        total = re.fullmatch(r"bytes (\d+)-\d*/(\d+|\*)", answer.headers.get("Content-Range") or "")
        if answer.status == 206 and total is not None and int(total[1]) == start:
            size = None if total[2] == "*" else int(total[2])
            self.has_ranges = True
        elif start:
            raise self._changed("the server has stopped to answer ranges")
        else:
            length = answer.headers.get("Content-Length")
            size = int(length) if length is not None and length.isdigit() else None
        if (self._tag is not None and tag != self._tag) or self.size_bytes not in (None, size):
            raise self._changed("its size or its tag is another one now")
        self._tag, self.size_bytes = tag, size

    def _changed(self, why: str) -> SessionizeError:
        self._end()
        return InputError("a file changed while it was read", detail=f"{self._url}: {why}", hint="run again")

    def _end(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()


def _refused(url: str, error: urllib.error.HTTPError) -> SessionizeError:
    if error.code in (404, 410):
        return read_failure(url, FileNotFoundError())
    if error.code in (401, 403):
        return InputError(
            "a file may not be read",
            detail=f"{url}: the server answers {error.code} {error.reason}",
            hint="only files that need no login can be read from a web server",
        )
    return InputError(
        "a file cannot be read",
        detail=f"{url}: the server answers {error.code} {error.reason}",
        hint="check its address",
    )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Never from an encrypted connection to another one."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.full_url.lower().startswith("https:") and not newurl.lower().startswith("https:"):
            raise InputError(
                "a web server leads to an address that is not encrypted",
                detail=req.full_url,
                hint="use the right address",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_Redirects)
