"""PySpark on local[n]: lag() and a running sum; the cap as a fold over each long chain's sorted times.

`--textbook` uses session_window instead (A only). The output is a folder of Parquet files.
"""

import sys

from pyspark.sql import DataFrame, SparkSession
from task import CAP_MS, COUNT, END, GAP_MS, PAGES, START, Task, from_command_line


def events(spark: SparkSession, task: Task) -> DataFrame:
    if not task.is_json:
        return spark.read.parquet(task.source).withColumnRenamed("user", "u")
    frame = spark.read.schema("uuid STRING, event_timestamp STRING, page_name STRING").json(task.source)
    return frame.selectExpr("uuid AS u", "CAST(event_timestamp AS BIGINT) AS ts", "page_name AS page")


def query(task: Task) -> str:
    page = ", page" if task.pages else ""
    numbered = f"""
    flagged AS (SELECT u, ts{page},
                  CASE WHEN ts - lag(ts) OVER (PARTITION BY u ORDER BY ts) > {GAP_MS}
                    THEN 1 ELSE 0 END AS opens
                FROM events),
    numbered AS (SELECT u, ts{page},
                   sum(opens) OVER (PARTITION BY u ORDER BY ts ROWS UNBOUNDED PRECEDING) AS session
                 FROM flagged)"""
    if task.textbook:
        return f"""
        SELECT u AS {task.user}, unix_millis(w.start) AS {START}, unix_millis(w.end) - {GAP_MS} AS {END},
               n AS {COUNT}
        FROM (SELECT u, session_window(timestamp_millis(ts), '30 minutes') AS w, count(*) AS n FROM events
              GROUP BY u, session_window(timestamp_millis(ts), '30 minutes'))"""
    if task.pages:
        return f"""WITH {numbered},
        visits AS (SELECT u, session, page, min(ts) AS a, max(ts) AS z, count(*) AS n
               FROM numbered GROUP BY u, session, page)
        SELECT u AS {task.user}, min(a) AS {START}, max(z) AS {END}, sum(n) AS {COUNT},
               transform(array_sort(collect_list(struct(a, page))), x -> x.page) AS {PAGES}
        FROM visits GROUP BY u, session"""
    if not task.capped:
        return f"""WITH {numbered}
        SELECT u AS {task.user}, min(ts) AS {START}, max(ts) AS {END}, count(*) AS {COUNT}
        FROM numbered GROUP BY u, session"""
    opened = "named_struct('a', x, 'z', x, 'n', 1L)"
    grown = "named_struct('a', element_at(acc, -1).a, 'z', x, 'n', element_at(acc, -1).n + 1L)"
    fold = f"""aggregate(slice(t, 2, size(t)), array(named_struct('a', t[0], 'z', t[0], 'n', 1L)), (acc, x) ->
        CASE WHEN x - element_at(acc, -1).a >= {CAP_MS} THEN concat(acc, array({opened}))
             ELSE concat(slice(acc, 1, size(acc) - 1), array({grown})) END)"""
    return f"""WITH {numbered},
    chains AS (SELECT u, array_sort(collect_list(ts)) AS t FROM numbered GROUP BY u, session),
    pieces AS (SELECT u, explode(CASE WHEN element_at(t, -1) - t[0] >= {CAP_MS} THEN {fold}
                 ELSE array(named_struct('a', t[0], 'z', element_at(t, -1), 'n', CAST(size(t) AS BIGINT)))
                 END) AS p
               FROM chains)
    SELECT u AS {task.user}, p.a AS {START}, p.z AS {END}, p.n AS {COUNT} FROM pieces"""


def main() -> None:
    task = from_command_line()
    if task.textbook and (task.capped or task.pages):
        sys.exit("session_window knows neither the cap nor pages")
    builder = SparkSession.builder.master(f"local[{task.threads}]").config("spark.driver.memory", "10g")
    builder = builder.config("spark.sql.shuffle.partitions", str(2 * task.threads)).config("spark.ui.enabled", "false")
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    events(spark, task).createOrReplaceTempView("events")
    spark.sql(query(task)).write.mode("overwrite").parquet(task.output)
    spark.stop()


if __name__ == "__main__":
    main()
