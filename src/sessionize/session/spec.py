"""The record of how a table's sessions are made: the pipeline, its rules, and the user column.

The record is stored with the tables (docs/adr/0013), so that every command uses the rules of the existing rows. Two
records differ by keys of the pipeline file, with the values there and here; a state is compared in the same terms.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sessionize.errors import ConfigError
from sessionize.session.columns import SessionColumns
from sessionize.session.durations import format_duration
from sessionize.session.own_columns import OwnColumns
from sessionize.session.policy import Policy
from sessionize.session.rules import Boundary, Rules

VERSION = 1
_Value = tuple[object, str]  # the compared value, and its text for people
_LATER = ("split_on_change", "split_ignore")  # which a record of before lacks
_LISTS = ("start_events", "end_events", "excluded_events", "conversion_events", *_LATER)


@dataclass(frozen=True, slots=True)
class Difference:
    """A key with different values in two records, both as text for people."""

    key: str
    there: str
    here: str

    def __str__(self) -> str:
        return f"{self.key}: {self.there} there, {self.here} here"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSpec:
    """How sessions are made.

    pipeline: its name. user_column: the name of the user column in every table. The lists are sorted. boundary: the
    custom function as "module:function". dialect, columns: how records were read and the session columns, for computing
    sessions again; runs may differ in them. own: session columns of one's own: runs may have others, but a name means
    the same in all of them.
    """

    pipeline: str
    user_column: str
    policy: Policy
    start_events: tuple[str, ...] = ()
    end_events: tuple[str, ...] = ()
    excluded_events: tuple[str, ...] = ()
    conversion_events: tuple[str, ...] = ()
    split_on_change: tuple[str, ...] = ()
    split_ignore: tuple[str, ...] = ()
    boundary: str | None = None
    dialect: str = ""
    columns: tuple[str, ...] = ()
    own: OwnColumns = field(default_factory=OwnColumns)

    @classmethod
    def of(
        cls,
        policy: Policy,
        rules: Rules,
        *,
        pipeline: str,
        user_column: str,
        boundary: str | None = None,
        dialect: str = "",
        columns: Iterable[str] = (),
    ) -> "SessionSpec":
        """The record of a run. boundary: where rules.boundary comes from."""
        return cls(
            pipeline=pipeline,
            user_column=user_column,
            policy=policy,
            boundary=boundary,
            dialect=dialect,
            columns=tuple(columns),
            **{name: tuple(sorted(getattr(rules, name))) for name in _LISTS},  # type: ignore[arg-type]  # of texts
        )

    def rules(self, boundary: Boundary | None = None) -> Rules:
        """The rules. boundary: the function, which the record only names."""
        lists = {name: frozenset(getattr(self, name)) for name in _LISTS}
        return Rules(boundary=boundary, **lists)  # type: ignore[arg-type]  # one of the names is not a list's

    def differences(self, here: "SessionSpec") -> list[Difference]:
        """The differences to another record, the pipeline's name first; dialect and columns do not count, but for own
        columns that both have.
        """
        own = self.own.differences(here.own)
        return [*_differing(self._compared(), here._compared()), *(Difference(*each) for each in own)]

    def with_columns_of(self, here: "SessionSpec") -> "SessionSpec":
        """This record with the columns of another one beside its own."""
        added = tuple(name for name in here.columns if name not in self.columns)
        return replace(self, columns=(*self.columns, *added), own=self.own.joined(here.own))

    def describe(self) -> str:
        """One line for people: the policy and the rules."""
        rules = (
            f"{key.removeprefix('rules.')} {text}"
            for key, (value, text) in _rule_values(self._named()).items()
            if value
        )
        return "; ".join([self.policy.describe(), *rules])

    def to_json(self) -> str:
        """The record as JSON, with its format version."""
        lists = {name: list(getattr(self, name)) for name in _LISTS}
        return json.dumps(
            {
                "version": VERSION,
                "pipeline": self.pipeline,
                "user_column": self.user_column,
                "rules": {
                    **self.policy.record(),
                    **{name: types for name, types in lists.items() if types or name not in _LATER},
                    "boundary": self.boundary,
                },
                "dialect": self.dialect,
                "columns": list(self.columns),
                **({"own_columns": self.own.to_json()} if self.own else {}),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> "SessionSpec":
        """Parse the result of to_json. Errors: ValueError for anything else, also for an unknown version."""
        try:
            record = json.loads(text)
            if record["version"] != VERSION:
                raise ValueError(f"version {record['version']}, this program reads {VERSION}")
            rules = dict(record["rules"])
            lists = {name: tuple(str(each) for each in rules.pop(name, ())) for name in _LATER}
            lists |= {name: tuple(str(each) for each in rules.pop(name)) for name in _LISTS if name not in _LATER}
            boundary = rules.pop("boundary")
            return cls(
                pipeline=str(record["pipeline"]),
                user_column=str(record["user_column"]),
                policy=Policy(**rules),
                boundary=None if boundary is None else str(boundary),
                dialect=str(record["dialect"]),
                columns=tuple(str(each) for each in record["columns"]),
                own=SessionColumns.stored(record["columns"], record.get("own_columns", {})).own,
                **lists,
            )
        except (KeyError, TypeError, AttributeError, ConfigError) as error:
            raise ValueError(f"not such a record: {type(error).__name__}: {error}") from error

    def _compared(self) -> dict[str, "_Value"]:
        named = {"name": (self.pipeline, self.pipeline), "user column": (self.user_column, self.user_column)}
        return {**named, **_values(self.policy, self._named())}

    def _named(self) -> dict[str, Any]:
        return {**{name: getattr(self, name) for name in _LISTS}, "boundary": self.boundary or ""}


def kind_of_difference(differences: Iterable[Difference]) -> str:
    """The kind of the differences for an error message: "another policy", "other rules" or "other session columns"."""
    keys = [each.key for each in differences if not each.key.startswith("session_columns.")]
    others = {"name", "user column", *(f"rules.{name}" for name in (*_LISTS, "boundary"))}
    if not keys:
        return "other session columns"
    return "another policy" if any(key not in others for key in keys) else "other rules"


def describe_differences(differences: Iterable[Difference]) -> str:
    """All differences in one line, for an error or a warning."""
    return "; ".join(str(each) for each in differences)


def policy_differences(
    policy: Mapping[str, Any], rules: Mapping[str, Any], policy_here: Policy, rules_here: Mapping[str, Any]
) -> list[Difference]:
    """The differences of a stored policy (its fields) and rules (lists, and the boundary's name) to these."""
    return _differing(_values(Policy(**policy), rules), _values(policy_here, rules_here))


def _differing(there: Mapping[str, _Value], here: Mapping[str, _Value]) -> list[Difference]:
    return [Difference(key, text, here[key][1]) for key, (value, text) in there.items() if value != here[key][0]]


def _values(policy: Policy, rules: Mapping[str, Any]) -> dict[str, _Value]:
    limit, most, by = policy.max_duration_ms, policy.max_events, policy.gap_by
    return {
        "rules.gap": (policy.gap_ms, format_duration(policy.gap_ms)),
        "rules.gap_boundary": (policy.gap_boundary, policy.gap_boundary),
        "rules.max_duration": (limit, "none" if limit is None else format_duration(limit)),
        "rules.max_duration_mode": (policy.max_duration_mode, policy.max_duration_mode),
        "rules.session_ids": (policy.session_ids, policy.session_ids),
        "rules.gap_by": (by, "none" if by is None else by.describe()),
        "rules.day_start": (policy.day_start, policy.day_start or "none"),
        "rules.max_events": (most, "none" if most is None else str(most)),
        "rules.min_events": (policy.min_events, str(policy.min_events)),
        "rules.min_duration": (policy.min_duration_ms, format_duration(policy.min_duration_ms)),
        "rules.duplicates": (policy.duplicates, policy.duplicates),
        "rules.duplicates_within": (policy.duplicates_within_ms, format_duration(policy.duplicates_within_ms)),
        "rules.bounce": (policy.bounce, ", ".join(policy.bounce) or "none"),
        **_rule_values(rules),
    }


def _rule_values(rules: Mapping[str, Any]) -> dict[str, _Value]:
    values: dict[str, _Value] = {}
    for name in _LISTS:
        types = rules.get(name, ()) if name in _LATER else rules[name]
        # conversions ignore case
        compared = frozenset(each.lower() for each in types) if name == "conversion_events" else frozenset(types)
        values[f"rules.{name}"] = (compared, ", ".join(types) or "none")
    return {**values, "rules.boundary": (rules["boundary"], rules["boundary"] or "none")}
