"""What people see: tables, numbers and errors on a terminal, JSON where a program reads."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from sessionize.errors import SessionizeError

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console

    from sessionize.engine.accounting import Accounting
    from sessionize.formats.dialects import Dialect

ROWS_SHOWN_MAX = 200
_MUCH = 10  # of so many records one is rejected: then examples are shown
_FOLDED_FROM = 16  # a longer word may be folded within its column, a shorter one not


def console(*, stderr: bool = False) -> "Console":
    """A terminal to write on."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def print_error(error: SessionizeError) -> None:
    """What failed, where, and what to do, on stderr."""
    color = sys.stderr.isatty()
    red, dim, off = ("\033[31m", "\033[2m", "\033[0m") if color else ("", "", "")
    sys.stderr.write(f"{red}error:{off} {_lines(error.message)}\n")
    if error.detail:
        sys.stderr.write(f"  {_lines(error.detail)}\n")
    for note in getattr(error, "__notes__", ()):
        sys.stderr.write(f"  {_lines(note)}\n")
    if error.hint:
        sys.stderr.write(f"{dim}  hint: {_lines(error.hint)}{off}\n")


def print_warning(text: str) -> None:
    """What somebody should know and that stops nothing, on stderr."""
    sys.stderr.write(f"warning: {_lines(text)}\n")


def _lines(text: str) -> str:
    """Text that may quote data: line by line without control characters."""
    return "\n".join(shown(line) for line in text.splitlines())


def print_json(value: Any) -> None:
    """One JSON value, one line, on stdout; what is no number (NaN, infinity) is null."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError:
        # once more through JSON, where such floats have names that only Python reads
        finite = json.loads(json.dumps(value, default=_plain), parse_constant=lambda name: None)
        text = json.dumps(finite, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(text + "\n")


def _plain(value: Any) -> Any:
    """What JSON has for a value that is none of its own: dates and times are ISO 8601, all else is text."""
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Sequence[int] = (), lines: bool = True
) -> None:
    """A table on stdout; one field a line where not even its words fit into the terminal.

    right: positions of columns to align right. lines: False for a narrow one, without any.
    """
    from rich.table import Table
    from rich.text import Text

    cells = [[shown(value) for value in row] for row in rows]
    words = [max((len(w) for t in (name, *texts) for w in t.split()), default=0)
             for name, *texts in zip(columns, *cells, strict=True)]  # fmt: skip
    between = 3 * len(words) + 1 if lines else 2 * (len(words) - 1)
    if cells and sum(min(longest, _FOLDED_FROM) for longest in words) + between > console().width:
        print_records(title, columns, list(zip(*cells, strict=True)))
        return
    table = Table(title=title or None, title_justify="left", header_style="bold")
    if not lines:
        table.box, table.padding, table.pad_edge = None, (0, 2, 0, 0), False
    for at, name in enumerate(columns):
        side: Literal["left", "right"] = "right" if at in right else "left"
        table.add_column(Text(shown(name)), justify=side, overflow="fold", no_wrap=not lines and not at)
    for row in cells:
        table.add_row(*map(Text, row))
    console().print(table)


def print_rows(title: str, rows: "pa.Table", *, limit: int = ROWS_SHOWN_MAX) -> None:
    """An Arrow table on stdout; numbers to the right; what is left out is said."""
    import pyarrow as pa

    if not rows.num_rows:
        print_no_rows(title, rows.column_names)
        return
    is_number = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    numeric = [i for i, f in enumerate(rows.schema) if any(each(f.type) for each in is_number)]
    columns = [column.to_pylist() for column in rows.slice(0, limit).columns]
    maps = [i for i, f in enumerate(rows.schema) if pa.types.is_map(f.type)]
    for at in maps:
        columns[at] = [None if v is None else dict(v) for v in columns[at]]
    cells = [[shown(value) for value in column] for column in columns]
    widths = [max(map(len, [name, *column])) for name, column in zip(rows.column_names, cells, strict=True)]
    if sum(widths) + 3 * len(widths) + 1 > console().width:
        print_records(title, rows.column_names, cells)
    else:
        print_table(title, rows.column_names, zip(*cells, strict=True), right=numeric)
    if rows.num_rows > limit:
        console(stderr=True).print(f"{limit} of {rows.num_rows} rows shown; --json prints all")


def print_no_rows(title: str, names: Sequence[str]) -> None:
    """That there are none, and which columns they would have."""
    say = console()
    if title:
        say.print(f"[italic]{escaped(title)}[/]")
    say.print(f"no rows; columns: {', '.join(map(escaped, names))}")


def print_records(title: str, names: Sequence[str], columns: Sequence[Sequence[str]]) -> None:
    """Rows that are too wide for the terminal: one field a line."""
    from rich.table import Table
    from rich.text import Text

    if title:
        console().print(f"[italic]{escaped(title)}[/]")
    for number, row in enumerate(zip(*columns, strict=True), 1):
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold")
        grid.add_column(overflow="fold")
        for name, cell in zip(names, row, strict=True):
            grid.add_row(Text(shown(name)), Text(cell))
        console().rule(f"row {number}", align="left", style="dim")
        console().print(grid)


def escaped(value: Any) -> str:
    """A value inside text with markup, where it must not act as markup itself."""
    from rich.markup import escape

    return escape(shown(value))


def shown(value: Any) -> str:
    """A value as one would read it in a table; control characters can't reach the terminal."""
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(shown(v) for v in value)
    if isinstance(value, dict):
        return ", ".join(f"{shown(k)}: {shown(v)}" for k, v in value.items())
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".") if value == value else "NaN"
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else "�" for c in text)


