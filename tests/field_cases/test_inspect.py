"""`inspect`: the guess is right on what people bring: the printed command, when run, gives the right sessions."""

import bz2
import gzip
import io
import json
import lzma
import shlex
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sessionize.analytics.inspection.command import command_of, shell_text, toml_text
from sessionize.analytics.inspection.guess import Inspection, inspection
from sessionize.app.config.pipeline import load_pipeline
from sessionize.app.questions.inspect import inspected
from sessionize.cli.app import app
from sessionize.errors import ConfigError, InputError, SessionizeError
from sessionize.formats.content.samples import Sample
from sessionize.formats.dialects import DIALECTS
from tests.connectors.remote.web_server import WebServer
from tests.field_cases.runs import Ran, brought, ran

AT = 1_772_445_600_000  # 2026-03-02 10:00 UTC
SHOP = [("u1", 1, AT + 3_600_000), ("u1", 2, AT)]
SEGMENT = [("anon-1", 2, AT), ("anon-2", 1, AT + 1_260_000), ("u-77", 3, AT + 360_000)]

# Each input: what the printed command gives (user, events, start of each session), and the lines that it rejects.
RIGHT: dict[str, tuple[list[tuple[str, int, int]], list[int]]] = {
    "amounts-with-currency-and-commas.csv": ([("u1", 4, AT)], []),
    "array.json": ([("A", 2, 1_610_532_000_000)], []),
    "bigquery-timestamp-utc-suffix.ndjson": ([("7", 3, AT)], []),
    "cloudevents.ndjson": ([("u1", 3, AT)], []),
    "combined.log": (
        [
            ("192.0.2.7", 3, 1_475_479_211_000),
            ("192.0.2.9", 1, 1_475_479_371_000),  # 07:22:51Z, by its offset
            ("2001:db8::1", 1, 1_475_481_599_000),
        ],
        [6],
    ),
    "device-clock-1970.csv": ([("u1", 1, -62_135_596_800_000), ("u1", 1, 5_000), ("u1", 2, AT)], []),
    "double_user.parquet": ([("7", 2, AT)], [3]),
    "epoch-seconds.csv": ([("u1", 2, AT)], []),
    "events.csv.zst": (SHOP, []),
    "excel-date-de.csv": ([("u1", 2, AT)], []),
    "excel-unicode-text-utf16-tab.csv": (SHOP, []),
    "excel_semicolon.csv": ([("A", 2, 1_610_532_000_000)], []),
    "float-and-int-ids.csv": ([("7", 2, AT)], []),
    "folder-mixed-endings": ([("u1", 4, AT + 3_600_000), ("u1", 8, AT)], []),
    "ga4-bigquery-export-us.jsonl": ([("11.22", 1, 1_772_451_360_000), ("11.22", 3, AT + 123)], [4]),
    "ga4_export.ndjson": ([("12.34", 1, 1_714_521_600_123), ("u9", 2, 1_714_522_600_123)], []),
    "gzip-without-gz-ending.csv": (SHOP, []),
    "headerless-3-columns.csv": ([("u1", 1, AT + 4_300_000), ("u1", 2, AT)], []),
    "headerless_seconds.csv": ([("A", 2, 1_610_532_000_000)], []),
    "json-array-pretty.json": (SEGMENT, []),
    "latin1.csv": (SHOP, []),
    "local-time-dst-fall.csv": ([("u1", 1, 1_793_498_100_000), ("u1", 3, 1_793_494_200_000)], []),
    "local-time-dst-spring.csv": ([("u1", 1, 1_772_934_600_000), ("u1", 1, 1_772_939_100_000)], []),
    "local_time.csv": ([("A", 1, 1_616_898_600_000), ("A", 1, 1_635_644_700_000), ("A", 1, 1_635_647_400_000)], []),
    "mixed-seconds-and-ms.csv": ([("u1", 1, 1_772_445_600), ("u1", 2, AT)], []),
    "mixpanel-export.ndjson": ([("d-1", 3, AT)], []),
    "nginx-json.ndjson": ([("203.0.113.7", 2, AT - 3_600_000)], []),
    "null-words-as-users.csv": ([("u1", 1, AT + 180_000)], [2, 3, 4]),
    "pandas-to_csv.csv": ([("7", 2, AT)], [4]),
    "pandas.parquet": ([("7", 2, AT)], [3]),
    "retry-same-id-other-time.ndjson": ([("a", 3, AT)], []),
    "segment-track-page-identify.jsonl": (SEGMENT, []),
    "segment.ndjson": (
        [("a1", 1, 1_714_557_600_000), ("a2", 1, 1_714_557_720_000), ("u1", 2, 1_714_557_660_000)],
        [],
    ),
    "stream-1-normal.ndjson": ([(f"n{n}", 20, 1_796_015_038_000 + 60_000 * n) for n in range(3)], []),
    "stream-3-offline-phone.ndjson": ([("phone", 5, 1_796_015_098_000)], []),
    "utf16.csv": ([("Änne", 1, 1_610_532_000_000)], []),
    "w3c_extended.log": ([("198.51.100.4", 1, 1_285_116_000_000), ("198.51.100.4", 3, 1_285_113_599_000)], []),
}


