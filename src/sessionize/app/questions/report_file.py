"""The file that a question's answer is written to: a page or JSON, by its ending; whole, or not at all."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sessionize.app.output_paths import check_local, check_output_places, write_text
from sessionize.connectors.files.source_paths import InputFile
from sessionize.errors import ConfigError

_PAGES, _JSON = (".html", ".htm"), (".json",)


@dataclass(frozen=True, slots=True)
class ReportFile:
    """A place that was looked at before any work was done for it."""

    path: Path

    @classmethod
    def at(cls, path: Path, inputs: Iterable[str] = (), files: Iterable[InputFile] = ()) -> "ReportFile":
        """Errors: ConfigError for another ending, for an address, and for a place among the input."""
        check_local(path, name="-o")
        if path.suffix.lower() not in (*_PAGES, *_JSON):
            raise ConfigError("a report is a page or JSON", detail=str(path), hint="end the name in .html or .json")
        check_output_places([name for name in inputs if name != "-"], files, [path])
        return cls(path)

    def write(self, value: Callable[[], Any], page: Callable[[], str]) -> None:
        """Write the answer; an existing file is replaced. Errors: OutputError, UnavailableError."""
        if self.path.suffix.lower() in _PAGES:
            text = page()
        else:
            text = json.dumps(value(), ensure_ascii=False, indent=2) + "\n"
        write_text(self.path, text, failed="the report cannot be written")
