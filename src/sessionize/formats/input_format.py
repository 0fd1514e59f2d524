"""How the bytes of an input become rows, as one value that every reader passes along.

A field that nobody sets is found in the content (sniffing.py). This module imports nothing heavy, for `--help`.
"""

import codecs
import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from sessionize.errors import ConfigError

FormatName = Literal[
    "auto", "ndjson", "json", "csv", "parquet", "avro", "orc", "combined", "common", "w3c", "regex"
]  # fmt: skip
FORMATS: tuple[str, ...] = get_args(FormatName)
LOGS = frozenset({"combined", "common", "w3c", "regex"})
BINARY = frozenset({"parquet", "avro", "orc"})

_DELIMITER_NAMES = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
_GROUP = re.compile(r"\(\?P?<([^>=!]*)>")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFormat:
    """What is said about the format of an input.

    format: of every file; auto finds it in the content, and in the name. pattern: with format regex, an RE2 pattern
    whose named groups are the columns. delimiter: of CSV, None to find it. columns: the columns of CSV without a
    header. encoding: of text, None for UTF-8 and for UTF-16 with a byte-order mark. decimal: the decimal mark of
    amounts; "," also drops "." between thousands, and "." drops ",". null_values: words that stand for a missing value
    in text formats. comment: lines of CSV that begin with it are skipped. page_query: whether the page of a log keeps
    its query. Errors: ConfigError.
    """

    format: FormatName = "auto"
    pattern: str | None = None
    delimiter: str | None = None
    columns: tuple[str, ...] = ()
    encoding: str | None = None
    decimal: str | None = None
    null_values: tuple[str, ...] = ()
    comment: str | None = None
    page_query: bool = True

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            near = difflib.get_close_matches(self.format, FORMATS, n=1)
            known = f"one of {', '.join(FORMATS)}"
            raise ConfigError(
                "unknown input format",
                detail=f"format {self.format!r}",
                hint=f"did you mean {near[0]!r}? {known}" if near else known,
            )
        if self.pattern is not None and self.format == "auto":
            object.__setattr__(self, "format", "regex")
        _check_pattern(self.format, self.pattern)
        if self.delimiter is not None:
            object.__setattr__(self, "delimiter", _delimiter(self.delimiter))
        _check_columns(self.columns)
        if self.encoding is not None:
            object.__setattr__(self, "encoding", _encoding(self.encoding))
        if self.decimal not in (None, ".", ","):
            raise ConfigError("unknown decimal mark", detail=f"decimal = {self.decimal!r}", hint='"." or ","')
        if self.comment is not None and (len(self.comment) != 1 or not self.comment.isascii()):
            raise ConfigError("a comment begins with one character", detail=f"comment = {self.comment!r}", hint='"#"')

    @property
    def group_names(self) -> tuple[str, ...]:
        """The named groups of the pattern, in order."""
        return tuple(_GROUP.findall(self.pattern or ""))

    @property
    def re2_pattern(self) -> str:
        """The pattern in RE2's spelling of named groups."""
        return _GROUP.sub(r"(?P<\1>", self.pattern or "")

    def words(self) -> dict[str, object]:
        """What differs from the defaults, by name; for a printed plan."""
        return {
            name: value
            for name in self.__dataclass_fields__
            if (value := getattr(self, name)) != self.__dataclass_fields__[name].default
        }


def text_list(text: str | None) -> tuple[str, ...]:
    """The parts of a comma-separated list; blanks around them do not count."""
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text is not None else ()


def _check_pattern(name: str, pattern: str | None) -> None:
    if (pattern is not None) != (name == "regex"):
        raise ConfigError(
            "the format regex and a pattern belong together",
            detail=f"format {name}" + ("" if pattern is None else f" with the pattern {pattern!r}"),
            hint="give both, or neither",
        )
    if pattern is None:
        return
    names = _GROUP.findall(pattern)
    if not names or not all(map(_NAME.fullmatch, names)) or len(set(names)) < len(names):
        raise ConfigError(
            "a pattern needs named groups",
            detail=pattern,
            hint=r"each column is a group with a name of its own, for example (?P<user>\S+) (?P<time>\S+)",
        )


def _delimiter(text: str) -> str:
    delimiter = _DELIMITER_NAMES.get(text.lower(), text)
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0':
        raise ConfigError(
            "a delimiter is one character",
            detail=f"delimiter {text!r}",
            hint='for example ",", ";", "|" or "tab"; other formats are read with a pattern',
        )
    return delimiter


def _check_columns(names: Iterable[str]) -> None:
    names = list(names)
    wrong = [name for name in names if not name.strip() or names.count(name) > 1]
    if wrong:
        raise ConfigError(
            "the columns of a file without a header need names of their own",
            detail=f"column {wrong[0]!r} {'is empty' if not wrong[0].strip() else 'occurs twice'}",
            hint="for example user,ts,page",
        )


def _encoding(name: str) -> str:
    try:
        codec = codecs.lookup(name)
        if not getattr(codec, "_is_text_encoding", True):
            raise LookupError(name)
        codecs.getincrementaldecoder(name)("replace").decode(b"\xffa")  # some cannot go on behind what is invalid
    except (LookupError, ValueError):
        raise ConfigError(
            "unknown encoding", detail=f"encoding {name!r}", hint="for example utf-8, latin-1, cp1252 or utf-16"
        ) from None
    return codec.name


AUTO = InputFormat()
