"""`demo --stream`: a stream without a server: files arrive in a folder and become sessions, late ones included.

The folder, the pipeline file and the tables stay, so that users can continue with them.
"""

import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sessionize.errors import OutputError, SessionizeError

if TYPE_CHECKING:
    from sessionize.app.config.pipeline import PipelineConfig
    from sessionize.engine.accounting import Accounting
    from sessionize.engine.run_events import EpochCommitted

EVENTS = 20_000
FILES = 16
_MARK = ".sessionize-demo"  # lies in a folder that the next demo may empty
_EVERY_S = 0.4  # a new file, so that the stream has something to show
PIPELINE = """\
# Reads files that arrive in a folder and writes sessions, until stopped; the next run resumes there.
name = "demo_stream"

[input]
kind = "directory"         # follows a folder for new files; "kafka" reads a topic
paths = ["{inbox}"]
dialect = "clickstream"

[rules]
gap = "30m"                # a longer silence ends the session
max_duration = "2h"
lateness = "2m"            # events up to this far behind the newest ones are on time

[stream]
epoch = "1s"               # how often results become durable and visible
reconcile = "none"         # `sessionize reconcile` merges late events; "1h": the stream does it

[run]
home = "{home}"
"""


def demo_stream(home: Path) -> None:
    """Show a followed folder. Errors: those of a stream; MissingExtraError before anything is made."""
    from sessionize.app.config.pipeline import load_pipeline
    from sessionize.app.streams import run  # noqa: F401 - what is not installed is said first
    from sessionize.cli import output as out

    say = out.console(stderr=True)
    say.rule("[bold]1  a folder and a pipeline file", align="left")
    pipeline, parts = _begin(home)
    config = load_pipeline(str(pipeline))
    say.print(f"{pipeline} follows {home / 'inbox'}", soft_wrap=True)
    first, rest = parts[: FILES // 2], parts[FILES // 2 :]

    say.rule("[bold]2  the stream runs, files arrive", align="left")
    with _arriving(first, home / "inbox") as expected:
        accounting = _stream(config, until=expected)
    say.print("stopped, as by Ctrl-C; open sessions are kept for the next run", style="dim")

    say.rule("[bold]3  resumed with --once: reads the rest, closes open sessions", align="left")
    for part in rest:
        _deliver(part, home / "inbox")
    accounting = _stream(load_pipeline(str(pipeline), overrides={"run.once": True}))
    out.print_accounting(accounting, None, f"sessions.user_sessions in {home}", rules=config.policy().describe())
    _check(accounting)

    say.rule("[bold]4  late events", align="left")
    _late_events(home, config)
    say.rule("[bold]next steps", align="left")
    _what_next(home, pipeline)


def _begin(home: Path) -> tuple[Path, list[bytes]]:
    """An empty home with its pipeline file, and the records of each file to come."""
    from sessionize.app.config.values import format_value
    from sessionize.app.produce import produce, settings_of

    if (home / _MARK).exists():
        shutil.rmtree(home)
    elif home.exists() and any(home.iterdir()):
        raise OutputError("the demo folder has other contents", detail=str(home), hint="choose another one: --home DIR")
    (home / "inbox").mkdir(parents=True)
    (home / _MARK).touch()
    pipeline = home / "stream.toml"
    text = PIPELINE.replace('"{inbox}"', format_value(str(home / "inbox"))).replace('"{home}"', format_value(str(home)))
    pipeline.write_text(text, encoding="utf-8")
    settings = settings_of(
        start_ms=None, profile="clickstream", users=EVENTS // 40, events=EVENTS, seed=11, skew=0.8, late_fraction=0.01,
        late_by_ms=40 * 60_000, out_of_order_ms=30_000, duplicate_fraction=0.003, broken_fraction=0.001,
    )  # fmt: skip
    made = home / "made.ndjson"
    produce(settings, made)
    lines = made.read_bytes().splitlines(keepends=True)
    made.unlink()
    size = -(-len(lines) // FILES)
    return pipeline, [b"".join(lines[at : at + size]) for at in range(0, len(lines), size)]


@contextmanager
def _arriving(parts: list[bytes], inbox: Path) -> Iterator[int]:
    """In this block files appear, one after the other; gives the number of their records."""
    ended = threading.Event()

    def deliver() -> None:
        for part in parts:
            _deliver(part, inbox)
            if ended.wait(_EVERY_S):
                return

    delivering = threading.Thread(target=deliver, name="arriving", daemon=True)
    delivering.start()
    try:
        yield sum(part.count(b"\n") for part in parts)
    finally:
        ended.set()
        delivering.join()


def _deliver(part: bytes, inbox: Path) -> None:
    """Written beside, and renamed into place: a file is there whole."""
    name = f"events-{len(list(inbox.glob('events-*'))):02}.ndjson"
    hidden = inbox / f".{name}.tmp"
    hidden.write_bytes(part)
    os.replace(hidden, inbox / name)


def _stream(config: "PipelineConfig", *, until: int | None = None) -> "Accounting":
    """Run the stream with a line for each epoch, until so many records are committed; with run.once, until all are."""
    from sessionize.app.hooks import Hooks
    from sessionize.app.runs import plan
    from sessionize.app.streams.logs import StreamLog
    from sessionize.cli.terminal.status_line import status_line
    from sessionize.engine.run_events import EpochCommitted, Handler, Observers

    stopping = threading.Event()
    with status_line(enabled=sys.stderr.isatty()) as line:

        def committed(event: "EpochCommitted") -> None:
            report = event.report
            if report.consumed or report.sessions:
                sys.stderr.write(  # not a console of its own: this appears above the status line
                    f"epoch {report.epoch:>2}  {report.consumed:>6,} records  {report.late:>4,} late"
                    f"  {report.sessions:>5,} sessions  {report.open_sessions:>5,} open\n"
                )
            if until is not None and report.accounting.consumed >= until:
                stopping.set()

        log = StreamLog(config.name, level="WARNING", outages=False, readable=True)
        observer = Observers(line, log, Handler(EpochCommitted, committed))
        return plan(config).run(Hooks(stopping=stopping, observer=observer))


def _check(accounting: "Accounting") -> None:
    from sessionize.cli.output import console

    if not accounting.balanced:
        raise SessionizeError("the record accounting of the demo does not add up", detail=str(accounting.as_dict()))
    console(stderr=True).print(
        "every record is accounted for: read = in sessions + late + duplicate + rejected", style="green"
    )


def _late_events(home: Path, config: "PipelineConfig") -> None:
    """Before and after `reconcile`: the few sessions of a user with late events."""
    from sessionize.app.tables.reconcile import reconcile_tables
    from sessionize.app.tables.warehouse import Warehouse
    from sessionize.cli.output import console, print_rows

    say = console(stderr=True)
    few = "SELECT uuid FROM user_sessions GROUP BY 1 HAVING count(*) BETWEEN 2 AND 5"
    most = f"SELECT uuid, count(*) AS n FROM late_events WHERE uuid IN ({few}) GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 1"
    found = Warehouse(home).query(most)
    if not found.num_rows:
        return
    user = found["uuid"][0].as_py()
    sql = f"""
SELECT strftime(make_timestamp(session_start_time_ms * 1000), '%H:%M:%S') AS start,
       round(session_duration_seconds / 60, 1) AS minutes, event_count AS events, end_reason
FROM user_sessions WHERE uuid = '{user}' ORDER BY session_start_time_ms"""
    count = found["n"][0].as_py()
    print_rows(f"{user}, {count} late {'events' if count > 1 else 'event'}", Warehouse(home).query(sql))
    started = time.perf_counter()
    done = reconcile_tables(home, config)
    say.print(
        f"reconcile: {done.late_events:,} late events of {done.users:,} users, {done.replaced:,} sessions replaced by"
        f" {done.added:,}, {time.perf_counter() - started:.1f} s"
    )
    print_rows(f"{user}, late events merged", Warehouse(home).query(sql))


def _what_next(home: Path, pipeline: Path) -> None:
    from sessionize.cli.command_name import command_name
    from sessionize.cli.output import console

    command = command_name()
    say = console(stderr=True)
    for words, remark in (
        (f"run {pipeline}", "run the stream, until Ctrl-C; meanwhile, in another terminal:"),
        (f"produce --events 2000 --start 2026-02-01 -o {home / 'inbox' / 'more.ndjson'}", "add a file"),
        (f'query --home {home} "FROM user_sessions LIMIT 3"', ""),
        (f"rejected --home {home}", "rejected records by reason"),
        (f"explain user-17 --home {home}", ""),
        ("init kafka_stream > kafka.toml", "the same with a Kafka topic; `make kafka` starts a local broker"),
    ):
        if remark:
            say.print(f"# {remark}", style="dim")
        say.print(f"{command} {words}", style="cyan", soft_wrap=True)
