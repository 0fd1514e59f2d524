"""One broker for several test processes: `python -m sessionize.testing.services.shared_broker FOLDER`.

Every user of the broker holds a shared lock on the file `users`. The keeper starts the broker, writes its address to
the file `address`, and waits for the exclusive lock: it gets it when the last user has ended in any way, because the
system releases the locks of ended processes. Then it stops the broker.
"""

import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_START_TIMEOUT_S = 120
_POLL_S = 0.05


@contextmanager
def shared_broker(folder: Path) -> Iterator[str]:
    """The address of the broker shared by all users of this folder; the first of them starts it.

    Errors: ServiceMissing if a part of it is missing on this machine, RuntimeError if it does not start.
    """
    from sessionize.testing.services.java_parts import java, server_jars

    server_jars("kafka")
    java()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "starting").open("w") as starting, (folder / "users").open("w") as users:
        fcntl.flock(starting, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)  # waits for a keeper that is stopping its broker
        address = folder / "address"
        if not address.exists():
            _start_keeper(folder, address)
        fcntl.flock(starting, fcntl.LOCK_UN)
        yield address.read_text(encoding="utf-8")


def _start_keeper(folder: Path, address: Path) -> None:
    with (folder / "keeper.log").open("ab") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "sessionize.testing.services.shared_broker", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    until = time.monotonic() + _START_TIMEOUT_S
    while not address.exists():
        if keeper.poll() is not None or time.monotonic() > until:
            keeper.kill()
            text = (folder / "keeper.log").read_text(errors="replace")[-2_000:]
            raise RuntimeError(f"the shared Kafka broker did not start: {text}")
        time.sleep(_POLL_S)
    keeper.returncode = 0  # it outlives this process, which does not wait for it


def keep(folder: Path) -> None:
    """Run the broker as long as it has users."""
    from sessionize.testing.services.kafka import KafkaBroker

    address, unfinished = folder / "address", folder / "address.unfinished"
    with (folder / "users").open("w") as users, KafkaBroker(folder / f"broker-{time.time_ns()}") as broker:
        unfinished.write_text(broker.bootstrap_servers, encoding="utf-8")
        unfinished.rename(address)
        try:
            fcntl.flock(users, fcntl.LOCK_EX)
        finally:
            address.unlink()
            broker.kill()


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