def print_accounting(
    accounting: "Accounting",
    seconds: float | None,
    output: str,
    *,
    rules: str | None = None,
    open_sessions: int = 0,
    watermark_ms: int | None = None,
) -> None:
    """The accounting of a run, on stderr: what became of every record.

    seconds: None where they are of several runs. rules: those of the sessions, in words. watermark_ms: of a stream that
    may go on.
    """
    speed = "since the first run" if seconds is None else f"{accounting.consumed / max(seconds, 1e-9):,.0f} per second"
    rows = [("records read", f"{accounting.consumed:,}", speed), ("  in sessions", f"{accounting.settled:,}", "")]
    if accounting.pending:
        rows.append(("  pending", f"{accounting.pending:,}", "ahead of the watermark; resumed by the next run"))
    much = "most records: wrong clocks, or rules.lateness too short?" if accounting.mostly_late else ""
    parts = (
        ("late", accounting.late, much),
        ("duplicate", accounting.duplicate, ""),
        ("excluded", accounting.excluded, ""),
    )
    rows += [(f"  {name}", f"{count:,}", remark) for name, count, remark in parts if count]
    if accounting.rejected:
        reasons = sorted(accounting.rejected_by_reason.items(), key=lambda item: -item[1])
        rows.append(("  rejected", f"{accounting.rejected:,}", ", ".join(f"{r} {n:,}" for r, n in reasons)))
    if accounting.nulled:
        count = sum(accounting.nulled.values())
        remark = ", ".join(f"{name} {n:,}" for name, n in sorted(accounting.nulled.items(), key=lambda item: -item[1]))
        rows.append(("values left out", f"{count:,}", f"of a wrong type, now null: {remark}"))
    rows.append(("sessions", f"{accounting.sessions:,}", f"→ {shown(output)}"))
    if accounting.short_sessions:
        rows.append(("  too short", f"{accounting.short_sessions:,}", "not written; their events count"))
    if rules is not None:
        rows.append(("", "", shown(rules)))
    if open_sessions:
        rows.append(("  still open", f"{open_sessions:,}", "resumed by the next run"))
    if watermark_ms is not None:
        rows.append(("final up to", utc_text(watermark_ms), "in the next run, older events are late"))
    _print_aligned(rows)


def warn_of_absent_fields(accounting: "Accounting", dialect: "Dialect") -> None:
    """Say that most of the records have no field of the name that the user or the time has in the mapping."""
    absent = accounting.absent_fields(dialect)
    if absent is not None:
        print_warning(f"most of the records have {absent.detail}")
        sys.stderr.write(f"  hint: {_lines(absent.hint)}\n")


def print_rejected(accounting: "Accounting", dialect: "Dialect") -> None:
    """How many records had no part in an answer, on stderr."""
    if accounting.rejected:
        print_warning(f"{accounting.rejected:,} of {accounting.consumed:,} records were rejected")
    warn_of_absent_fields(accounting, dialect)


def print_report_place(path: object) -> None:
    """Where a report was written, on stderr."""
    sys.stderr.write(f"report: {shown(path)}\n")


def print_item(text: str, mark: str = "- ") -> None:
    """A line of a list on stdout, broken at the terminal's width."""
    import textwrap

    width = max(20, console().width)
    indent = " " * len(mark)
    lines = textwrap.wrap(shown(text), width, initial_indent=mark, subsequent_indent=indent, break_on_hyphens=False)
    sys.stdout.writelines(f"{line}\n" for line in lines)


def warn_of_input(
    accounting: "Accounting",
    dialect: "Dialect",
    conversion_events: Iterable[str],
    inputs: Iterable[str],
    *,
    repeats_ids: bool,
) -> None:
    """Say what is odd about the input: fields that no record has, times, users, values; examples of much rejected."""
    warn_of_absent_fields(accounting, dialect)
    found = accounting.findings
    for text in found.texts(conversion_events, repeats_ids=repeats_ids):
        print_warning(text)
    if dialect.paths("value") and not dialect.paths("event_type"):
        print_warning(
            "an amount is mapped, but no event type, so no session has revenue: revenue adds up the amounts of "
            "conversions; map it with --event-type (batch, label), or input.mapping.event_type"
        )
    empty = found.empty_columns(dialect)
    if empty:
        from sessionize.app.input_names import names_of_fields
        from sessionize.formats.absent_fields import near_name

        names = names_of_fields(inputs)
        for column in empty:
            near = near_name(dialect.paths(column), names) if names else None
            hint = "" if near is None or near in dialect.paths(column) else f"; did you mean {near!r}?"
            print_warning(f"no record has a value for {column} ({dialect.described(column)}){hint}")
    if accounting.rejected * _MUCH >= accounting.consumed and found.examples:
        for reason, example in found.examples.items():
            sys.stderr.write(f"  {reason}: {_lines(example)}\n")


def _print_aligned(rows: Sequence[tuple[str, str, str]]) -> None:
    """Names, numbers and remarks on stderr; remarks wrap within the terminal. Without rich: every run ends with it."""
    import os
    import textwrap

    name_width, number_width = (max(len(row[at]) for row in rows) for at in (0, 1))
    room = 1_000
    if sys.stderr.isatty():
        columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
        room = max(20, columns - name_width - number_width - 4)
    lines = []
    for name, number, remark in rows:
        first, *rest = textwrap.wrap(remark, room) or [""]
        lines.append(f"{name:<{name_width}}  {number:>{number_width}}  {first}".rstrip())
        lines += [" " * (name_width + number_width + 4) + more for more in rest]
    sys.stderr.write("\n".join(lines) + "\n")


def utc_text(time_ms: int) -> str:
    """A time for people, in UTC."""
    from datetime import UTC, datetime

    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError):
        return f"{time_ms} ms"