@pytest.fixture(autouse=True)
def _in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run_printed(found: Inspection, *more: str) -> Ran:
    return ran(*shlex.split(found.command)[1:], *more)


def sessions(done: Ran) -> list[tuple[str, int, int]]:
    assert done.code == 0, done.err
    rows = [(next(iter(row.values())), row["event_count"], row["session_start_time_ms"]) for row in done.sessions]
    return sorted(rows)


@pytest.mark.parametrize("name", RIGHT)
def test_the_printed_command_gives_the_right_sessions(tmp_path: Path, name: str) -> None:
    brought(tmp_path, name)
    found = inspected([name])
    done = run_printed(found)
    expected, rejected = RIGHT[name]
    assert sessions(done) == expected
    assert sorted(row["line_number"] for row in done.rejected) == rejected
    Path("p.toml").write_text(found.toml + '\n[output]\nkind = "csv"\npath = "x.csv"\n', encoding="utf-8")
    config = load_pipeline("p.toml")  # the TOML says the same
    assert config.input.kind == "files"


@pytest.mark.parametrize("name", ["user-column-named-event_count.csv", "user-column-named-session_id.ndjson"])
def test_a_user_column_with_a_taken_name_is_said(tmp_path: Path, name: str) -> None:
    brought(tmp_path, name)
    assert any("rename it" in text for text in inspected([name]).warnings)


def test_keys_of_folders_are_columns(tmp_path: Path) -> None:
    (tmp_path / "user_id=u1").mkdir()
    brought(tmp_path, "hive-user_id=u1.parquet")
    (tmp_path / "hive-user_id=u1.parquet").rename(tmp_path / "user_id=u1" / "a.parquet")
    assert sessions(run_printed(inspected(["user_id=u1"]))) == SHOP


def test_the_output_is_no_part_of_the_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    brought(tmp_path / "a" / "b", "pandas.parquet")
    monkeypatch.chdir("a/b")
    assert inspected(["."]).words[-1] == "../sessions.parquet"
    assert inspected(["*.parquet"]).words[-1] == "../sessions.parquet"
    assert inspected([".."]).words[-1] == "../../sessions.parquet"
    assert inspected(["../b/pandas.parquet"]).words[-1] == "sessions.parquet"


@pytest.mark.parametrize(
    ("name", "users", "count"), [("combined.log", "ip+user_agent", 4), ("w3c_extended.log", "c-ip+cs(User-Agent)", 3)]
)
def test_address_and_browser_are_offered(tmp_path: Path, name: str, users: str, count: int) -> None:
    brought(tmp_path, name)
    found = inspected([name])
    (offered,) = found.alternatives
    assert shlex.split(offered.partition(": ")[0]) == ["--user", users]
    done = run_printed(found, "--user", users, "--gap", "30m")
    assert len(done.sessions) == count


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("epoch-seconds.csv", ["seconds"]),
        ("mixed-seconds-and-ms.csv", ["1 of the sampled times are in seconds"]),
        ("device-clock-1970.csv", ["2 of the sampled times lie before 1990"]),
        ("null-words-as-users.csv", ["'NULL' stands for", "3 of 4 records have no user"]),
        ("local_time.csv", ["name no time zone", "--time-zone"]),
        ("local-time-dst-fall.csv", ["and the field is called so"]),
        ("amounts-with-currency-and-commas.csv", ["'1,50', '$2.25'"]),
        ("latin1.csv", ["not UTF-8"]),
        ("retry-same-id-other-time.ndjson", ["1 event ids come again"]),
        ("folder-mixed-endings", ["another kind (combined)"]),
    ],
)
def test_what_is_odd_is_said(tmp_path: Path, name: str, words: list[str]) -> None:
    brought(tmp_path, name)
    said = "\n".join(inspected([name]).warnings)
    assert [word for word in words if word not in said] == []


def test_nothing_odd_is_said_of_a_clean_file(tmp_path: Path) -> None:
    brought(tmp_path, "bigquery-timestamp-utc-suffix.ndjson", "segment.ndjson", "mixpanel-export.ndjson")
    assert inspected(["bigquery-timestamp-utc-suffix.ndjson"]).warnings == ()
    assert inspected(["segment.ndjson"]).warnings == ()


