"""An Iceberg REST catalog on loopback with tables in a folder: the server of Iceberg's own client tests."""

import signal
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from sessionize.testing.services.java_parts import java, server_jars
from sessionize.testing.services.process import ServerProcess, free_port

_START_TIMEOUT_S = 90
_STOP_TIMEOUT_S = 10
_MAIN = "org.apache.iceberg.rest.RESTCatalogServer"


class RestCatalogServer:
    """Runs from start (or entering the context) to stop. folder: for its database, its log and the tables.

    Errors: ServiceMissing if its parts are missing, RuntimeError if it does not start.
    """

    def __init__(self, folder: Path) -> None:
        self._command = [java(), "-Xmx256m", "-cp", f"{server_jars('rest-catalog')}/*", _MAIN]
        self._folder = folder
        self._port = free_port()
        self._server: ServerProcess | None = None

    @property
    def uri(self) -> str:
        """Its address, which stays the same after a restart."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it with new or existing data, and return when it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "CATALOG_URI": f"jdbc:sqlite:{self._folder / 'rest.db'}",
            "CATALOG_WAREHOUSE": f"file://{self._folder / 'warehouse'}",
            "CATALOG_REST_PORT": str(self._port),
        }
        environment = [f"{name}={value}" for name, value in settings.items()]
        self._server = ServerProcess(
            ["/usr/bin/env", *environment, *self._command], log=self._folder / "log", end_signal=signal.SIGTERM
        )
        self._server.wait_until(self._answers, timeout_s=_START_TIMEOUT_S)

    def stop(self) -> None:
        """Stop it; the tables stay. Does nothing if it is not running."""
        if self._server is not None:
            self._server.stop(timeout_s=_STOP_TIMEOUT_S)
            self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.uri}/v1/config", timeout=5).close()
        except OSError:
            return False
        return True
