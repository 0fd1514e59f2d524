"""Generated events that are loaded twice are noticed: the settings and the seed say which events they are."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.app.hooks import Hooks
from sessionize.app.runs import plan
from sessionize.app.tables.generated_loads import fingerprint_of
from sessionize.app.tables.warehouse import Warehouse
from sessionize.connectors.generator.settings import GeneratorSettings
from sessionize.connectors.generator.stream import Stream
from sessionize.errors import StateError

PRESET = "user_sessionization_pipeline"
NOW_MS = 1_900_000_000_000
DAY_MS = 86_400_000


def pipeline(home: Path, **settings: object) -> PipelineConfig:
    small = {"input.generator.events": 400, "input.generator.users": 20, "run.home": str(home)}
    return load_pipeline(PRESET, overrides={**small, **settings})


def run(config: PipelineConfig, tell: Callable[[str], None] = pytest.fail, *, now_ms: int = NOW_MS) -> Any:
    return plan(config, now_ms=now_ms).run(Hooks(on_note=tell))


def counts(home: Path) -> tuple[int, int, int]:
    sql = (
        "SELECT (SELECT count(*) FROM user_sessions) AS n, (SELECT count(DISTINCT session_id) FROM user_sessions) AS d,"
        " (SELECT count(*) FROM events) AS e"
    )
    row = Warehouse(home).query(sql).to_pylist()[0]
    return row["n"], row["d"], row["e"]


def test_a_second_run_is_refused_whenever_it_is(tmp_path: Path) -> None:
    read = run(pipeline(tmp_path)).consumed
    once = counts(tmp_path)
    assert once[0] == once[1] > 0
    for now_ms in (NOW_MS, NOW_MS + 10 * DAY_MS):
        with pytest.raises(StateError, match="the generated events are in the tables already") as caught:
            run(pipeline(tmp_path), now_ms=now_ms)
    text = str(caught.value)
    assert "generator (seed 42: 400 events of 20 users) (loaded 20" in text
    assert f" UTC, {read:,} records)" in text
    assert "another input.generator.seed generates other events" in text
    assert "--again loads them once more, --set output.mode=overwrite replaces what the tables hold" in text
    assert counts(tmp_path) == once


def test_skipped_loaded_again_and_replaced(tmp_path: Path) -> None:
    run(pipeline(tmp_path))
    sessions, distinct, events = counts(tmp_path)
    told: list[str] = []
    assert run(pipeline(tmp_path, **{"input.known_files": "skip"}), told.append).consumed == 0
    assert counts(tmp_path) == (sessions, distinct, events)
    assert [text.partition(" (")[0] for text in told] == [
        "the generated events are in the tables already and skipped: generator"
    ]
    run(pipeline(tmp_path, **{"input.known_files": "again"}))
    assert counts(tmp_path) == (2 * sessions, distinct, 2 * events)
    run(pipeline(tmp_path, **{"output.mode": "overwrite"}))
    assert counts(tmp_path) == (sessions, distinct, events)


def test_another_seed_is_another_load(tmp_path: Path) -> None:
    run(pipeline(tmp_path))
    run(pipeline(tmp_path, **{"input.generator.seed": 43}))
    found = Warehouse(tmp_path).query("SELECT path, fingerprint, size_bytes FROM loads ORDER BY path").to_pylist()
    assert [row["path"] for row in found] == [f"generator (seed {seed}: 400 events of 20 users)" for seed in (42, 43)]
    assert len({row["fingerprint"] for row in found}) == 2
    assert [row["size_bytes"] for row in found] == [None, None]


def test_a_run_that_was_stopped_early_is_in_with_what_it_had(tmp_path: Path) -> None:
    planned = plan(pipeline(tmp_path, **{"input.generator.events": 60_000}), now_ms=NOW_MS)
    hooks = Hooks(on_note=pytest.fail)
    hooks.stopping.set()
    read = planned.run(hooks).consumed
    assert 0 < read < 60_000
    with pytest.raises(StateError, match=f"UTC, {read:,} records"):
        run(pipeline(tmp_path, **{"input.generator.events": 60_000}))


def test_a_run_that_failed_is_no_load(tmp_path: Path) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken off")

    with pytest.raises(RuntimeError, match="broken off"):
        plan(pipeline(tmp_path), now_ms=NOW_MS).run(Hooks(on_note=pytest.fail), broken)
    run(pipeline(tmp_path))
    sessions, distinct, _ = counts(tmp_path)
    assert sessions == distinct


def test_another_home_knows_nothing_of_it(tmp_path: Path) -> None:
    run(pipeline(tmp_path / "one"))
    run(pipeline(tmp_path / "two"))
    shutil.rmtree(tmp_path / "one")
    run(pipeline(tmp_path / "one"))
    assert counts(tmp_path / "one") == counts(tmp_path / "two")


def text_of(settings: GeneratorSettings) -> bytes:
    return b"".join(bytes(block.text(0, len(block))) for block in Stream(settings).blocks())


def made(**settings: Any) -> GeneratorSettings:
    return GeneratorSettings(**{"users": 30, "seed": 7, **settings})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"events": 500}, {"events": 500, "duration_ms": DAY_MS}),
        ({"events": 500, "rate_per_s": 5.0}, {"rate_per_s": 5.0, "duration_ms": 100_000}),
        ({"events": 500}, {"events": 500, "late_by_ms": 5}),
    ],
)
def test_the_same_events_said_in_two_ways_are_one_load(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert text_of(made(**one)) == text_of(made(**other))
    assert fingerprint_of(made(**one)) == fingerprint_of(made(**other))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"users": 31},
        {"events": 501},
        {"skew": 1.0},
        {"rate_per_s": 5.0},
        {"duration_ms": 2 * DAY_MS},
        {"start_ms": 0},
        {"profile": "clicks"},
        {"out_of_order_ms": 60_000},
        {"late_fraction": 0.5},
    ],
    ids=str,
)
def test_what_makes_other_events_makes_another_load(change: dict[str, Any]) -> None:
    assert text_of(made(events=500)) != text_of(made(**{"events": 500, **change}))
    assert fingerprint_of(made(events=500)) != fingerprint_of(made(**{"events": 500, **change}))


@pytest.mark.parametrize("change", [{"duplicate_fraction": 0.1}, {"broken_fraction": 0.1}], ids=str)
def test_duplicates_and_broken_records_change_no_event(change: dict[str, Any]) -> None:
    assert fingerprint_of(made(events=500)) == fingerprint_of(made(events=500, **change))
