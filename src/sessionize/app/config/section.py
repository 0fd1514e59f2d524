"""What every section of the pipeline file is made of."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def key(default: Any, doc: str, *, example: object, unit: str | None = None) -> Any:
    """A key of the file: its default, what it means, a value to copy, and the unit of a bare number."""
    extra: dict[str, Any] | None = {"x-unit": unit} if unit else None
    return Field(default, description=doc, examples=[example], json_schema_extra=extra)


class Section(BaseModel):
    """What all sections share: frozen, and no key is taken that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid")
