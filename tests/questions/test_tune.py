"""`tune`: the counts equal those of plain loops, and a gap is named exactly where the data have one."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sessionize.analytics.silences import NEAR, SilenceCounts, bin_of, edges_ms
from sessionize.analytics.tune import LADDER_MS, about, counts_to_fill, tuning
from sessionize.errors import ConfigError, InputError
from sessionize.session.durations import parse_duration_ms
from tests.questions.commands import answer, asked, read_page

GAPS = (1_000, 60_000, 1_800_000)
EVENTS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 900, 999, 1_000, 1_001, 55_000, 60_001, 1_800_001, -(10**9)])),
    max_size=40,
)


def columns(events: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([user for user, _ in events], np.int32), np.array([time for _, time in events], np.int64)


def by_user(events: list[tuple[int, int]]) -> list[list[int]]:
    return [sorted(t for u, t in events if u == user) for user in sorted({user for user, _ in events})]


def sessions(times: list[int], gap: int) -> list[list[int]]:
    found = [[times[0]]]
    for before, time in pairwise(times):
        if time - before > gap:
            found.append([])
        found[-1].append(time)
    return found


@settings(max_examples=60, deadline=None)
@given(EVENTS)
def test_counts_equal_plain_loops(events: list[tuple[int, int]]) -> None:
    counts = SilenceCounts.of(GAPS, (0,)).counted(*columns(events))
    silences = [b - a for times in by_user(events) for a, b in pairwise(times)]
    assert (counts.events, counts.users, counts.silences) == (len(events), len(by_user(events)), len(silences))
    assert counts.simultaneous == silences.count(0)
    assert counts.bins.sum() == sum(s > 0 for s in silences)
    for gap in GAPS:
        made = [session for times in by_user(events) for session in sessions(times, gap)]
        durations = [session[-1] - session[0] for session in made]
        its = counts.by_gap[gap]
        assert (its.sessions, its.moments, its.duration_ms) == (len(made), durations.count(0), sum(durations))
        assert its.longest_ms == max(durations, default=0)
        assert counts.above_ms(gap) == sum(s > gap for s in silences)
        assert counts.near(gap) == sum(round(gap * (1 - NEAR)) < s <= round(gap * (1 + NEAR)) for s in silences)
        if durations:
            middle = sorted(durations)[max(0, -(-len(durations) // 2) - 1)]
            assert its.quantile_ms(0.5) == pytest.approx(middle, rel=1 / 32)


@settings(max_examples=30, deadline=None)
@given(EVENTS)
def test_parts_of_the_users_add_up(events: list[tuple[int, int]]) -> None:
    whole, added = counts_to_fill(GAPS), counts_to_fill(GAPS)
    for part in ([e for e in events if e[0] % 2 == odd] for odd in (0, 1)):
        added.add(whole.counted(*columns(part)))
    whole.add(whole.counted(*columns(events)))
    assert tuning(added).as_dict() == tuning(whole).as_dict()


def test_a_bin_holds_what_lies_between_its_edges() -> None:
    edges, values = edges_ms(), np.array([1, 2, 3, 63, 64, 65, 1_000, 1_799_999, 1_800_000, 2**49 - 1], np.int64)
    at = bin_of(values)
    assert (edges[at] <= values).all()
    assert (values < edges[at + 1]).all()
    assert ((edges[at + 1] - edges[at]) / edges[at] <= 1 / 64 + 1e-12).all()


def visits(rng: np.random.Generator, users: int, within: float, between: float, events: int = 30) -> pa.Table:
    """Users with log-normal silences of two kinds, a fifth of them between visits."""
    silence = np.where(
        rng.random((users, events)) < 0.2,
        rng.lognormal(np.log(between), 0.9, (users, events)),
        rng.lognormal(np.log(within), 1.0, (users, events)),
    )
    time = np.cumsum(silence, axis=1).astype(np.int64) + 1_700_000_000_000
    names = np.repeat([f"u{n}" for n in range(users)], events)
    return pa.table({"user": names, "ts": time.ravel()})


def tuned(table: pa.Table):
    users = table["user"].dictionary_encode().combine_chunks().indices.to_numpy()
    counts = counts_to_fill()
    counts.add(counts.counted(users, table["ts"].to_numpy()))
    return tuning(counts)


def test_two_kinds_of_silence_are_found_with_their_border() -> None:
    found = tuned(visits(np.random.default_rng(1), 800, 20_000, 20 * 3_600_000))
    assert found.support == "clear"
    assert found.mixture is not None
    assert found.mixture.within.median_ms == pytest.approx(20_000, rel=0.1)
    assert found.mixture.between.median_ms == pytest.approx(20 * 3_600_000, rel=0.1)
    assert found.mixture.between.share == pytest.approx(0.2, abs=0.02)
    assert 600_000 <= found.gap_ms <= 3_600_000
    assert found.gap_ms in {each.gap_ms for each in found.candidates}


def test_a_shorter_world_has_a_shorter_gap() -> None:
    """A game: seconds within a match, minutes between matches."""
    found = tuned(visits(np.random.default_rng(2), 800, 2_000, 900_000))
    assert found.support == "clear"
    assert 20_000 <= found.gap_ms <= 180_000


@pytest.mark.parametrize("shape", ["one hump", "evenly spread", "exponential"])
def test_where_there_is_one_kind_of_silence_no_gap_is_named(shape: str) -> None:
    rng = np.random.default_rng(3)
    silence = {
        "one hump": rng.lognormal(np.log(120_000), 1.5, 20_000),
        "evenly spread": np.exp(rng.uniform(np.log(2_000), np.log(10**9), 20_000)),
        "exponential": rng.exponential(300_000, 20_000),
    }[shape]
    time = np.cumsum(silence).astype(np.int64)
    found = tuned(pa.table({"user": ["u"] * len(time), "ts": time}))
    assert (found.support, found.gap_ms) == ("none", None)
    assert [each.gap_ms for each in found.candidates] == [1_800_000]
    assert "favour no gap" in found.reasons[-1]


def test_few_silences_tell_nothing() -> None:
    found = tuned(visits(np.random.default_rng(4), 5, 20_000, 20 * 3_600_000))
    assert found.support == "none"
    assert "too few" in found.reasons[0]


def test_a_short_span_is_said() -> None:
    found = tuned(pa.table({"user": ["a", "a"], "ts": [0, 60_000]}))
    assert any("cannot be seen" in note for note in found.notes)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tune") / "shop <b>&.parquet"
    pq.write_table(visits(np.random.default_rng(5), 300, 20_000, 20 * 3_600_000), path)
    return path


WORDS = ("--user", "user", "--time", "ts", "--max-future", "none")


def test_the_command_answers_in_json(shop: Path) -> None:
    found = answer("tune", shop, *WORDS, "--gap", "37")
    assert (found["events"], found["users"], found["support"]) == (9_000, 300, "clear")
    assert sum(row["silences"] for row in found["histogram"]) == found["silences"] - found["simultaneous"]
    assert {each["gap"] for each in found["candidates"]} >= {"30m", "37m"}
    assert len(found["gaps"]) == len(LADDER_MS) + 1
    counted = [each["sessions"] for each in found["gaps"]]
    assert counted == sorted(counted, reverse=True)


def test_memory_changes_nothing(shop: Path) -> None:
    assert answer("tune", shop, *WORDS, "--memory", "16KB") == answer("tune", shop, *WORDS)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(shop: Path, width: int) -> None:
    lines = asked("tune", shop, *WORDS, width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert any("data support a gap of" in line for line in lines)
    assert any("█" in line for line in lines)


def test_the_page_is_one_file_that_shows_all(shop: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    asked("tune", shop, *WORDS, "-o", report)
    page = read_page(report.read_text(encoding="utf-8"))
    said = "".join(page.itertext())
    assert shop.name in said
    assert len(list(page.iter("{http://www.w3.org/2000/svg}svg"))) == 3
    assert "1h30m" in said


def test_an_empty_input_has_an_answer(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("user,ts\n")
    report = tmp_path / "report.html"
    found = answer("tune", tmp_path / "empty.csv", *WORDS, "-o", report)
    assert (found["events"], found["support"], found["histogram"]) == (0, "none", [])
    read_page(report.read_text(encoding="utf-8"))
    assert "support no particular gap" in asked("tune", tmp_path / "empty.csv", *WORDS)


def test_excluded_events_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("user,ts,kind\na,0,view\na,1000,ping\na,2000,view\n")
    words = ("tune", path, "--user", "user", "--time", "ts", "--event-type", "kind")
    assert answer(*words)["silences"] == 2
    assert answer(*words, "--excluded-events", "ping")["silences"] == 1


def test_what_cannot_be_meant_is_refused(shop: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="longer than zero"):
        asked("tune", shop, *WORDS, "--gap", "0")
    with pytest.raises(ConfigError, match="a page or JSON"):
        asked("tune", shop, *WORDS, "-o", tmp_path / "x.pdf")
    (tmp_path / "in.json").write_text("")
    with pytest.raises(ConfigError, match="overwrite an input"):
        asked("tune", tmp_path, *WORDS, "-o", tmp_path / "in.json")
    (tmp_path / "bad.csv").write_text("user,ts\na,never\n")
    with pytest.raises(InputError, match="none of the records"):
        asked("tune", tmp_path / "bad.csv", *WORDS)


@pytest.mark.parametrize(
    ("ms", "text"), [(0, "0s"), (12, "12ms"), (1_800, "1.8s"), (7_031, "7s"), (112_500, "1m52s"), (5.1e8, "5d22h")]
)
def test_durations_for_people(ms: float, text: str) -> None:
    assert about(ms) == text
    parse_duration_ms(text, name="text")
