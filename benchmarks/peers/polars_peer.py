"""Polars: each user's times sorted inside group_by, laid out again, cut where user or silence say so.

Grouping first is several times quicker than sorting all events by a string column, which `--textbook` does.
The rolling cap is no expression: all long chains jump to their next session's start together, by
search_sorted, until none is left.
"""

import os

from task import CAP_MS, COUNT, END, GAP_MS, PAGES, START, Task, from_command_line

TASK = from_command_line()
os.environ["POLARS_MAX_THREADS"] = str(TASK.threads)  # read once, when Polars is imported

import polars as pl  # noqa: E402


def events(task: Task) -> pl.LazyFrame:
    """user, ts and, when asked for, page."""
    if task.is_json:
        names = {"uuid": pl.String, "event_timestamp": pl.String} | ({"page_name": pl.String} if task.pages else {})
        frame = pl.scan_ndjson(task.source, schema=names)
        frame = frame.rename({"uuid": "user", "event_timestamp": "ts", "page_name": "page"}, strict=False)
        frame = frame.with_columns(pl.col("ts").cast(pl.Int64))
    else:
        frame = pl.scan_parquet(task.source).select("user", "ts", *(["page"] if task.pages else []))
    return frame.with_columns(pl.col("page").cast(pl.Categorical)) if task.pages else frame


def ordered(task: Task) -> pl.LazyFrame:
    """Events by user and time, with `opens` on the first of every chain."""
    if task.textbook:
        frame = events(task).sort("user", "ts")
    else:
        columns = [pl.col("ts").sort(), *([pl.col("page").sort_by("ts")] if task.pages else [])]
        frame = events(task).group_by("user").agg(columns).explode("ts", *(["page"] if task.pages else []))
    new_user = pl.col("user") != pl.col("user").shift()
    return frame.with_columns(opens=(new_user | (pl.col("ts").diff() > GAP_MS)).fill_null(True))


def folded(frame: pl.LazyFrame, task: Task) -> pl.LazyFrame:
    columns = [
        pl.col("user").first().alias(task.user),
        pl.col("ts").first().alias(START),
        pl.col("ts").last().alias(END),
        pl.len().cast(pl.Int64).alias(COUNT),
    ]
    if task.pages:
        columns.append(pl.col("page").unique(maintain_order=True).alias(PAGES))
    sessions = frame.with_columns(session=pl.col("opens").cum_sum()).group_by("session").agg(columns).drop("session")
    return sessions.with_columns(pl.col(PAGES).cast(pl.List(pl.String))) if task.pages else sessions


def capped(task: Task) -> pl.LazyFrame:
    """As `ordered`, with `opens` also on the first event at or after its session's start + cap."""
    numbered = ordered(task).with_columns(chain=pl.col("opens").cum_sum()).with_row_index("row")
    frame = numbered.collect(engine="streaming")
    spans = frame.group_by("chain").agg(a=pl.col("ts").first(), z=pl.col("ts").last())
    spans = spans.filter(pl.col("z") - pl.col("a") >= CAP_MS)
    long = frame.join(spans, on="chain", how="semi", maintain_order="left")
    # The chain's number above the time: one sorted column in which a jump that leaves its chain lands in another.
    lane = pl.col("chain").cast(pl.Int64) * (1 << 41)
    long = long.with_columns(key=lane + (pl.col("ts") - frame["ts"].min()))
    here, cuts = long.filter("opens").select("key", "chain"), []
    while len(here):
        at = long["key"].search_sorted(here["key"] + CAP_MS)
        jumped = here.select("chain", at=at).filter(pl.col("at") < len(long))
        jumped = jumped.filter(jumped["chain"] == long["chain"].gather(jumped["at"]))
        here = long[jumped["at"]].select("key", "chain", "row")
        cuts.append(here["row"])
    opens = frame["opens"]
    return frame.lazy().with_columns(opens=opens.scatter(pl.concat(cuts), True) if cuts else opens)


def main() -> None:
    frame = capped(TASK) if TASK.capped else ordered(TASK)
    folded(frame, TASK).sink_parquet(TASK.output)


if __name__ == "__main__":
    main()
