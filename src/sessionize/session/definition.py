"""What a run makes of events, as one value: every engine gets it, and no engine owns it."""

from dataclasses import dataclass, field

from sessionize.session import columns as col
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionDefinition:
    """Which sessions a run makes.

    policy, rules: what a session is. columns: which session columns are made, all by default. user_name: what the user
    column of events and sessions is called.
    """

    policy: Policy
    rules: Rules = field(default_factory=Rules)
    columns: col.SessionColumns = field(default_factory=col.SessionColumns)
    user_name: str = col.USER
