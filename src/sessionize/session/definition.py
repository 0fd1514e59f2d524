"""The definition of sessions as one value, which every engine gets and none owns."""

from dataclasses import dataclass, field

from sessionize.session import columns as col
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
