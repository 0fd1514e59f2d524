"""An S3 object store on loopback and in memory: moto's server."""

import urllib.request
from types import TracebackType
from typing import Self

from moto.server import ThreadedMotoServer

_CALL_TIMEOUT_S = 20


class ObjectStoreServer:
    """Runs while its context is entered, with one bucket. It does not check credentials."""

    def __init__(self, *, bucket: str = "lake") -> None:
        self.bucket = bucket
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)

    @property
    def url(self) -> str:
        """The endpoint."""
        host, port = self._server.get_host_and_port()
        return f"http://{host}:{port}"

    @property
    def options(self) -> dict[str, str]:
        """The catalog options for it; the secret key is expected in the variable STORE_KEY."""
        return {
            "s3.endpoint": self.url,
            "s3.region": "us-east-1",
            "s3.access-key-id": "someone",
            "s3.secret-access-key-env": "STORE_KEY",
        }

    def __enter__(self) -> Self:
        self._server.start()
        request = urllib.request.Request(f"{self.url}/{self.bucket}", method="PUT")
        urllib.request.urlopen(request, timeout=_CALL_TIMEOUT_S).close()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.stop()
