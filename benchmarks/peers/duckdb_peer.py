"""DuckDB: each user's times as one sorted list, cut at the positions where the silence exceeds the gap.

`--textbook` runs the query that is usually shown instead: lag() to find the silences, a running sum to number
the sessions, GROUP BY to fold them. It takes two to five times as long and much more memory.
"""

import duckdb
from task import CAP_MS, COUNT, END, GAP_MS, PAGES, START, Task, from_command_line


def events(task: Task) -> str:
    """A subquery with the columns user, ts and, when asked for, page."""
    page = ", page_name AS page" if task.is_json else ", page"
    if not task.is_json:
        return f"""SELECT "user", ts{page if task.pages else ""} FROM read_parquet('{task.source}')"""
    columns = "{uuid: 'VARCHAR', event_timestamp: 'VARCHAR', page_name: 'VARCHAR'}"
    return f"""SELECT uuid AS "user", event_timestamp::BIGINT AS ts{page if task.pages else ""}
    FROM read_json('{task.source}', format = 'newline_delimited', columns = {columns})"""


def chains(task: Task) -> str:
    """CTEs that end in chain("user", t, i, j): the times t[i] … t[j - 1] of one user are a chain."""
    element = "{'ts': ts, 'page': page}" if task.pages else "ts"
    at = ".ts" if task.pages else ""
    return f"""
    users AS (SELECT "user", list_sort(list({element})) AS t FROM ({events(task)}) GROUP BY "user"),
    cuts AS (SELECT "user", t, list_filter(range(1, len(t) + 1),
               lambda i: i = 1 OR t[i]{at} - t[i - 1]{at} > {GAP_MS}) AS first FROM users),
    chain AS (SELECT "user", t, unnest(first) AS i, unnest(list_append(first[2:], len(t) + 1)) AS j
              FROM cuts)"""


def gap_query(task: Task) -> str:
    return f"""WITH {chains(task)}
    SELECT "user" AS {task.user}, t[i] AS {START}, t[j - 1] AS {END}, j - i AS {COUNT} FROM chain"""


def pages_query(task: Task) -> str:
    return f"""WITH {chains(task)},
    named AS (SELECT "user", t[i].ts AS a, t[j - 1].ts AS z, j - i AS n,
                list_transform(t[i:j - 1], lambda e: e.page) AS p FROM chain)
    SELECT "user" AS {task.user}, a AS {START}, z AS {END}, n AS {COUNT},
           list_filter(p, lambda page, k: list_position(p, page) = k) AS {PAGES}
    FROM named"""


def cap_query(task: Task) -> str:
    within = f"lambda x: x < s[1] + {CAP_MS}"
    return f"""WITH RECURSIVE {chains(task)},
    spans AS MATERIALIZED (
      SELECT "user", t[i] AS a, t[j - 1] AS z, j - i AS n,
             CASE WHEN t[j - 1] - t[i] >= {CAP_MS} THEN t[i:j - 1] END AS s FROM chain),
    pieces AS (
      SELECT "user", s, len(list_filter(s, {within})) AS n FROM spans WHERE s IS NOT NULL
      UNION ALL
      SELECT "user", s, len(list_filter(s, {within})) FROM (
        SELECT "user", s[n + 1:] AS s FROM pieces WHERE n < len(s)))
    SELECT "user" AS {task.user}, a AS {START}, z AS {END}, n AS {COUNT} FROM spans WHERE s IS NULL
    UNION ALL
    SELECT "user", s[1], s[n], n FROM pieces"""


def textbook_query(task: Task) -> str:
    page = ", page" if task.pages else ""
    numbered = f"""
    flagged AS (SELECT "user", ts{page},
                  coalesce(ts - lag(ts) OVER (PARTITION BY "user" ORDER BY ts) > {GAP_MS}, false) AS opens
                FROM ({events(task)})),
    numbered AS (SELECT "user", ts{page},
                   sum(opens::INT) OVER (PARTITION BY "user" ORDER BY ts ROWS UNBOUNDED PRECEDING) AS session
                 FROM flagged)"""
    if task.pages:
        return f"""WITH {numbered},
        visits AS (SELECT "user", session, page, min(ts) AS a, max(ts) AS z, count(*) AS n
                   FROM numbered GROUP BY ALL)
        SELECT "user" AS {task.user}, min(a) AS {START}, max(z) AS {END}, sum(n)::BIGINT AS {COUNT},
               list(page ORDER BY a) AS {PAGES} FROM visits GROUP BY "user", session"""
    if not task.capped:
        return f"""WITH {numbered}
        SELECT "user" AS {task.user}, min(ts) AS {START}, max(ts) AS {END}, count(*) AS {COUNT}
        FROM numbered GROUP BY "user", session"""
    return f"""WITH RECURSIVE {numbered},
    spans AS MATERIALIZED (
      SELECT *, min(ts) OVER chain AS a, max(ts) OVER chain AS z FROM numbered
      WINDOW chain AS (PARTITION BY "user", session)),
    jumps AS MATERIALIZED (
      SELECT "user", ts, a, min(ts) OVER (PARTITION BY "user", session ORDER BY ts
               RANGE BETWEEN {CAP_MS} FOLLOWING AND UNBOUNDED FOLLOWING) AS next
      FROM spans WHERE z - a >= {CAP_MS}),
    opened AS (
      SELECT "user", ts, next FROM jumps WHERE ts = a
      UNION ALL
      SELECT j."user", j.ts, j.next FROM opened o JOIN jumps j ON j."user" = o."user" AND j.ts = o.next),
    cut AS (
      SELECT s."user", s.ts, sum((s.ts = s.a OR o.ts IS NOT NULL)::INT)
               OVER (PARTITION BY s."user" ORDER BY s.ts ROWS UNBOUNDED PRECEDING) AS session
      FROM spans s LEFT JOIN opened o ON o."user" = s."user" AND o.ts = s.ts)
    SELECT "user" AS {task.user}, min(ts) AS {START}, max(ts) AS {END}, count(*) AS {COUNT}
    FROM cut GROUP BY "user", session"""


def main() -> None:
    task = from_command_line()
    query = (
        textbook_query(task)
        if task.textbook
        else cap_query(task) if task.capped else pages_query(task) if task.pages else gap_query(task)
    )  # fmt: skip
    connection = duckdb.connect()
    connection.execute(f"SET threads = {task.threads}")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute(f"COPY ({query}) TO '{task.output}' (FORMAT parquet)")


if __name__ == "__main__":
    main()