def test_amounts_with_a_decimal_comma(tmp_path: Path) -> None:
    brought(tmp_path, "excel_semicolon.csv")
    words = shlex.split(inspected(["excel_semicolon.csv"]).command)
    words[1] = "label"
    done = CliRunner().invoke(app, [*words[1:], "--max-future", "none"])
    assert done.exit_code == 0
    assert pq.ParquetFile("sessions.parquet").read()["value"].to_pylist() == [1234.5, 0.5]


def clicks(count: int, user: Callable[[int], str], page: Callable[[int], str]) -> bytes:
    rows = [f"{user(n)},{804_571_201_000 + 7_000 * n},{page(n)}" for n in range(count)]
    return "\n".join(("user,ts,page", *rows, "")).encode()


@pytest.mark.parametrize(
    "data",
    [
        clicks(400, lambda n: f"host{n % 9}.example.net", lambda n: f"/shuttle/{n % 5}/"),
        clicks(400, lambda n: str(219_483_890 + n % 9), lambda n: ("catalog", "cart", "product1")[n % 3]),
        clicks(400, lambda n: str(1_572_631_153 + n % 9), lambda n: "catalog"),  # ids that could be seconds
    ],
)
def test_clicks_as_in_public_data(data: bytes) -> None:
    Path("clicks.csv.gz").write_bytes(gzip.compress(data))
    found = inspected(["clicks.csv.gz"])
    assert found.words[3:-2] == ["--user", "user", "--time", "ts", "--page", "page"]
    done = run_printed(found)
    assert sum(row["event_count"] for row in done.sessions) == 400


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("days/1.csv", data)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "compress"),
    [("e.csv", bytes), ("e.csv.gz", gzip.compress), ("e.csv.bz2", bz2.compress), ("e.csv.xz", lzma.compress),
     ("e.zip", zipped), ("e.dump", gzip.compress)],
)  # fmt: skip
def test_compressed_text(name: str, compress: Callable[[bytes], bytes]) -> None:
    Path(name).write_bytes(compress(b"visitor;when\na;2026-03-02T10:00:00Z\nb;2026-03-02T10:05:00Z\n"))
    assert sessions(run_printed(inspected([name]))) == [("a", 1, AT), ("b", 1, AT + 300_000)]


def test_stdin_and_named_pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"uid": 1, "at": 1, "ts": 1772445600}\n')))
    found = inspected(["-"])
    assert found.words == ["sessionize", "batch", "-", "--user", "uid", "--time", "ts", "--time-format", "s", "-o",
                           "sessions.parquet"]  # fmt: skip


def test_files_on_a_web_server() -> None:
    table = pa.table({"visitor_id": ["a", "a"], "event_time": pa.array([AT, AT + 1], pa.timestamp("ms", "UTC"))})
    pq.write_table(table, "e.parquet")
    text = gzip.compress(b"uid,ts\na,1772445600\n")
    with WebServer({"e.parquet": Path("e.parquet").read_bytes(), "e.csv.gz": text}) as server:
        assert inspected([server.url("e.parquet")]).options == {"user": "visitor_id", "time": "event_time"}
        found = inspected([server.url("e.csv.gz")])
        assert (found.words[2], found.options["time_format"]) == (server.url("e.csv.gz"), "s")


@pytest.mark.parametrize("name", ["iceberg:a.b", "delta:x"])
def test_a_table_is_no_file(name: str) -> None:
    with pytest.raises(ConfigError, match="inspect looks at files"):
        inspected([name])


def test_orc_and_parquet() -> None:
    table = pa.table({"visitor_id": ["a", "a"], "event_time": pa.array([AT, AT + 1], pa.timestamp("ms", "UTC"))})
    pa.orc.write_table(table, "e.orc")
    pq.write_table(table, "e.parquet")
    for name in ("e.orc", "e.parquet"):
        found = inspected([name])
        assert (found.warnings, sessions(run_printed(found))) == ((), [("a", 2, AT)])


