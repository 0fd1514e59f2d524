"""ClickHouse in a process of its own, run by the Python of `.venv-sql`: queries in, results out.

Each request is a line of JSON: {"query": …, "format": …}. The answer is a line "ok SIZE" or "error SIZE", and so many
bytes. It imports nothing of the package.
"""

import json
import sys

from chdb.session import Session


def serve() -> None:
    session = Session()
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        try:
            word, answer = "ok", bytes(session.query(asked["query"], asked["format"]).bytes() or b"")
        except Exception as error:
            word, answer = "error", str(error).encode()
        sys.stdout.buffer.write(f"{word} {len(answer)}\n".encode() + answer)
        sys.stdout.buffer.flush()


serve()
