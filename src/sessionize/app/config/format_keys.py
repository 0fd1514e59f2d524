"""The keys of [input] that say how the bytes of files become rows."""

from typing import Literal, Self

from pydantic import model_validator

from sessionize.app.config import types as kinds
from sessionize.app.config.section import Section, key
from sessionize.app.config.types import refuse
from sessionize.errors import ConfigError
from sessionize.formats.input_format import FormatName, InputFormat


class FormatKeys(Section):
    """Part of [input]; what is not set is found in the content."""

    format: FormatName = key(
        "auto",
        "Format of the files; auto finds it in their content. Only with kind = files or directory, like the next keys.",
        example="csv",
    )
    pattern: kinds.Text | None = key(
        None,
        "Regular expression (RE2) of a log line; its named groups are the columns.",
        example="(?P<ip>[^ ]+) (?P<time>[^ ]+)",
    )
    delimiter: kinds.Delimiter | None = key(None, "Delimiter of CSV; default: found.", example=";")
    columns: kinds.Texts = key((), "Columns of CSV without a header.", example=["user", "ts", "page"])
    encoding: kinds.Text | None = key(
        None, "Encoding of text; default: UTF-8, or UTF-16 with a byte-order mark.", example="latin-1"
    )
    decimal: Literal[".", ","] | None = key(
        None, "Decimal mark of amounts in CSV; the other one then separates thousands.", example=","
    )
    null_values: kinds.Texts = key(
        (), "Words for a missing value in CSV and logs, beside the empty text.", example=["NULL", "nan"]
    )
    comment: kinds.Text | None = key(None, "Skip lines of CSV that begin with this character.", example="#")
    page_query: kinds.Switch = key(True, "Whether the pages of a log keep their query.", example=False)

    @model_validator(mode="after")
    def _one_format(self) -> Self:
        try:
            self.as_format()
        except ConfigError as error:
            near = next((name for name in ("pattern", "delimiter", "encoding") if name in error.message), "columns")
            refuse(f"{error.message}: {error.detail}", error.hint or "", key=f"input.{near}")
        return self

    def as_format(self) -> InputFormat:
        """How bytes become rows."""
        names = InputFormat.__dataclass_fields__
        return InputFormat(**{name: getattr(self, name) for name in names})
