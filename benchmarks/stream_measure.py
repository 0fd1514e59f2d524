"""Runs one command and prints what it cost as JSON: measure.run in a process of its own, which has no other children.

    echo '{"command": ["true"], "wall_s_max": 60}' | python benchmarks/stream_measure.py

The benchmark that holds a broker cannot measure by itself: measure.run waits for all children of its process.
"""

import json
import sys

from measure import Limits, run


def main() -> None:
    asked = json.load(sys.stdin)
    print(json.dumps(run(asked["command"], Limits(wall_s_max=asked["wall_s_max"])).as_dict()))


if __name__ == "__main__":
    main()
