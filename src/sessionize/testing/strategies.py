"""Hypothesis strategies for events, policies and rules, small enough that every rule meets its boundary often."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import strategies as st

from sessionize.session.gap_by import GapBy
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules

USERS = ("a", "b", "c", "dé", "\0")
TYPES = (None, "view", "purchase", "login", "logout", "noise")
PAGES = (None, "home", "search", "checkout", "out")


def out_page(events: pa.Table) -> pa.Array:
    """A boundary function: the page "out" opens a session."""
    return pc.fill_null(pc.equal(events["page"], "out"), False)


def events(*, max_size: int = 60) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Events as dicts, in any order, with ties, duplicates, nulls and times around zero."""
    one = st.fixed_dictionaries(
        {
            "user": st.sampled_from(USERS),
            "time": st.one_of(st.integers(-5, 30), st.integers(-60, 400)),
            "id": st.sampled_from([None, "1", "2", "é"]),
            "type": st.sampled_from(TYPES),
            "page": st.sampled_from(PAGES),
            "amount": st.sampled_from([None, 1.5, 0.1, -2.0, 1e9]),
            "source": st.sampled_from([None, "", "news", "shop", "(direct)", "pay.example"]),
            "app": st.sampled_from([None, "tv", "kiosk", "web"]),
            "timeout": st.sampled_from([None, 0, 3, 25, 1_000]),
        }
    )
    return st.lists(one, max_size=max_size)


# Fields beside the canonical columns, with their types.
FURTHER_FIELDS = {"source": "text", "price": "number", "qty": "integer", "flag": "boolean"}


@st.composite
def with_further_fields(draw: st.DrawFn, rows: st.SearchStrategy[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Events with FURTHER_FIELDS, some missing, with values that sums and orders meet their limits by."""
    values = st.fixed_dictionaries(
        {
            "source": st.sampled_from([None, "", "a", "B", "é", "news letter"]),
            "price": st.sampled_from([None, 0.0, -0.0, 0.1, 0.2, -3.75, 1e12, 2e12, float("inf"), float("nan")]),
            "qty": st.sampled_from([None, 0, 1, -7, 2**62, -(2**63)]),
            "flag": st.sampled_from([None, True, False]),
        }
    )
    return [{**row, **draw(values)} for row in draw(rows)]


BOUNCES = ((), (), ("one_event",), ("one_page", "no_conversion", "10ms"))
GAPS = (
    None,
    GapBy(field="app", gaps=(("kiosk", 2), ("tv", 40))),
    GapBy(field="timeout", longest_ms=60),
)


DUPLICATES: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"duplicates": "id", "duplicates_within_ms": 6},
    {"duplicates": "id", "duplicates_within_ms": 50},
    {"duplicates": "id"},
)


@st.composite
def policies(draw: st.DrawFn, *, writes: bool = False) -> Policy:
    """Any policy, with gaps and maxima of the size of the events' distances; what compares events is mostly off.

    writes: some also leave short sessions out, or have the column is_bounce.
    """
    limit = draw(st.sampled_from([None, 7, 20, 100]))
    most = draw(st.sampled_from([None, None, 1, 2, 5]))
    return Policy(
        gap_ms=draw(st.sampled_from([1, 5, 10, 30])),
        gap_boundary=draw(st.sampled_from(["exclusive", "inclusive"])),
        max_duration_ms=limit,
        max_duration_mode="anchored" if limit is None else draw(st.sampled_from(["anchored", "rolling"])),
        session_ids=draw(st.sampled_from(["start", "sequential", "running"])),
        gap_by=draw(st.sampled_from([None, *GAPS])),
        day_start=draw(st.sampled_from([None, None, "UTC"])),
        max_events=most,
        min_events=1 if most == 1 or not writes else draw(st.sampled_from([1, 1, 2])),
        min_duration_ms=draw(st.sampled_from([0, 0, 4])) if writes else 0,
        bounce=draw(st.sampled_from(BOUNCES)) if writes else (),
        **draw(st.sampled_from(DUPLICATES)),
    )


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    """Any combination of rules."""
    fields = draw(st.sampled_from([(), (), ("source",), ("source", "page"), ("timeout",)]))
    return Rules(
        start_events=frozenset(draw(st.sampled_from([(), ("login",)]))),
        end_events=frozenset(draw(st.sampled_from([(), ("logout",)]))),
        excluded_events=frozenset(draw(st.sampled_from([(), ("noise",)]))),
        boundary=draw(st.sampled_from([None, out_page])),
        split_on_change=frozenset(fields),
        split_ignore=frozenset(draw(st.sampled_from([(), ("(direct)", "pay.*")]))) if fields else frozenset(),
    )
