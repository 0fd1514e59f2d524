"""What a lake has of each writer: one small file with its last epoch, replaced with every epoch.

    _epochs/<writer>.last.json       the writer's last epoch, by which plan, and its files
    _epochs/<writer>-<epoch>.json    of the code before: one for each epoch; understood, and removed bit by bit

Whether an epoch is in the lake is decided here alone: its files count when the record is there.
"""

import itertools
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sessionize.durable import atomic_write
from sessionize.errors import StateError
from sessionize.ports import EpochId

EPOCHS_FOLDER = "_epochs"
_REMOVED_MAX = 10_000  # markers of the code before that go with one epoch


class Records:
    """The records of a lake. Errors of all methods: OSError; StateError for a record that cannot be read."""

    def __init__(self, lake: Path) -> None:
        self._folder = lake / EPOCHS_FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)
        self._without_markers: set[str] = set()

    def last(self, writer: str) -> EpochId:
        """The writer's last epoch, number 0 when there is none."""
        path = self._folder / f"{writer}.last.json"
        found = _read(path) if path.exists() else None
        marker = max(self._markers(writer), default=0)
        if marker > (0 if found is None else found.number):
            return _read(self._folder / f"{writer}-{marker}.json")
        return EpochId(writer, 0, "") if found is None else found

    def put(self, epoch: EpochId, **further: Any) -> None:
        """The epoch is there, durably; further: what else to say about it."""
        content = {"writer": epoch.writer, "epoch": epoch.number, "plan": epoch.plan, **further}
        with atomic_write(self._folder / f"{epoch.writer}.last.json") as unfinished:
            unfinished.write_text(json.dumps(content, indent=1) + "\n")
        for number in itertools.islice(self._markers(epoch.writer), _REMOVED_MAX):
            (self._folder / f"{epoch.writer}-{number}.json").unlink(missing_ok=True)

    def _markers(self, writer: str) -> Iterator[int]:
        if writer in self._without_markers:
            return
        # another writer's name may begin with this one's: what is between its end and the suffix has to be a number
        marker = re.compile(rf"{writer}-([0-9]+)\.json")
        found = False
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if match := marker.fullmatch(entry.name):
                    found = True
                    yield int(match[1])
        if not found:
            self._without_markers.add(writer)


def _read(path: Path) -> EpochId:
    try:
        found = json.loads(path.read_bytes())
        return EpochId(str(found["writer"]), int(found["epoch"]), str(found["plan"]))
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(
            "the lake's record of an epoch cannot be read",
            detail=f"{path}: {error!r}",
            hint="put it back from a copy; without it nobody knows which epochs the lake has",
        ) from error
