"""DataFusion: lag() to find the silences, a running sum to number the sessions, GROUP BY to fold them.

Task B is left out: with the cap as a recursive join it takes more memory than a machine of 24 GB has.
"""

import sys

import pyarrow as pa
from datafusion import SessionConfig, SessionContext
from task import COUNT, END, GAP_MS, PAGES, START, Task, from_command_line


def query(task: Task) -> str:
    page = ", page" if task.pages else ""
    names = (
        "uuid AS u, CAST(event_timestamp AS BIGINT) AS ts, page_name AS page"
        if task.is_json
        else '"user" AS u, ts, page'
    )
    numbered = f"""
    flagged AS (SELECT u, ts{page},
                  CASE WHEN ts - lag(ts) OVER (PARTITION BY u ORDER BY ts) > {GAP_MS}
                    THEN 1 ELSE 0 END AS opens
                FROM (SELECT {names} FROM events)),
    numbered AS (SELECT u, ts{page},
                   sum(opens) OVER (PARTITION BY u ORDER BY ts ROWS UNBOUNDED PRECEDING) AS session
                 FROM flagged)"""
    if not task.pages:
        return f"""WITH {numbered}
        SELECT u AS "{task.user}", min(ts) AS {START}, max(ts) AS {END}, count(*) AS {COUNT}
        FROM numbered GROUP BY u, session"""
    return f"""WITH {numbered},
    visits AS (SELECT u, session, page, min(ts) AS a, max(ts) AS z, count(*) AS n
               FROM numbered GROUP BY u, session, page)
    SELECT u AS "{task.user}", min(a) AS {START}, max(z) AS {END}, CAST(sum(n) AS BIGINT) AS {COUNT},
           array_agg(page ORDER BY a) AS {PAGES} FROM visits GROUP BY u, session"""


def main() -> None:
    task = from_command_line()
    if task.capped:
        sys.exit("task B needs more memory than is sensible in DataFusion")
    context = SessionContext(SessionConfig().with_target_partitions(task.threads))
    if task.is_json:
        schema = pa.schema([(name, pa.string()) for name in ("uuid", "event_timestamp", "page_name")])
        context.register_json("events", task.source, schema=schema, file_extension=".ndjson")
    else:
        context.register_parquet("events", task.source)
    context.sql(query(task)).write_parquet(task.output)


if __name__ == "__main__":
    main()
