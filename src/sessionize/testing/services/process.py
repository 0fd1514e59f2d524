"""A server as a child process that ends with its parent, and may run as another user.

A server started by a test would outlive a killed test process. Linux signals a child whose parent has ended if the
child requests it; so a small program requests it, drops root if needed, and becomes the server. It runs without the
package: `python process.py PARENT SIGNAL USER PROGRAM ARGUMENT...`.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.02
NO_ROOT = 65534  # "nobody", by custom


class ServerProcess:
    """One running server. log: the file for its output.

    user: the user id to run as, None for our own. end_signal: shuts it down cleanly, and is also sent when this process
    dies; so the thread that creates this must live as long as the server is needed.
    """

    def __init__(
        self, command: Sequence[str], *, log: Path, end_signal: signal.Signals, user: int | None = None
    ) -> None:
        self._log = log
        self._end_signal = end_signal
        launch = [sys.executable, "-S", "-E", __file__, str(os.getpid()), str(int(end_signal)), str(user or 0)]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*launch, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                start_new_session=True,  # an interrupt from the terminal is for the parent
            )

    def wait_until(self, is_ready: Callable[[], bool], *, timeout_s: float) -> None:
        """Return when it is ready. Errors: RuntimeError with the end of its log if it ends or takes too long."""
        until = time.monotonic() + timeout_s
        while not is_ready():
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                log = self._log.read_text(encoding="utf-8", errors="replace")[-2_000:]
                raise RuntimeError(f"{self._process.args!r} did not start: {log}")
            time.sleep(_POLL_S)

    def stop(self, *, timeout_s: float) -> None:
        """Shut it down cleanly; kill it if that fails."""
        self._process.send_signal(self._end_signal)
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill it, like a crash."""
        self._process.kill()
        self._process.wait()


def free_port() -> int:
    """A free port on the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _become(parent: int, end_signal: int, user: int, command: list[str]) -> None:
    if user:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, end_signal)
    if os.getppid() != parent:  # the parent ended before the call
        sys.exit(1)
    os.execv(command[0], command)


if __name__ == "__main__":
    _become(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
