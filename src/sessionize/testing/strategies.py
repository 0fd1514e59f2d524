"""Hypothesis strategies for events, policies and rules, small enough that every rule meets its boundary often."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import strategies as st

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
        }
    )
    return st.lists(one, max_size=max_size)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Any policy, with gaps and maxima of the size of the events' distances."""
    limit = draw(st.sampled_from([None, 7, 20, 100]))
    return Policy(
        gap_ms=draw(st.sampled_from([1, 5, 10, 30])),
        gap_boundary=draw(st.sampled_from(["exclusive", "inclusive"])),
        max_duration_ms=limit,
        max_duration_mode="anchored" if limit is None else draw(st.sampled_from(["anchored", "rolling"])),
        session_ids=draw(st.sampled_from(["start", "sequential", "running"])),
    )


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    """Any combination of rules."""
    return Rules(
        start_events=frozenset(draw(st.sampled_from([(), ("login",)]))),
        end_events=frozenset(draw(st.sampled_from([(), ("logout",)]))),
        excluded_events=frozenset(draw(st.sampled_from([(), ("noise",)]))),
        boundary=draw(st.sampled_from([None, out_page])),
    )
