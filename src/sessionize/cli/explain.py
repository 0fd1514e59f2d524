"""`explain`: a user's sessions, a line each, and on demand the events with the rule behind every boundary."""

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from sessionize.app.format_options import DEFAULT_FORMAT, FormatOptions
from sessionize.app.options import (
    DEFAULT_RECORDS,
    DEFAULT_RULES,
    RecordOptions,
    RuleOptions,
)
from sessionize.cli import options as opt
from sessionize.errors import ConfigError

if TYPE_CHECKING:
    from sessionize.analytics.explain import ExplainedEvent, ExplainedSession, Explanation

_SESSIONS_MAX = 500


def explain(
    who: Annotated[str, typer.Argument(metavar="USER", help="The user, exactly as in the events.")],
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="Read these files instead of the tables; repeatable.")
    ] = None,
    events: Annotated[bool, typer.Option("--events", help="Show the events of every session.")] = False,
    session: Annotated[
        str | None,
        typer.Option("--session", help="Show the events of one session, by its number in the list or its id."),
    ] = None,
    pipeline: Annotated[
        str | None,
        typer.Option(help="Preset or file of the pipeline that wrote the sessions; sets record format and tables."),
    ] = None,
    records: Annotated[RecordOptions, opt.RECORDS] = DEFAULT_RECORDS,
    input_format: Annotated[FormatOptions, opt.FORMAT] = DEFAULT_FORMAT,
    rules: Annotated[RuleOptions, opt.RULES] = DEFAULT_RULES,
    home: opt.HomeOrNone = None,
    database: opt.DatabaseOrNone = None,
    limit: Annotated[
        int, typer.Option(min=2, help="Events to print per session; the rest is summarised. --json prints all.")
    ] = 60,
    as_json: opt.Json = False,
) -> None:
    """Explain a user's sessions: when, how long, why each began and ended, and whether the table has it.

    Late events are included. Sessions of the tables are explained by the rules that made them. With --input, the events
    come from files, and the rules from --pipeline or the defaults. A rule option (such as --gap) replaces one of these
    rules.
    """
    from sessionize.app.tables.explain import explain_user
    from sessionize.cli import output as out

    found, as_made = explain_user(
        who,
        pipeline,
        home,
        database,
        inputs=inputs,
        records=records,
        input_format=input_format,
        rules=rules,
        warn=out.print_warning,
    )
    if as_json:
        out.print_json(found.as_dict())
        return
    chosen = _chosen(found, session)
    print_sessions_of(found)
    for number, each in enumerate(found.sessions, 1):
        if events or each is chosen:
            print_events_of(found, each, number, limit)
    if as_made and any(each.stored in ("no", "otherwise") for each in found.sessions):
        waits = "missing from the table: late events, until `sessionize reconcile`; open sessions, until they end"
        out.console(stderr=True).print(waits, highlight=False)
    if found.sessions and not events and chosen is None:
        out.console(stderr=True).print("to show events: --events for all sessions, --session 1 for the first")


def _chosen(found: "Explanation", session: str | None) -> "ExplainedSession | None":
    """The session that --session names. Errors: ConfigError for none."""
    if session is None:
        return None
    by_id = [each for each in found.sessions if each.id == session]
    if by_id:
        return by_id[0]
    if session.isascii() and session.isdigit() and 1 <= int(session) <= len(found.sessions):
        return found.sessions[int(session) - 1]
    raise ConfigError(
        "this user has no such session",
        detail=f"--session {session}",
        hint=f"a number from 1 to {len(found.sessions):,}, or an id as in the table"
        if found.sessions
        else "the user has no sessions with these rules",
    )


def print_sessions_of(found: "Explanation") -> None:
    """The sessions, a line each, however wide the terminal is."""
    from sessionize.cli import output as out

    counts = found.counts
    words = (("late", "late"), ("duplicate", "duplicates"), ("excluded", "excluded"))
    apart = ", ".join(f"{counts[name]:,} of them {word}" for name, word in words if counts[name])
    counted = f"{counts['events']:,} events" + (f" ({apart})" if apart else "")
    made = "1 session" if len(found.sessions) == 1 else f"{len(found.sessions):,} sessions"
    sys.stdout.write(f"{out.shown(found.user)}: {counted}, {made}\n")
    sys.stdout.write(f"{found.policy.describe()}; times are UTC\n\n")
    first = max(0, len(found.sessions) - _SESSIONS_MAX)
    rows = [_line(number, each) for number, each in enumerate(found.sessions, 1) if number > first]
    if rows:
        head = ("#", "start", "end", "lasts", "events", "pages", "began", "ended", "")
        _print_within(head, rows, right=(0, 3, 4, 5))
    if first:
        note = f"the newest {_SESSIONS_MAX:,} of {len(found.sessions):,} sessions are shown; --json prints them all"
        out.console(stderr=True).print(note)
    for row in found.only_in_table:
        start = out.utc_text(row["session_start_time_ms"])
        sys.stdout.write(
            f"only in the table: {out.shown(row['session_id'])}, {row['event_count']:,} events from {start}"
            f"{_often(row['times_stored'], ', stored {}')}\n"
        )
    if any((each.times_stored or 0) > 1 for each in found.sessions):
        note = "stored more than once: the same events were loaded again (see table `loads`)"
        out.console(stderr=True).print(note, highlight=False)


