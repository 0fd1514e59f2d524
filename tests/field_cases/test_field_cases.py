"""Every input that people bring, with the options that they name: the right sessions come out.

data/ holds the inputs; test_inspect.py runs the commands that `inspect` prints for them.
"""

import bz2
import gzip
import io
import lzma
import os
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

import sessionize
from tests.field_cases.runs import brought, ran

AT = 1_772_445_600_000  # 2026-03-02 10:00 UTC
USER_AND_TIME = "--user user_id --time timestamp"
AMOUNTS = f"{USER_AND_TIME} --page page"
Sessions = list[tuple[str, int, int]]
SHOP: Sessions = [("u1", 1, AT + 3_600_000), ("u1", 2, AT)]
SEVEN: Sessions = [("7", 2, AT)]


@pytest.fixture(autouse=True)
def _in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sessions(name: str, words: str) -> tuple[Sessions, list[tuple[str, int]]]:
    done = ran("batch", name, *words.split("|"), "-o", "sessions.parquet")
    assert done.code == 0, done.err
    made = [(next(iter(row.values())), row["event_count"], row["session_start_time_ms"]) for row in done.sessions]
    return sorted(made), sorted((row["reason"], row["line_number"]) for row in done.rejected)


@pytest.mark.parametrize(
    ("name", "words", "expected", "rejected"),
    [
        (
            "combined.log",
            "--user ip+user_agent --time time",
            [
                ("192.0.2.7|Browser/9 (desk \"top\")", 1, 1_475_479_291_000),
                ("192.0.2.7|Player/1.0 (iPhone; en_us)", 2, 1_475_479_211_000),
                ("192.0.2.9|Browser/9", 1, 1_475_479_371_000),
                ("2001:db8::1|", 1, 1_475_481_599_000),
            ],
            [("no_match", 6)],
        ),
        (
            "w3c_extended.log",
            "--dialect w3c --user c-ip+cs(User-Agent) --gap 30m",
            [
                ("198.51.100.4|Browser/5.0 (Windows; en)", 1, 1_285_116_000_000),
                ("198.51.100.4|Browser/5.0 (Windows; en)", 2, 1_285_113_599_000),
                ("198.51.100.4|Robot/1", 1, 1_285_113_720_000),
            ],
            [],
        ),
        (
            "ga4_export.ndjson",
            "--dialect ga4 --user user_pseudo_id --split-on-change utm_source --gap 3h",
            [("12.34", 1, 1_714_523_000_000), ("12.34", 2, 1_714_521_600_123)],
            [],
        ),
        (
            "segment.ndjson",
            "--user userId,anonymousId --time timestamp",
            [("a1", 1, 1_714_557_600_000), ("a2", 1, 1_714_557_720_000), ("u1", 2, 1_714_557_660_000)],
            [],
        ),
        (
            "excel_semicolon.csv",
            "--user user --time when --time-format|%d.%m.%Y %H:%M",
            [("A", 2, 1_610_532_000_000)],
            [],
        ),
        (
            "headerless_seconds.csv",
            "--columns user,ts,page --user user --time ts --time-format s",
            [("A", 2, 1_610_532_000_000)],
            [],
        ),
        (  # 02:30 on 31 October is the earlier of two, so it lies 45 minutes after 01:45; 02:30 in March is shifted
            "local_time.csv",
            "--user user --time when --time-zone Europe/Berlin --gap 50m",
            [("A", 2, 1_635_637_500_000)],
            [("invalid_time", 4)],
        ),
        ("array.json", "--user user --time ts", [("A", 2, 1_610_532_000_000)], []),
        ("utf16.csv", "--user user --time ts", [("Änne", 1, 1_610_532_000_000)], []),
        (
            "segment-track-page-identify.jsonl",
            "--user userId,anonymousId --time timestamp",
            [("anon-1", 2, AT), ("anon-2", 1, AT + 1_260_000), ("u-77", 3, AT + 360_000)],
            [],
        ),
        ("float-and-int-ids.csv", USER_AND_TIME, SEVEN, []),
        ("pandas-to_csv.csv", USER_AND_TIME, SEVEN, [("missing_user", 4)]),
        ("pandas.parquet", USER_AND_TIME, SEVEN, [("missing_user", 3)]),
        ("double_user.parquet", USER_AND_TIME, SEVEN, [("missing_user", 3)]),
        (
            "null-words-as-users.csv",
            "--user user_id --time timestamp --null-values NULL,\\N",
            [("u1", 1, AT + 180_000)],
            [("missing_user", 2), ("missing_user", 3), ("missing_user", 4)],
        ),
        ("bigquery-timestamp-utc-suffix.ndjson", "--user user_id --time ts", [("7", 3, AT)], []),
        (
            "local-time-dst-spring.csv",
            "--user user_id --time local_time --time-zone America/New_York",
            [("u1", 2, 1_772_952_600_000)],
            [],
        ),
        (
            "local-time-dst-fall.csv",
            "--user user_id --time local_time --time-zone America/New_York",
            [("u1", 1, 1_793_512_500_000), ("u1", 3, 1_793_508_600_000)],  # 01:05 is the earlier of two
            [],
        ),
        ("epoch-seconds.csv", f"{USER_AND_TIME} --time-format s", [("u1", 2, AT)], []),
        (
            "retry-same-id-other-time.ndjson",
            "--user anonymousId --time timestamp --event-id messageId --event-type event",
            [("a", 3, AT)],  # the copy with another time counts, and that is said
            [],
        ),
        ("amounts-with-currency-and-commas.csv", f"{USER_AND_TIME} --value amount", [("u1", 4, AT)], []),
        ("gzip-without-gz-ending.csv", AMOUNTS, SHOP, []),
        ("events.csv.zst", AMOUNTS, SHOP, []),
        (
            "json-array-pretty.json",
            "--dialect segment",
            [("anon-1", 2, AT), ("anon-2", 1, AT + 1_260_000), ("u-77", 3, AT + 360_000)],
            [],
        ),
        (
            "headerless-3-columns.csv",
            "--columns user,ts,page --user user --time ts",
            [("u1", 1, AT + 4_300_000), ("u1", 2, AT)],
            [],
        ),
        ("excel-unicode-text-utf16-tab.csv", AMOUNTS, SHOP, []),
        ("latin1.csv", f"{AMOUNTS} --encoding latin-1", SHOP, []),
        ("excel-date-de.csv", f"{USER_AND_TIME} --time-format|%d.%m.%Y %H:%M", [("u1", 2, AT)], []),
        (
            "mixpanel-export.ndjson",
            "--user properties.distinct_id --time properties.time --time-format s",
            [("d-1", 3, AT)],
            [],
        ),
        ("cloudevents.ndjson", "--user data.user.id --time time", [("u1", 3, AT)], []),
        (
            "nginx-json.ndjson",
            "--user remote_addr --time msec --time-format s",
            [("203.0.113.7", 2, AT - 3_599_877)],
            [],
        ),
        (
            "ga4-bigquery-export-us.jsonl",
            "--user user_pseudo_id --time event_timestamp --time-format us",
            [("11.22", 1, 1_772_451_360_000), ("11.22", 3, AT + 123)],
            [("missing_user", 4)],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "--" not in value else "",
)  # fmt: skip
def test_the_sessions_are_right(
    tmp_path: Path, name: str, words: str, expected: Sessions, rejected: list[tuple[str, int]]
) -> None:
    brought(tmp_path, name)
    if "|" not in words:
        words = words.replace(" ", "|")
    else:
        before, last = words.split("|")
        words = f"{before.replace(' ', '|')}|{last}"
    assert sessions(name, words) == (sorted(expected), rejected)


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("epoch-seconds.csv", USER_AND_TIME, "lie before 1990"),
        ("mixed-seconds-and-ms.csv", "--user user_id --time ts", "1 of 3 events lie before 1990"),
        ("device-clock-1970.csv", "--user user_id --time ts", "2 of 4 events lie before 1990"),
        ("local_time.csv", "--user user --time when", "3 event times name no time zone"),
        ("null-words-as-users.csv", USER_AND_TIME, "users are called like a missing value"),
        (
            "retry-same-id-other-time.ndjson",
            "--user anonymousId --time timestamp --event-id messageId",
            "1 of the first 4 events",
        ),
        ("segment.ndjson", "--user anonymousId --time timestamp --page contxt.page", "no record has a value for page"),
        (
            "retry-same-id-other-time.ndjson",
            "--user anonymousId --time timestamp --event-type event --value revenue",
            "none of their types counts as a conversion",
        ),
        ("folder-mixed-endings", USER_AND_TIME, "access.log"),
    ],
)
def test_what_could_be_wrong_is_said(tmp_path: Path, name: str, words: str, said: str) -> None:
    brought(tmp_path, name)
    done = ran("batch", name, *words.split(), "-o", "sessions.parquet")
    assert (done.code, said in done.err) == (0, True), done.err


