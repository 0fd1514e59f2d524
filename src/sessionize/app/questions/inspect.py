"""`inspect`: what is in these files, and which command reads them."""

import glob
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from sessionize.errors import ConfigError, InputError, SessionizeError

if TYPE_CHECKING:
    from sessionize.analytics.inspection.guess import Inspection
    from sessionize.formats.content.samples import Sample

OUTPUT = "sessions.parquet"
_FILES_MAX = 20
_NAMED_MAX = 5


def inspected(inputs: Sequence[str]) -> "Inspection":
    """Look at the beginning of the first files, and guess. Of several kinds, the one that most files have.

    Errors: InputError for what cannot be read, or has no usable record, user or time.
    """
    from sessionize.analytics.inspection.guess import inspection
    from sessionize.app.table_inputs import table_name
    from sessionize.connectors.files.sampling import samples
    from sessionize.connectors.files.source_paths import input_files

    for text in inputs:
        if table_name(text) is not None:
            raise ConfigError(
                "inspect looks at files", detail=f"{text} is a table", hint="a table names its columns and their types"
            )
    files, skipped = input_files(list(inputs))
    by_kind: dict[tuple[str, tuple[str, ...]], list[Sample]] = {}
    faults: list[SessionizeError] = []
    names = {}
    for file in files[:_FILES_MAX]:
        try:
            found = list(islice(samples(file), _FILES_MAX))
        except InputError as error:
            if len(files) == 1:
                raise
            faults.append(error)
            continue
        for each in found:
            names[each.source] = file.path
            by_kind.setdefault(_kind(each), []).append(each)
    if not by_kind:
        raise (
            faults[0]
            if faults
            else InputError(
                "there is nothing to inspect", detail=", ".join(inputs), hint="name a file that has records"
            )
        )
    filled = {kind: its for kind, its in by_kind.items() if any(each.rows for each in its)} or by_kind
    kinds = sorted(filled.values(), key=lambda its: -len(its))
    notes = [f"not read: {fault.message}: {fault.detail}" for fault in faults]
    if skipped:
        notes.append(f"{len(skipped):,} files are of no known format and are passed over: {_few(skipped)}")
    if len(files) > _FILES_MAX:
        notes.append(f"the first {_FILES_MAX} of {len(files):,} files were looked at")
    for others in kinds[1:]:
        paths = list(dict.fromkeys(names[each.source] for each in others))
        notes.append(
            f"{len(paths):,} files are of another kind ({others[0].format}); inspect them alone: {_few(paths)}"
        )
    named = list(inputs)
    if len(kinds) > 1:
        named = list(dict.fromkeys(names[each.source] for each in kinds[0]))
    return inspection(kinds[0], named, notes, output=_output_beside(named))


def _output_beside(inputs: Sequence[str]) -> str:
    """A place for the sessions that is no part of the input."""
    place = Path(OUTPUT).resolve()
    folders = [Path(path).resolve() for path in inputs if os.path.isdir(path)]
    around = [folder for folder in folders if place.is_relative_to(folder)]
    if around:
        return os.path.join(os.path.relpath(min(around, key=lambda each: len(each.parts)).parent), OUTPUT)
    fits = any(place.match(os.path.abspath(path)) for path in inputs if glob.has_magic(path))
    return os.path.join("..", OUTPUT) if fits else OUTPUT


def _kind(sample: "Sample") -> tuple[str, tuple[str, ...]]:
    """Files of one kind are read by one command."""
    names = sample.names if sample.format not in ("combined", "common", "w3c") else ()
    return sample.format, tuple(sorted(names))


def _few(paths: Sequence[str]) -> str:
    return ", ".join(paths[:_NAMED_MAX]) + (" ..." if len(paths) > _NAMED_MAX else "")
