"""A run goes on from checkpoints of format 1, with its sessions exactly as if one program had made them all.

format_1/<name>/state/ is the folder of a run that was killed behind a plan; sessions.json is what it had written until
then. They were made by the program that wrote format 1, and are never made again.
"""

import json
import shutil
import struct
from pathlib import Path

import pytest

from sessionize import Sessionizer, StateError
from sessionize.engine.stream import checkpoint_format
from sessionize.engine.stream.engine import LocalEngine
from sessionize.engine.stream.options import StreamOptions
from sessionize.testing.comparison import expected_sessions, sorted_rows
from sessionize.testing.oracle import judged
from sessionize.testing.streams import InMemoryEpochSink, InMemoryStreamSource
from tests.engine.format_1_runs import LATENESS_MS, POLICIES, RULES, partitions
from tests.engine.stream_runs import VISITS, Steps, engine, order, run, sessions_of

MADE = Path(__file__).parent / "format_1"


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_a_run_goes_on_from_a_state_of_format_1(name, tmp_path):
    folder = tmp_path / "state"
    shutil.copytree(MADE / name / "state", folder)
    before = json.loads((MADE / name / "sessions.json").read_text())
    policy, rules, rows = POLICIES[name], RULES[name], partitions(7)
    sink = InMemoryEpochSink()
    made = run(
        lambda: engine(
            folder,
            InMemoryStreamSource(rows, cut=3),
            {"kept": sink},
            policy=policy,
            rule=rules,
            lateness=LATENESS_MS,
            options=StreamOptions(epoch_rows_max=60, poll_s=0, once=True),
        )
    )
    on_time = [row for part in rows for row in judged((r for r in part if "user" in r), LATENESS_MS)[0]]
    end = max(row["time"] for row in on_time)
    plain = [{**row, "events_by_type": dict(row["events_by_type"])} for row in sessions_of(sink)]
    whole = sorted([*before, *json.loads(json.dumps(plain, default=str))], key=order)
    expected = sorted(expected_sessions(on_time, policy, rules, end_ms=end), key=order)
    assert len(before) > 20
    assert len(whole) > len(before) + 20
    assert whole == json.loads(json.dumps(expected, default=str))
    assert made.accounting.balanced
    assert made.accounting.consumed == sum(map(len, rows))


def versions(folder: Path) -> dict[str, int]:
    """The version of each checkpoint file."""
    return {path.name: struct.unpack_from("<I", path.read_bytes(), 4)[0] for path in folder.glob("*.ckpt")}


@pytest.mark.parametrize("name", sorted(POLICIES))
@pytest.mark.parametrize("deltas_max", [2, 200])
def test_a_state_of_format_1_goes_on_in_format_2(name, deltas_max, tmp_path):
    """Killed at every third step, with bases merged of files of both formats."""
    folder = tmp_path / "state"
    shutil.copytree(MADE / name / "state", folder)
    assert set(versions(folder).values()) == {1}
    before = json.loads((MADE / name / "sessions.json").read_text())
    rows, sink, seen = partitions(7), InMemoryEpochSink(), list[int]()

    def make() -> LocalEngine:
        seen.append(len(seen))
        return engine(
            folder,
            InMemoryStreamSource(rows, cut=3 + len(seen)),
            {"kept": sink},
            policy=POLICIES[name],
            rule=RULES[name],
            lateness=LATENESS_MS,
            options=StreamOptions(epoch_rows_max=60, poll_s=0, once=True),
            deltas_max=deltas_max,
            on_step=Steps(10 + len(seen) % 9),
        )

    made = run(make, crashes=True)
    on_time = [row for part in rows for row in judged((r for r in part if "user" in r), LATENESS_MS)[0]]
    end = max(row["time"] for row in on_time)
    expected = sorted(expected_sessions(on_time, POLICIES[name], RULES[name], end_ms=end), key=order)
    plain = [{**row, "events_by_type": dict(row["events_by_type"])} for row in sessions_of(sink)]
    whole = sorted([*before, *json.loads(json.dumps(plain, default=str))], key=order)
    assert whole == json.loads(json.dumps(expected, default=str))
    assert made.accounting.balanced
    assert len(seen) > 3
    after = versions(folder)
    assert all(version == 2 for file, version in after.items() if not (MADE / name / "state" / file).exists())
    assert 2 in after.values()


def test_a_program_that_knows_format_1_alone_refuses_format_2(tmp_path, monkeypatch):
    folder = tmp_path / "state"
    sink = InMemoryEpochSink()
    run(lambda: engine(folder, InMemoryStreamSource([VISITS]), {"kept": sink}))
    assert set(versions(folder).values()) == {2}
    monkeypatch.setitem(checkpoint_format._READS, checkpoint_format._CHECKPOINT, (1,))
    with pytest.raises(StateError, match="unknown version") as caught:
        run(lambda: engine(folder, InMemoryStreamSource([VISITS]), {"kept": sink}))
    assert "version 2, this program reads 1" in str(caught.value)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_a_snapshot_of_format_1_is_restored(name):
    data = (MADE / name / "snapshot.bin").read_bytes()
    core = Sessionizer.restore(data, POLICIES[name], rules=RULES[name])
    facts = json.loads((MADE / name / "snapshot.json").read_text())
    assert core.counts.as_dict() == {**facts["counts"], "short_sessions": 0}  # which that format did not count
    assert json.loads(json.dumps(sorted_rows(core.flush()), default=str)) == facts["rest"]


def test_a_damaged_snapshot_of_format_1_is_noticed():
    data = bytearray((MADE / "rules" / "snapshot.bin").read_bytes())
    data[len(data) // 2] ^= 1
    with pytest.raises(StateError, match="damaged"):
        Sessionizer.restore(bytes(data), POLICIES["rules"], rules=RULES["rules"])
