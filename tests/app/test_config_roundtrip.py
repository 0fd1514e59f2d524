"""Any valid pipeline survives being written down and loaded again, from a file or from options."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize.app.config.pipeline import load_pipeline
from sessionize.app.config.values import format_value
from sessionize.formats.dialects import DIALECTS, PROFILE_DIALECTS
from sessionize.session.columns import SESSION_COLUMNS

TEXTS = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=8).filter(str.strip)
LENGTHS = st.sampled_from(["1ms", "90s", "30m", "1h30m", "1.5h", "7d", " 2 h "])
SHARES = st.floats(0, 1)
PATHS = st.sampled_from(["user", "a.b", "Ünicode feld", "a b.c"])


def some(**values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=values)


INPUT = st.one_of(
    some(paths=st.lists(TEXTS, max_size=3), dialect=st.sampled_from(sorted(DIALECTS))),
    st.fixed_dictionaries(
        {
            "kind": st.just("generator"),
            "mapping": st.fixed_dictionaries(
                {"user": PATHS, "time": PATHS},
                optional={
                    "page": PATHS,
                    "value": PATHS,
                    "time_format": st.sampled_from(["auto", "ms", "iso8601"]),
                },
            ),
        },
        optional={
            "generator": some(
                users=st.integers(1, 10**7),
                events=st.integers(1, 10**12),
                duration=LENGTHS,
                skew=st.floats(0, 5) | st.integers(0, 5),
                seed=st.integers(0, 2**63 - 1),
                late_fraction=SHARES,
                broken_fraction=SHARES,
                out_of_order=LENGTHS | st.just(0),
                profile=st.sampled_from(sorted(PROFILE_DIALECTS)),
            )
        },
    ),
)
RULES = some(
    gap=LENGTHS,
    gap_boundary=st.sampled_from(["exclusive", "inclusive"]),
    max_duration=LENGTHS,
    max_duration_mode=st.sampled_from(["anchored", "rolling"]),
    session_ids=st.sampled_from(["start", "sequential", "running"]),
    lateness=LENGTHS | st.sampled_from([0, "0"]),
    max_future=LENGTHS | st.sampled_from(["none", "NONE", 0]),
    start_events=st.lists(TEXTS, max_size=2),
    conversion_events=st.lists(TEXTS, max_size=2),
)
COLUMNS = st.lists(st.sampled_from(SESSION_COLUMNS), min_size=1, unique=True)
OUTPUT = st.one_of(
    some(
        database=st.sampled_from(["a", "B_2", "x-1"]),
        mode=st.sampled_from(["append", "overwrite"]),
        events=st.booleans(),
        columns=COLUMNS,
    ),
    st.sampled_from(["csv", "parquet", "ndjson"]).flatmap(
        lambda kind: st.fixed_dictionaries(
            {"kind": st.just(kind), "path": TEXTS.map(lambda stem: f"{stem}x.{kind}")},
            optional={"rejected": st.booleans(), "columns": COLUMNS},
        )
    ),
)
RUN = some(
    once=st.booleans(),
    home=TEXTS,
    memory=st.sampled_from(["16MB", "1 GiB", "2.5gb"]),
    log_level=st.sampled_from(["debug", "ERROR"]),
)
PIPELINES = some(name=st.just("web"), description=TEXTS, input=INPUT, rules=RULES, output=OUTPUT, run=RUN)


def as_toml(tree: Mapping[str, Any]) -> str:
    """A table of tables as a TOML file, with dotted keys."""
    lines: list[str] = []

    def write(table: Mapping[str, Any], prefix: str) -> None:
        for name, value in table.items():
            if isinstance(value, dict):
                write(value, f"{prefix}{name}.")
            else:
                lines.append(f"{prefix}{name} = {format_value(value)}")

    write(tree, "")
    return "\n".join(lines) + "\n"


@given(tree=PIPELINES)
def test_any_valid_pipeline_comes_back_from_its_own_dump(
    tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("pipelines") / "my.toml"
    path.write_text(as_toml(tree), encoding="utf-8")
    config = load_pipeline(str(path), environ={})
    dumped = config.as_dict()
    path.write_text(as_toml(dumped), encoding="utf-8")
    again = load_pipeline(str(path), environ={})
    assert again == config
    assert again.as_dict() == dumped
    path.write_text("", encoding="utf-8")
    by_option = load_pipeline(str(path), environ={}, overrides=tree)
    assert by_option == config
    config.policy()
