"""Sessions as other products define them, as values of our rules: `--definition ga4`, `rules.definition`.

Each is what the product does without settings of its own, as far as our rules say the same; docs/definitions.md has the
sources and what differs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from sessionize.errors import ConfigError

if TYPE_CHECKING:
    from sessionize.session.policy import Policy
    from sessionize.session.rules import Rules

DefinitionName = Literal["ga4", "matomo", "mixpanel", "amplitude", "snowplow", "posthog", "adobe"]


@dataclass(frozen=True, slots=True)
class Definition:
    """keys: of the section [rules], in place of their defaults. source: addresses, as of 2026-11."""

    name: DefinitionName
    keys: Mapping[str, Any]
    source: tuple[str, ...]

    @property
    def policy(self) -> "Policy":
        """The policy that it comes to."""
        from sessionize.session.policy import Policy

        return Policy.of(**{name: value for name, value in self.keys.items() if name not in _OF_RULES})

    @property
    def rules(self) -> "Rules":
        """The rules about events, with the default conversions."""
        from sessionize.session.rules import Rules

        named: dict[str, Any] = {name: frozenset(value) for name, value in self.keys.items() if name in _OF_RULES}
        return Rules(**named)


_OF_RULES = ("start_events", "end_events", "excluded_events", "split_on_change", "split_ignore")
_ENDLESS = {"gap": "30m", "max_duration": "none"}
_ALL = (
    Definition(
        "ga4",
        {**_ENDLESS, "bounce": ("one_page", "no_conversion", "10s")},
        (
            "https://support.google.com/analytics/answer/9191807",
            "https://support.google.com/analytics/answer/12798876",
        ),
    ),
    Definition(
        "matomo",
        {
            **_ENDLESS,
            "day_start": "UTC",
            "split_on_change": ("campaign",),
            "max_events": 10_000,
            "bounce": ("one_event",),
        },
        ("https://github.com/matomo-org/matomo/blob/5.x-dev/config/global.ini.php",),
    ),
    Definition("mixpanel", {**_ENDLESS, "day_start": "UTC"}, ("https://docs.mixpanel.com/docs/features/sessions",)),
    Definition("amplitude", _ENDLESS, ("https://amplitude.com/docs/data/sources/instrument-track-sessions",)),
    Definition(
        "snowplow",
        _ENDLESS,
        ("https://docs.snowplow.io/docs/sources/web-trackers/cookies-and-local-storage/",),
    ),
    Definition(
        "posthog",
        {"gap": "30m", "max_duration": "24h", "max_duration_mode": "rolling"},
        ("https://posthog.com/docs/data/sessions",),
    ),
    Definition(
        "adobe",
        {
            "gap": "30m",
            "max_duration": "12h",
            "max_duration_mode": "rolling",
            "max_events": 2_500,
            "bounce": ("one_event",),
        },
        ("https://experienceleague.adobe.com/en/docs/analytics/components/metrics/visits",),
    ),
)
DEFINITIONS: Mapping[str, Definition] = {each.name: each for each in _ALL}


def definition(name: str) -> Definition:
    """The definition of sessions of another product: its `policy` and its `rules`.

    Parameters
    ----------
    name : str
        ``"ga4"``, ``"matomo"``, ``"mixpanel"``, ``"amplitude"``, ``"snowplow"``, ``"posthog"`` or ``"adobe"``.

    Returns
    -------
    Definition

    Raises
    ------
    ConfigError
        There is no such definition.

    Notes
    -----
    Source: docs/definitions.md.

    Examples
    --------
    >>> from sessionize import definition
    >>> definition("posthog").policy.describe()
    'gap 30m (exclusive), at most 1d (rolling), ids start'
    """
    if name not in DEFINITIONS:
        raise ConfigError(
            "unknown definition of sessions",
            detail=f"definition = {name!r}",
            hint=f"one of {', '.join(get_args(DefinitionName))}",
        )
    return DEFINITIONS[name]
