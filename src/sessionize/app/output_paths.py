"""Where a run may write files: never over what it reads, nor where the next run would read it as input.

Also how a text file is written: whole, or not at all.
"""

import os
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from sessionize.connectors.files.source_paths import InputFile
from sessionize.connectors.local_paths import check_local
from sessionize.durable import atomic_write, disk_errors
from sessionize.errors import ConfigError

__all__ = ["check_local", "check_output_places", "write_text"]


def check_output_places(inputs: Iterable[str], files: Iterable[InputFile], outputs: Sequence[Path]) -> None:
    """Check this before an output is opened. inputs: as they were typed. files: what they stand for now.

    An output that is a link to a file of the input, symbolic or hard, is that file. Errors: ConfigError for an output
    that is a file of the input, lies in a folder of it or fits a pattern of it, and for two outputs that are one file.
    """
    places = [output.resolve() for output in outputs]
    if len(set(places)) < len(places):
        raise ConfigError("sessions and rejected records can't share a file", detail=str(outputs[-1]))
    some = any(output.exists() for output in places)  # otherwise no file has to be asked which one it is
    read = {file: each.path for each in files if some and (file := _file(Path(each.path))) is not None}
    for output in places:
        name = next((name for name in inputs if _has(Path(name).resolve(), output)), None)
        if name is None and (same := _file(output)) is not None:
            name = read.get(same)
        if name is not None:
            raise ConfigError(
                "the output would overwrite an input",
                detail=f"input {name}, output {output}",
                hint="write it to another place",
            )


def write_text(path: Path, text: str, *, failed: str) -> None:
    """Write a text file, whole or not at all. failed: what the error says. Errors: OutputError, UnavailableError."""
    hint = "choose a folder that exists and can be written to"
    with disk_errors(failed, path, hint=hint), atomic_write(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="replace")


def check_address_is_no_input(output: str, inputs: Iterable[str], files: Iterable[InputFile]) -> None:
    """As check_output_places, for an output that is an address. Errors: ConfigError."""
    names = [*inputs, *(file.path for file in files)]
    same = [name for name in names if "://" in name and f"{output}/".startswith(f"{name.rstrip('/')}/")]
    if "://" in output and same:
        raise ConfigError(
            "the output would overwrite an input",
            detail=f"input {same[0]}, output {output}",
            hint="write it to another place",
        )


def _has(place: Path, output: Path) -> bool:
    """Whether an input (a file, a folder or a pattern) has this path."""
    return place == output or place in output.parents or _fits(place.parts, output.parts)


def _fits(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(_fits(pattern[1:], path[n:]) for n in range(len(path) + 1))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and _fits(pattern[1:], path[1:])


def _file(path: Path) -> tuple[int, int] | None:
    """Which file a path leads to, whatever its name; None for what is not there or is no regular file."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return (stat.st_dev, stat.st_ino) if path.is_file() else None
