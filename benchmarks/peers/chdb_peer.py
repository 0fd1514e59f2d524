"""ClickHouse in the process (chdb): each user's times as one array, cut where the difference exceeds the gap.

The rolling cap peels the first two hours off every chain that is longer, by a recursive query that carries only what
is left of those: three times as quick as an arrayFold over the long chains.
"""

import chdb
from task import CAP_MS, COUNT, END, GAP_MS, PAGES, START, Task, from_command_line


def source(task: Task) -> str:
    if task.is_json:
        columns = "uuid String, event_timestamp Int64" + (", page_name String" if task.pages else "")
        names = "uuid AS user, event_timestamp AS ts" + (", page_name AS page" if task.pages else "")
        return f"(SELECT {names} FROM file('{task.source}', JSONEachRow, '{columns}'))"
    columns = "user String, ts Int64" + (", page LowCardinality(String)" if task.pages else "")
    return f"file('{task.source}', Parquet, '{columns}')"


def chains(task: Task) -> str:
    """user, s: one row and one array of times for every stretch without a long silence."""
    return f"""
    SELECT user, arrayJoin(arraySplit((_, silence) -> silence > {GAP_MS}, t, arrayDifference(t))) AS s
    FROM (SELECT user, arraySort(groupArray(ts)) AS t FROM {source(task)} GROUP BY user)"""


def gap_query(task: Task) -> str:
    return f"""
    SELECT user AS {task.user}, s[1] AS {START}, s[-1] AS {END}, toInt64(length(s)) AS {COUNT}
    FROM ({chains(task)})"""


def pages_query(task: Task) -> str:
    return f"""
    SELECT user AS {task.user}, s.1[1] AS {START}, s.1[-1] AS {END}, toInt64(length(s.1)) AS {COUNT},
           arrayDistinct(s.2) AS {PAGES}
    FROM (
      SELECT user, arrayJoin(arrayZip(
               arraySplit((_, silence) -> silence > {GAP_MS}, t, arrayDifference(t)),
               arraySplit((_, silence) -> silence > {GAP_MS}, p, arrayDifference(t)))) AS s
      FROM (
        SELECT user, arraySort(times) AS t, arraySort((_, time) -> time, pages, times) AS p
        FROM (
          SELECT user, groupArray(ts) AS times, groupArray(page) AS pages
          FROM {source(task)} GROUP BY user)))"""


def cap_query(task: Task) -> str:
    # k: position of the first event that opens the next session, 0 when there is none
    piece = "user, s[1] AS a, if(k = 0, s[-1], s[k - 1]) AS z, toInt64(if(k = 0, length(s), k - 1)) AS n, " \
        "if(k = 0, [], arraySlice(s, k)) AS rest"  # fmt: skip
    opens_next = f"arrayFirstIndex(x -> x >= s[1] + {CAP_MS}, s)"
    return f"""
    WITH RECURSIVE pieces AS (
      SELECT {piece}
      FROM (SELECT user, s, if(s[-1] < s[1] + {CAP_MS}, 0, {opens_next}) AS k FROM ({chains(task)}))
      UNION ALL
      SELECT {piece}
      FROM (SELECT user, rest AS s, {opens_next} AS k FROM pieces WHERE notEmpty(rest)))
    SELECT user AS {task.user}, a AS {START}, z AS {END}, n AS {COUNT} FROM pieces"""


def main() -> None:
    task = from_command_line()
    query = cap_query(task) if task.capped else pages_query(task) if task.pages else gap_query(task)
    chdb.query(f"""{query}
    INTO OUTFILE '{task.output}' FORMAT Parquet
    SETTINGS max_threads = {task.threads}, output_format_parquet_string_as_string = 1,
             max_recursive_cte_evaluation_depth = 1000000""")


if __name__ == "__main__":
    main()