def test_snowplow_has_no_header() -> None:
    row = dict.fromkeys(DIALECTS["snowplow"].header, "")
    row |= {"event_id": "e", "domain_userid": "d1", "page_url": "https://a.example/", "event": "page_view"}
    row |= {"collector_tstamp": "2026-03-02 10:00:00.000", "derived_tstamp": "2026-03-02 10:00:00.000"}
    Path("part-0.tsv").write_text("\t".join(row.values()) + "\n", encoding="utf-8")
    found = inspected(["part-0.tsv"])
    assert found.words[3:-2] == ["--dialect", "snowplow"]
    assert sessions(run_printed(found)) == [("d1", 1, AT)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# from\n# today\nuser_id;ts\nu1;1772445600000\n", ["--comment", "#", "--user", "user_id", "--time", "ts"]),
        ("#user_id,ts\nu1,1772445600000\n", ["--user", "#user_id", "--time", "ts"]),
        ("user_id,ts,x,x\nu1,1772445600000,a,b\n", ["--user", "user_id", "--time", "ts"]),
    ],
)
def test_headers_and_comments(text: str, words: list[str]) -> None:
    Path("e.csv").write_text(text, encoding="utf-8")
    found = inspected(["e.csv"])
    assert found.words[3:-2] == words
    assert sessions(run_printed(found)) == [("u1", 1, AT)]


def test_a_date_and_a_time_of_day() -> None:
    Path("e.csv").write_text("who,date,time\na,02.03.2026,10:00:00\na,02.03.2026,10:05:00\n", encoding="utf-8")
    assert sessions(run_printed(inspected(["e.csv"]))) == [("a", 2, AT)]


def test_only_a_bounded_part_is_read() -> None:
    line = b'{"user_id": "u", "ts": 1772445600000, "pad": "%s"}\n' % (b"x" * 1_000)
    Path("e.ndjson").write_bytes(line * 20_000)
    found = inspected(["e.ndjson"])
    assert not found.whole
    assert found.read_bytes <= 5 << 20
    assert found.records < 5_000
    assert any("same user" in text for text in found.warnings)


def test_the_answer_in_json_and_on_a_terminal(tmp_path: Path) -> None:
    brought(tmp_path, "headerless_seconds.csv")
    told = CliRunner().invoke(app, ["inspect", "headerless_seconds.csv"], env={"COLUMNS": "150", "NO_COLOR": "1"})
    found = json.loads(CliRunner().invoke(app, ["inspect", "headerless_seconds.csv", "--json"]).stdout)
    assert found["command"] in told.stdout.splitlines()
    assert found["toml"] in told.stdout
    assert "without a header" in told.stdout
    assert [(each["name"], each["role"]) for each in found["columns"]] == [
        ("user", "user"), ("ts", "time"), ("page", "page"),
    ]  # fmt: skip
    assert tomllib.loads(found["toml"])["input"]["columns"] == ["user", "ts", "page"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("empty.csv", b"", "nothing to inspect"),
        ("words.ndjson", b"not json\nat all\n", "nothing to inspect"),
        ("no_time.csv", b"user,colour\na,red\nb,blue\n", "no field looks like the time"),
        ("only_time.csv", b"ts\n1772445600000\n1772445600000\n", "no field looks like the user"),
        ("note.txt", b"hello\n", "unknown file name ending"),
        ("torn.parquet", b"PAR1 and no more", "cannot be read"),
    ],
)
def test_nothing_usable_is_a_clear_error(name: str, data: bytes, message: str) -> None:
    Path(name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        inspected([name])


def test_no_control_character_reaches_the_terminal() -> None:
    name = "a b'\x1b[31m\n.csv"
    Path(name).write_bytes(b"user_id,ts,\x1b[2Jx\nu\x1b[31m,1772445600000,\x07\n")
    told = CliRunner().invoke(app, ["inspect", name], env={"NO_COLOR": "1"})
    assert told.exit_code == 0
    assert set(told.stdout) & {"\x1b", "\x07"} == set()
    assert "$'a b\\'\\x1b[31m\\x0a.csv'" in told.stdout


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=12).filter(lambda text: "\0" not in text), st.text(max_size=12))
def test_words_and_toml_stay_what_they_are(path: str, field: str) -> None:
    words = command_of([path], {"user": field})
    if all(word.isprintable() for word in words):
        assert shlex.split(shell_text(words)) == words
    assert shell_text(words).isprintable()
    if not set(field) & set(",+") and path.isprintable() and field.isprintable():
        parsed = tomllib.loads(toml_text([path], {"user": field}))
        assert (parsed["input"]["paths"], parsed["input"]["mapping"]["user"]) == ([path], field)


_CELLS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just("2026-03-02"))
_RECORDS = st.dictionaries(
    st.sampled_from(["user", "ts", "id", "e.x", "a,b", "", "\x00", "type", "value"]),
    st.recursive(
        _CELLS,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=4,
    ),
    max_size=6,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(_RECORDS, max_size=6))
def test_any_records_are_guessed_or_refused(rows: list[dict[str, Any]]) -> None:
    try:
        found = inspection([Sample(source="f", format="ndjson", rows=rows)], ["f"])
    except SessionizeError:
        return
    assert "--user" in found.words or "--dialect" in found.words
    json.dumps(found.as_dict(), default=str)
    tomllib.loads(found.toml)