def _line(number: int, session: "ExplainedSession") -> tuple[str, ...]:
    from sessionize.cli import output as out
    from sessionize.session.durations import format_duration

    row = session.row
    start, end = (out.utc_text(row[f"session_{name}_time_ms"]) for name in ("start", "end"))
    same_day = start[:10] == end[:10]
    pages = row.get("pages_visited")
    return (
        f"{number:,}",
        start,
        end[11:] if same_day else end,
        format_duration((row["session_end_time_ms"] - row["session_start_time_ms"]) // 1000 * 1000),
        f"{row['event_count']:,}",
        "" if pages is None else f"{len(pages):,}",
        out.shown(row["start_reason"]),
        out.shown(row["end_reason"]),
        _note(session),
    )


def _note(session: "ExplainedSession") -> str:
    """What the table has of a session, where that is worth a word."""
    short = "too short to be written" if session.short else ""
    return ", ".join(
        filter(None, (short, _difference(session), _often(session.times_stored, "stored {} in the table")))
    )


def _often(times: int | None, text: str) -> str:
    """The text with the number of times, where it is more than one."""
    if times is None or times < 2:
        return ""
    return text.format("twice" if times == 2 else f"{times:,} times")


def _difference(session: "ExplainedSession") -> str:
    from sessionize.cli import output as out

    there = session.in_table
    if session.stored == "no":
        if session.short:
            return ""
        return "not in the table"
    if there is None:
        return ""
    revision = there.get("revision") or 0
    if session.stored == "otherwise":
        return f"in the table: {there['event_count']:,} events until {out.utc_text(there['session_end_time_ms'])}"
    return f"revision {revision:,}" if revision else ""


def _print_within(head: Sequence[str], rows: list[tuple[str, ...]], *, right: Sequence[int]) -> None:
    """A table of which every row fits into the terminal: its last columns go into a second line where they have to.

    What is not read on a terminal has a line for each row, however long.
    """
    import textwrap

    width = _terminal_width()
    columns = len(head)
    longest = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    while columns > 1 and sum(longest[:columns]) + columns - 1 > width:
        columns -= 1
    indent = " " * (longest[0] + 1)
    lines: list[Sequence[str] | str] = [head[:columns]]
    for row in rows:
        lines.append(row[:columns])
        apart = zip(head[columns:], row[columns:], strict=True)
        text = ", ".join(f"{name} {cell}".strip() for name, cell in apart if cell)
        lines += textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    _print_aligned(lines, right=right)


def _terminal_width() -> int:
    """The columns of the terminal; where stdout is none, those of COLUMNS, or as many as are wanted."""
    import os
    import shutil

    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit():
        return max(shutil.get_terminal_size().columns, 20)
    return 1_000_000


def _print_aligned(rows: Sequence[Sequence[str] | str], *, right: Sequence[int]) -> None:
    """Rows of cells, one below the other; a row that is a text stands between them as it is."""
    cells = [row for row in rows if not isinstance(row, str)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in rows:
        if isinstance(row, str):
            sys.stdout.write(f"{row}\n")
            continue
        padded = (
            f"{c:>{w}}" if at in right else f"{c:<{w}}" for at, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        sys.stdout.write(" ".join(padded).rstrip() + "\n")


def print_events_of(found: "Explanation", session: "ExplainedSession", number: int, limit: int) -> None:
    """A session's events with the silence before each, between the rules behind its two ends."""
    from sessionize.cli import output as out

    sys.stdout.write(f"\n{number:,}  {out.shown(session.id)}\n    began  {out.shown(session.began)}\n")
    rows = list(_event_rows(found.events_of(session), limit))
    _print_aligned(rows, right=(0,))
    sys.stdout.write(f"    ended  {out.shown(session.ended)}\n")


def _event_rows(events: "list[ExplainedEvent]", limit: int) -> "Iterator[tuple[str, ...] | str]":
    """A line for each event; of a long session the first ones and the last ones, with a word on those between."""
    from sessionize.analytics.explain import instant
    from sessionize.cli import output as out
    from sessionize.session.durations import format_duration

    def row(event: "ExplainedEvent") -> tuple[str, ...]:
        silence = "" if event.silence_ms is None else f"+{format_duration(event.silence_ms)}"
        notes = [word for word in (event.note, "late" if event.late else None) if word]
        kind, page = (out.shown(value) for value in (event.event_type, event.page))
        return (f"{silence:>14}", instant(event.time_ms), kind, page, ", ".join(notes))

    if len(events) <= limit:
        yield from map(row, events)
        return
    ahead = (limit + 1) // 2
    behind = limit - ahead
    between = events[ahead : len(events) - behind]
    yield from map(row, events[:ahead])
    longest = max(event.silence_ms or 0 for event in between)
    silence = format_duration(longest)
    yield f"             … {len(between):,} more events, the longest silence {silence}; --limit N shows more"
    yield from map(row, events[len(events) - behind :])
