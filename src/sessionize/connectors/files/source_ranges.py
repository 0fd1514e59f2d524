"""Splits a plain file of lines into ranges of equal size; one process or several give the same batches.

Every range is decoded as if its first line were line 1; the caller adds the number of earlier lines.
"""

from collections.abc import Generator, Iterable
from dataclasses import dataclass

from sessionize.connectors.files.source_paths import InputFile
from sessionize.connectors.files.source_text import TextDecoder, feed
from sessionize.connectors.files.unreadable import file_failure
from sessionize.formats.lines import FileRange
from sessionize.formats.validation import Decoded


@dataclass(frozen=True, slots=True)
class Range:
    """The lines of a file that begin at start <= offset < end."""

    path: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Work:
    """The input of one batch: a range of a large file, or several small files."""

    ranges: tuple[Range, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of input."""
        return sum(r.end - r.start for r in self.ranges)


@dataclass(frozen=True, slots=True)
class Done:
    """The result of one Work. line_count: all lines of its last range."""

    decoded: Decoded
    line_count: int


def divide(files: Iterable[InputFile], *, range_bytes: int) -> list[Work]:
    """Split files larger than range_bytes, and group smaller ones up to that size."""
    work: list[Work] = []
    small: list[Range] = []

    def add_group() -> None:
        if small:
            work.append(Work(tuple(small)))
            small.clear()

    for file in files:
        if file.size_bytes > range_bytes:
            add_group()
            starts = range(0, file.size_bytes, range_bytes)
            work += [Work((Range(file.path, s, min(s + range_bytes, file.size_bytes)),)) for s in starts]
            continue
        if sum(r.end for r in small) + file.size_bytes > range_bytes:
            add_group()
        small.append(Range(file.path, 0, file.size_bytes))
    add_group()
    return work


def decode(work: Work, decoder: TextDecoder) -> Done:
    """Decode one Work. Errors: InputError if a file cannot be read, UnavailableError if the disk fails."""
    line_count = 0
    for part in work.ranges:
        try:
            with open(part.path, "rb", buffering=0) as file:
                stream = FileRange(file, part.start, part.end)
                line_count = _run(feed(stream, decoder, source=part.path, at_start=part.start == 0))
        except OSError as error:
            raise file_failure(f"{part.path}, bytes {part.start:,} to {part.end:,}", error) from error
    return Done(decoder.take(), line_count)


def _run(steps: Generator[tuple[int, int], None, int]) -> int:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return int(end.value)
