"""`inspect`: what a file is, and the command that reads it."""

from typing import TYPE_CHECKING, Annotated

import typer

from sessionize.cli import options as opt

if TYPE_CHECKING:
    from sessionize.analytics.inspection.guess import Inspection


def inspect(
    inputs: Annotated[
        list[str], typer.Argument(metavar="FILES", help="Files, folders, patterns, pipes, as for batch; -: stdin.")
    ],
    as_json: opt.Json = False,
) -> None:
    """Guess the format and the columns of a file, and print the command that reads it.

    Looks at a bounded part of the input: format, compression, encoding, header, how times and amounts are written, and
    which fields are the user, the time, the page. Says why, how sure it is, and what looks odd.
    """
    from sessionize.app.questions.inspect import inspected
    from sessionize.cli import output as out

    found = inspected(inputs)
    if as_json:
        out.print_json(found.as_dict())
        return
    print_inspection(found)


def print_inspection(found: "Inspection") -> None:
    """The answer on a terminal; the command is one line that can be pasted."""
    import sys

    from sessionize.cli import output as out

    say = out.console()
    say.print(out.escaped(described(found)))
    rows = [
        (each.name, each.kind, f"{each.share:.0%}", each.role or "", each.sure, " | ".join(each.examples))
        for each in found.columns
    ]
    out.print_table("", ("field", "type", "filled", "is", "how sure", "examples"), rows, right=(2,))
    for reason in found.reasons:
        out.print_item(reason)
    sys.stdout.flush()
    if found.alternatives:
        say.print("\nalso possible, the most plausible first:")
        for each in found.alternatives:
            out.print_item(each)
    for text in found.warnings:
        out.print_warning(text)
    say.print("\n[bold]run[/]")
    sys.stdout.write(f"{found.command}\n")
    say.print("\n[bold]or in a pipeline file[/]")
    sys.stdout.write(f"{found.toml}\n")


def described(found: "Inspection") -> str:
    """The format in one line."""
    parts = [found.format, found.compression or "", found.encoding or ""]
    if found.delimiter is not None:
        parts.append(f"delimiter {'tab' if found.delimiter == chr(9) else found.delimiter}")
    if found.header is not None:
        parts.append("with a header" if found.header else "without a header")
    if found.dialect is not None:
        parts.append(f"dialect {found.dialect}")
    parts.append(f"times: {found.time_format}")
    looked = f"{found.records:,} records"
    if not found.whole and found.read_bytes:
        looked += f", at most the first {found.read_bytes:,} bytes"
    return f"{', '.join(part for part in parts if part)} ({'all' if found.whole else 'looked at'} {looked})"
