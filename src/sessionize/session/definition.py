"""The definition of sessions as one value, which every engine gets and none owns."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from sessionize.errors import ConfigError
from sessionize.session import columns as col
from sessionize.session.bounce import NO_CONVERSION, ONE_PAGE
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionDefinition:
    """The definition of the sessions of a run.

    policy, rules: what a session is. columns: the session columns, all by default. user_name: the name of the user
    column in events and sessions.
    """

    policy: Policy
    rules: Rules = field(default_factory=Rules)
    columns: col.SessionColumns = field(default_factory=col.SessionColumns)
    user_name: str = col.USER


def compared_fields(policy: Policy, rules: Rules) -> frozenset[str]:
    """The event columns without which the rules that compare events cannot work."""
    return rules.split_on_change | (frozenset() if policy.gap_by is None else {policy.gap_by.field})


def rule_columns(policy: Policy, rules: Rules) -> frozenset[str]:
    """The event columns that the rules look at, where there are any."""
    needs = set(compared_fields(policy, rules))
    needs |= {col.EVENT_TYPE} if rules.need_event_type or NO_CONVERSION in policy.bounce else set()
    needs |= {col.PAGE} if ONE_PAGE in policy.bounce else set()
    needs |= {col.EVENT_ID} if policy.repeats_ids else set()
    return frozenset(needs)


def check_fields(policy: Policy, rules: Rules, have: Iterable[str], *, hint: str) -> None:
    """Errors: ConfigError where the events do not have a field that a rule compares. hint: how to map one."""
    have = frozenset(have)
    for key, named in (
        ("split_on_change", rules.split_on_change),
        ("gap_by", frozenset() if policy.gap_by is None else {policy.gap_by.field}),
    ):
        if missing := sorted(named - have):
            raise ConfigError(
                f"{key} needs a field that the events lack",
                detail=f"field {missing[0]!r}; the events have {', '.join(sorted(have))}",
                hint=f"{hint}, or turn {key} off",
            )
    if policy.repeats_ids and col.EVENT_ID not in have:
        raise ConfigError(
            'duplicates = "id" needs the event id, which the events lack',
            detail=f"the events have {', '.join(sorted(have))}",
            hint="map event_id, or remove duplicates",
        )
