"""The task as every peer gets it: one input, one output, which rules, how many threads.

Input: Parquet (user, ts in ms, page) or NDJSON of the clickstream wire format. Output: Parquet with the
columns of OUTPUT; the user column keeps the input's name. A silence over GAP_MS starts a session; in task B
also an event at or after its session's start + CAP_MS; in A+pages each session lists its distinct pages by
first visit.
"""

import argparse
from dataclasses import dataclass

GAP_MS = 1_800_000
CAP_MS = 7_200_000
START, END, COUNT, PAGES = OUTPUT = (
    "session_start_time_ms", "session_end_time_ms", "event_count", "pages_visited"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Task:
    """`capped` and `pages` are never both set; `textbook` asks for the query that handbooks show."""

    source: str
    output: str
    capped: bool
    pages: bool
    threads: int
    textbook: bool

    @property
    def is_json(self) -> bool:
        return self.source.endswith(".ndjson")

    @property
    def user(self) -> str:
        """The user column's name, in input and output."""
        return "uuid" if self.is_json else "user"


def from_command_line() -> Task:
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("output")
    parser.add_argument("--task", choices=("A", "B", "A+pages"), default="A")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--textbook", action="store_true")
    args = parser.parse_args()
    if "'" in args.source + args.output:
        parser.error("a path with a quote can't be written into a query")
    return Task(
        source=args.source,
        output=args.output,
        capped=args.task == "B",
        pages=args.task == "A+pages",
        threads=args.threads,
        textbook=args.textbook,
    )
