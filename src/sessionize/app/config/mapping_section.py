"""[input.mapping] and [input.fields]: where the fields are in records of a custom format."""

from typing import Any

from sessionize.app.config import types as kinds
from sessionize.app.config.section import Section, key
from sessionize.formats.paths.language import Join


class MappingSection(Section):
    """Field names of a custom record format, or in place of a dialect's; dots for nested fields."""

    user: kinds.JoinedPaths = key(
        ...,
        "Field with the user; a list: the first that is present and not empty; {join = [...]}: all of them together.",
        example="uuid",
    )
    time: kinds.JoinedPaths = key(
        ..., "Field with the event time; {join = [...]} for a date and a time of day.", example="event_timestamp"
    )
    event_id: kinds.FieldPaths | None = key(
        None, "Field with a unique event id; without it there are no duplicates.", example="event_id"
    )
    event_type: kinds.FieldPaths | None = key(None, "Field with the event type.", example="event_details.event_type")
    page: kinds.FieldPaths | None = key(None, "Field with the page or screen.", example="page_name")
    value: kinds.FieldPaths | None = key(
        None, "Field with an amount; revenue sums it over conversions.", example="amount"
    )
    product: kinds.FieldPaths | None = key(None, "Field with the product.", example="product_id")
    category: kinds.FieldPaths | None = key(None, "Field with the product's category.", example="category")
    time_format: kinds.TimeForm = key(
        "auto",
        "Format of the event time: s, ms, us or ns since 1970 (quoted or not), iso8601, auto (numbers are ms, other "
        "text is ISO 8601), or a strptime pattern such as %d.%m.%Y %H:%M.",
        example="ms",
    )

    def paths(self) -> dict[str, Any]:
        """The fields as Dialect.mapping takes them."""
        return {
            name: Join(value["join"]) if isinstance(value, dict) else value for name, value in self.model_dump().items()
        }
