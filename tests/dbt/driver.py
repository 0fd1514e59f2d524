"""Runs inside the environment of dbt, as a process of its own: steps over a project, one after the other.

A step is [command, ...] of dbt, or {"sql": [...], "rows": NAME}: statements in the database, and the file NAME.json
that gets the rows of the last one. Prints nothing when all went well.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import duckdb  # type: ignore[import-not-found,unused-ignore]  # that of dbt's environment


def main(project: Path) -> int:
    os.environ |= {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false", "DO_NOT_TRACK": "1"}
    os.chdir(project)
    from dbt.cli.main import dbtRunner  # type: ignore[import-not-found]

    options = ["--quiet", "--project-dir", ".", "--profiles-dir", "."]
    parsed = dbtRunner().invoke(["parse", *options])
    runner = dbtRunner(manifest=parsed.result)  # read once for all steps
    for step in json.loads((project / "steps.json").read_text()):
        if isinstance(step, dict):
            _query(project, step)
            continue
        done = runner.invoke([*step, *options])
        if not done.success:
            told = [f"{r.node.name}: {r.status} {r.message}" for r in getattr(done.result, "results", [])]
            sys.stderr.write(f"{step}: {done.exception or told}\n")
            return 1
    return 0


def _query(project: Path, step: dict[str, Any]) -> None:
    with duckdb.connect(str(project / "warehouse.duckdb")) as connection:
        for statement in step["sql"]:
            found = connection.execute(statement)
        if "rows" in step:
            names = [each[0] for each in found.description]
            rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
            (project / f"{step['rows']}.json").write_text(json.dumps(rows, default=str))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