def test_a_folder_is_read_as_a_whole(tmp_path: Path) -> None:
    """Four files of five hold the same; the fifth is a log without these columns."""
    brought(tmp_path, "folder-mixed-endings")
    assert sessions("folder-mixed-endings", "--user|user_id|--time|timestamp")[0] == [
        ("u1", 4, AT + 3_600_000),
        ("u1", 8, AT),
    ]


def test_conversions_have_their_revenue(tmp_path: Path) -> None:
    brought(tmp_path, "ga4_export.ndjson", "segment.ndjson")
    words = {"ga4_export.ndjson": ("ga4", "u9"), "segment.ndjson": ("segment", "u1")}
    for name, (dialect, user) in words.items():
        done = ran("batch", name, "--dialect", dialect, "-o", "sessions.parquet")
        revenue = {row[next(iter(row))]: row["revenue"] for row in done.sessions if row["revenue"]}
        assert revenue == {user: 12.5}


@pytest.mark.parametrize(
    ("name", "user"),
    [("user-column-named-session_id.ndjson", "session_id"), ("user-column-named-event_count.csv", "event_count")],
)
def test_no_user_column_is_overwritten(tmp_path: Path, name: str, user: str) -> None:
    brought(tmp_path, name)
    with pytest.raises(sessionize.errors.ConfigError, match="two columns"):
        ran("batch", name, "--user", user, "--time", "ts", "-o", "sessions.parquet")
    with pytest.raises(sessionize.errors.ConfigError, match=r"column"):
        sessionize.sessions(pa.table({user: ["a"], "ts": [AT]}), user=user, time="ts")


