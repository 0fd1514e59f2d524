"""How the bytes of files become rows, as plain text from a command line. Loads nothing heavy."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sessionize.errors import ConfigError

if TYPE_CHECKING:
    from sessionize.formats.input_format import InputFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatOptions:
    """How bytes become rows; what is not named is found in the content. columns, null_values: comma-separated."""

    format: str = "auto"
    pattern: str | None = None
    delimiter: str | None = None
    columns: str | None = None
    encoding: str | None = None
    decimal: str | None = None
    null_values: str | None = None
    comment: str | None = None
    page_without_query: bool = False

    def as_format(self) -> "InputFormat":
        """Errors: ConfigError, also where columns are those of sessions."""
        from sessionize.formats.input_format import InputFormat, text_list
        from sessionize.session.columns import SESSION_COLUMNS

        columns = text_list(self.columns)
        if columns and set(columns) <= {*SESSION_COLUMNS, "user"}:
            raise ConfigError(
                "--columns names the columns of a CSV file without a header",
                detail=f"--columns {self.columns}: these are columns of sessions",
                hint="use --session-columns (batch)",
            )
        return InputFormat(
            format=self.format,  # type: ignore[arg-type]  # checked there
            pattern=self.pattern,
            delimiter=self.delimiter,
            columns=columns,
            encoding=self.encoding,
            decimal=self.decimal,
            null_values=text_list(self.null_values),
            comment=self.comment,
            page_query=not self.page_without_query,
        )


DEFAULT_FORMAT = FormatOptions()
