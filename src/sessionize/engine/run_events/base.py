"""What every event has: a name, a level, and one set of fields.

Keys are snake_case and end in their unit. Two keys carry sentences: `then` says what the run does next by itself,
`hint` what a person can do.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run. name: of the log line. default_level: where the class alone decides."""

    name: ClassVar[str]
    default_level: ClassVar[Level]

    @property
    def level(self) -> Level:
        """How serious this event is."""
        return self.default_level

    def fields(self) -> dict[str, Any]:
        """What the log line has: text, numbers, None, and lists and dicts of these; always the same keys."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
