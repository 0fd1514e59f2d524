"""What is odd about an input is told once: no wrong answer comes without a word."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessionize.app.files import FilePlan
from sessionize.app.options import FileOptions, RecordOptions, RuleOptions
from sessionize.cli.output import warn_of_input
from sessionize.engine.accounting import Accounting
from sessionize.errors import InputError

NOW_MS = 1_900_000_000_000


class Run:
    """A `batch` of one file in this process: its accounting, its warnings, its sessions."""

    def __init__(
        self, folder: Path, name: str, data: bytes | pa.Table, rules: RuleOptions | None = None, **records: Any
    ):
        path = folder / name
        if isinstance(data, bytes):
            path.write_bytes(data)
        else:
            pq.write_table(data, path)
        out = folder / f"{name}.sessions.parquet"
        options = FileOptions(
            inputs=[str(path)], output=str(out), records=RecordOptions(**records), rules=rules or RuleOptions()
        )
        self.plan: FilePlan = options.plan("sessions", now_ms=NOW_MS, warn=print)
        self.accounting: Accounting = self.plan.run()
        self.sessions: list[dict[str, Any]] = pq.read_table(out).to_pylist()

    def warnings(self, capsys: pytest.CaptureFixture[str]) -> str:
        capsys.readouterr()
        plan = self.plan
        repeats_ids = plan.policy.repeats_ids
        warn_of_input(self.accounting, plan.dialect, plan.rules.conversion_events, plan.inputs, repeats_ids=repeats_ids)
        return capsys.readouterr().err


MINE = {"user": "u", "time": "t"}


def lines(*records: dict[str, Any]) -> bytes:
    return "\n".join(map(json.dumps, records)).encode()


def test_a_clean_input_has_no_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path, "e.ndjson", lines({"u": "a", "t": 1_772_445_600_000, "p": "/"}), page="p", **MINE)
    assert run.warnings(capsys) == ""


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("e.csv", b"u,t\n7.0,2026-03-02 10:00:00Z\n7,2026-03-02 10:05:00Z\n,2026-03-02 10:06:00Z\n"),
        ("e.ndjson", lines({"u": 7.0, "t": "2026-03-02T10:00:00Z"}, {"u": 7, "t": "2026-03-02T10:05:00Z"}, {"t": 1})),
        ("e.parquet", pa.table({"u": [7.0, 7.0, None], "t": pa.array([0, 300_000, 1], pa.timestamp("ms", "UTC"))})),
    ],
)
def test_whole_numbers_are_one_user_in_every_format(tmp_path: Path, name: str, data: Any) -> None:
    """field-cases: float-and-int-ids.csv, pandas-to_csv.csv, pandas.parquet, double_user.parquet."""
    run = Run(tmp_path, name, data, **MINE)
    assert [(row["u"], row["event_count"]) for row in run.sessions] == [("7", 2)]
    assert run.accounting.rejected_by_reason == {"missing_user": 1}


def test_text_of_a_typed_format_stays_as_it_is(tmp_path: Path) -> None:
    run = Run(tmp_path, "e.ndjson", lines({"u": "7.0", "t": 1}, {"u": "7", "t": 1}), **MINE)
    assert sorted(row["u"] for row in run.sessions) == ["7", "7.0"]


def test_seconds_among_milliseconds_and_old_clocks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """field-cases: mixed-seconds-and-ms.csv, device-clock-1970.csv."""
    data = b"u,t\na,1772445600\na,1772445600000\na,1970-01-01T00:00:05Z\na,0001-01-01T00:00:00Z\n"
    run = Run(tmp_path, "e.csv", data, **MINE)
    assert "3 of 4 events lie before 1990" in run.warnings(capsys)


def test_local_times_are_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = b"u,t\na,2021-10-31 02:30:00\na,2021-10-31 01:45:00\n"
    assert "2 event times name no time zone and are read as UTC" in Run(tmp_path, "e.csv", data, **MINE).warnings(
        capsys
    )
    berlin = Run(tmp_path, "b.csv", data, time_zone="Europe/Berlin", **MINE)
    assert berlin.warnings(capsys) == ""
    assert [row["session_start_time_ms"] for row in berlin.sessions] == [1_635_637_500_000, 1_635_640_200_000]


def test_the_hour_that_never_happens_is_no_silence(tmp_path: Path) -> None:
    """field-cases: local-time-dst-spring.csv."""
    data = b"u,t\nu1,2026-03-08 01:50:00\nu1,2026-03-08 03:05:00\n"
    (session,) = Run(tmp_path, "e.csv", data, time_zone="America/New_York", **MINE).sessions
    assert (session["event_count"], session["session_duration_seconds"]) == (2, 900.0)


def test_words_for_missing_values_as_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """field-cases: null-words-as-users.csv."""
    data = b"u,t\nNULL,1772445600000\nNULL,1772445600000\n\\N,1772445600000\nu1,1772445600000\n"
    told = Run(tmp_path, "e.csv", data, **MINE).warnings(capsys)
    assert "'NULL' 2, '\\N' 1" in told
    assert "--null-values" in told


def test_values_without_a_conversion_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = lines({"u": "a", "t": 1_772_445_600_000, "e": "Order Completed", "v": "12.5"})
    plain = Run(tmp_path, "a.ndjson", data, event_type="e", value="v", **MINE)
    assert "'Order Completed'" in plain.warnings(capsys)
    assert plain.sessions[0]["revenue"] == 0
    rules = RuleOptions(conversion_events=["Order Completed"])
    told = Run(tmp_path, "b.ndjson", data, rules, event_type="e", value="v", **MINE)
    assert told.warnings(capsys) == ""
    assert told.sessions[0]["revenue"] == 12.5


def test_an_amount_without_an_event_type_is_no_revenue(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """field-cases: excel_semicolon.csv has amounts and no types."""
    data = lines({"u": "a", "t": 1_772_445_600_000, "v": "12.5"})
    assert "--event-type" in Run(tmp_path, "a.ndjson", data, value="v", **MINE).warnings(capsys)


def test_a_retry_with_the_same_id_and_another_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """field-cases: retry-same-id-other-time.ndjson. It counts once more, and that is said."""
    at = 1_772_445_600_000
    again = [{"u": "a", "t": t, "id": i} for t, i in ((at, "m1"), (at + 137, "m1"), (at + 9, "m2"), (at + 9, "m2"))]
    run = Run(tmp_path, "e.ndjson", lines(*again, {"u": "b", "t": at + 1, "id": "m1"}), event_id="id", **MINE)
    told = run.warnings(capsys)
    assert "1 of the first 5 events have the id of another event of their user" in told
    assert "--duplicates id" in told
    assert run.accounting.duplicate == 1
    by_id = RuleOptions(duplicates="id")
    once = Run(tmp_path, "g.ndjson", lines(*again), by_id, event_id="id", **MINE)
    assert once.warnings(capsys) == ""
    assert (once.accounting.duplicate, once.sessions[0]["event_count"]) == (2, 2)
    plain = Run(tmp_path, "f.ndjson", lines(*again[2:], {"u": "a", "t": at}), event_id="id", **MINE)
    assert plain.warnings(capsys) == ""


def test_a_mistyped_optional_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = lines({"u": "a", "t": 1_772_445_600_000, "context": {"page": "/"}})
    said = Run(tmp_path, "e.ndjson", data, page="contxt.page", **MINE).warnings(capsys)
    assert "no record has a value for page (contxt.page); did you mean 'context.page'?" in said


def test_values_of_a_wrong_type_are_counted(tmp_path: Path) -> None:
    """field-cases: amounts-with-currency-and-commas.csv: the events stay."""
    data = b'u,t,e,v\na,1,purchase,"1,50"\na,2,purchase,$2.25\na,3,purchase,"1,234.50"\na,4,purchase,3.00\n'
    run = Run(tmp_path, "e.csv", data, event_type="e", value="v", **MINE)
    assert [(row["event_count"], row["revenue"]) for row in run.sessions] == [(4, 3.0)]
    assert run.accounting.nulled == {"value": 3}
    assert run.accounting.balanced
    with pytest.raises(InputError, match="none of the records"):
        Run(tmp_path, "s.csv", data.replace(b"3.00", b"x"), event_type="e", value="v", strict=True, **MINE)


def test_one_example_for_each_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = lines({"u": "a", "t": 1_772_445_600_000}, {"u": "a", "t": "yesterday"}, {"u": "a", "t": "today"}, {"t": 1})
    run = Run(tmp_path, "e.ndjson", data, **MINE)
    said = run.warnings(capsys)
    assert "invalid_time: " in said
    assert "e.ndjson, line 2: t = 'yesterday': not an ISO 8601 time" in said
    assert "today" not in said
    with pytest.raises(InputError) as caught:
        Run(tmp_path, "f.ndjson", data.split(b"\n", 1)[1], **MINE)
    assert "line 1: t = 'yesterday'" in str(caught.value)


@pytest.mark.parametrize(("number", "unit"), [(1772445600000000, "microseconds"), (1772445600000000000, "nanoseconds")])
def test_finer_units_are_named(tmp_path: Path, number: int, unit: str) -> None:
    with pytest.raises(InputError, match=f"in {unit} it is in 2026"):
        Run(tmp_path, "e.ndjson", lines({"u": "a", "t": number}), **MINE)