def test_keys_in_paths_are_columns(tmp_path: Path) -> None:
    (tmp_path / "user_id=u1").mkdir()
    brought(tmp_path, "hive-user_id=u1.parquet")
    (tmp_path / "hive-user_id=u1.parquet").rename(tmp_path / "user_id=u1" / "a.parquet")
    assert sessions("user_id=u1", "--user|user_id|--time|timestamp")[0] == SHOP


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("days/1", data)
    return file.getvalue()


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zipped, zstd, bytes])
@pytest.mark.parametrize("name", ["local_time.csv", "array.json", "combined.log", "utf16.csv"])
def test_any_compression_gives_the_same_rows(tmp_path: Path, name: str, compress: Callable[[bytes], bytes]) -> None:
    words = {
        "local_time.csv": "--user|user|--time|when",
        "array.json": "--user|user|--time|ts",
        "combined.log": "--dialect|combined",
        "utf16.csv": "--user|user|--time|ts",
    }[name]
    brought(tmp_path, name)
    plain = sessions(name, words)
    other = Path(f"x{Path(name).suffix}")  # the content tells the compression
    other.write_bytes(compress(Path(name).read_bytes()))
    assert sessions(str(other), words) == plain


def test_a_named_pipe_is_read_as_a_stream(tmp_path: Path) -> None:
    brought(tmp_path, "epoch-seconds.csv")
    os.mkfifo("pipe")
    data = Path("epoch-seconds.csv").read_bytes()
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(data))
    writer.start()
    found = sessions("pipe", "--user|user_id|--time|timestamp|--time-format|s")
    writer.join()
    assert found == ([("u1", 2, AT)], [])
