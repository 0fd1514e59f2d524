"""Runs one command and prints what it cost as JSON: measure.run in a process of its own, which has no other children.

    echo '{"command": ["true"], "wall_s_max": 60}' | python benchmarks/stream_measure.py

The benchmark that holds a broker cannot measure by itself: measure.run waits for all children of its process.
"""

import contextlib
import json
import os
import signal
import sys

from measure import Limits, descendants, run


def main() -> None:
    asked = json.load(sys.stdin)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        done = run(asked["command"], Limits(wall_s_max=asked["wall_s_max"]))
    except BaseException:  # told to end: what was started ends too
        for pid in descendants(os.getpid()).keys() - {os.getpid()}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        raise
    print(json.dumps(done.as_dict()))


if __name__ == "__main__":
    main()
