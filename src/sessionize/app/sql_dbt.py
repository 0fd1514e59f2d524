"""The files of a dbt project that `sql --dbt` writes: an incremental model, its tests and its description."""

from pathlib import Path

from sessionize.errors import ConfigError, OutputError
from sessionize.session import columns as col
from sessionize.session.definition import SessionDefinition
from sessionize.sql import EventTable
from sessionize.sql.dbt import LOADED, model_sql, recomputation_sql, source_call
from sessionize.sql.dialect import Dialect
from sessionize.sql.session_columns import INPUT_END

MODEL = "user_sessions"
_MARK = "written by sessionize sql --dbt"


def write_project(
    folder: Path, definition: SessionDefinition, events: EventTable, dialect: Dialect, *, lookback_s: int
) -> list[Path]:
    """Write the files, and return their paths; files of an earlier call are replaced.

    Errors: ConfigError for what an incremental model cannot say, and where a file is somebody else's; OutputError.
    """
    made = {
        Path("models", f"{MODEL}.sql"): f"-- {_MARK}\n{model_sql(definition, events, dialect, lookback_s=lookback_s)}",
        Path("models", f"{MODEL}.yml"): _schema(definition, events),
        Path("models", f"{MODEL}.md"): _description(definition, events, lookback_s),
        Path("tests", f"{MODEL}_equal_a_recomputation.sql"): (
            f"-- {_MARK}\n{recomputation_sql(definition, events, dialect, model=MODEL)}"
        ),
    }
    try:
        for name in made:
            _check_own(folder / name)
        for name, content in made.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise OutputError("a file cannot be written", detail=f"{error.filename}: {error.strerror}") from error
    return [folder / name for name in made]


def _check_own(path: Path) -> None:
    if path.exists() and _MARK not in path.read_text(encoding="utf-8", errors="replace"):
        raise ConfigError(
            "this file is not from sessionize", detail=str(path), hint="move it away, or name another folder with --dbt"
        )


def _schema(definition: SessionDefinition, events: EventTable) -> str:
    """The tests of the columns, and the source where the table has a schema. JSON strings are strings of YAML."""
    import json

    rules = definition.rules
    names = ["start_events", "end_events", "day_start", "split_on_change"]
    reasons = ["inactivity", "max_duration", "max_events", *(f"rule:{name}" for name in names)]
    ends = [*reasons, "end_of_input", *(["timeout"] if rules.end_events else [])]
    lines = [f"# {_MARK}", "version: 2", "models:", f"  - name: {MODEL}"]
    lines += [f"    description: '{{{{ doc(\"{MODEL}\") }}}}'", "    columns:"]
    tested: list[tuple[str, list[str]]] = [
        (definition.user_name, ["not_null"]),
        (col.SESSION_ID, ["not_null", "unique"]),
        (col.SESSION_START, ["not_null"]),
        (col.SESSION_END, ["not_null"]),
        (col.START_REASON, ["not_null", _accepted(reasons)]),
        (col.END_REASON, ["not_null", _accepted(ends)]),
        (LOADED, ["not_null"]),
        (INPUT_END, ["not_null"]),
    ]
    for name, tests in tested:
        lines += [f"      - name: {json.dumps(name, ensure_ascii=False)}", "        quote: true", "        data_tests:"]
        lines += [f"          - {test}" for test in tests]
    if len(events.name) > 1:
        schema, table = (json.dumps(part, ensure_ascii=False) for part in events.name[-2:])
        lines += ["sources:", f"  - name: {schema}", "    quoting: {schema: true, identifier: true}"]
        if len(events.name) > 2:
            lines += [f"    database: {json.dumps(events.name[0], ensure_ascii=False)}"]
        lines += ["    tables:", f"      - name: {table}"]
    return "\n".join(lines) + "\n"


def _accepted(values: list[str]) -> str:
    return f"accepted_values: {{arguments: {{values: {values!r}}}}}"


def _description(definition: SessionDefinition, events: EventTable, lookback_s: int) -> str:
    loaded = events.loaded_at
    return f"""{{% docs {MODEL} %}}
One row per session, {_MARK}: {definition.policy.describe()}.

The model is incremental. A run reads the rows of `{source_call(events.name)}` whose `{loaded}` is not before the newest
one that an earlier run has read, less {lookback_s} seconds for rows committed late. For the users of these rows, and
for those whose last session is open (`end_of_input`), it reads the events from the start of a session that a silence
began, before the first new row, and rewrites their sessions. So an event may be late by any time, join two sessions
or cut one, and the model equals a full refresh.

- `{loaded}` must be set on every row, to the time at which it came; it may be committed up to the lookback later.
- A change of the rules needs a full refresh of the model, and so do rows that are deleted or changed in the table.
- `dbt test` checks the columns, and compares the model with a recomputation of all sessions. That test reads the whole
  table; to leave it out, exclude `{MODEL}_equal_a_recomputation`.
- A session whose `end_reason` is `end_of_input` may still grow.
{{% enddocs %}}
"""
