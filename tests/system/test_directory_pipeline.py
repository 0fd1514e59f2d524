"""A followed directory as the input of a pipeline: every file once, whatever is killed, broken or half written."""

import csv
import gzip
import io
import json
import logging
import os
import re
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.app.streams import run as streaming
from sessionize.app.streams.run import open_stream
from sessionize.connectors.files.file_log import FileLog
from sessionize.engine.accounting import Accounting
from sessionize.engine.stream.checkpoints import Checkpoints
from sessionize.errors import InputError
from sessionize.testing.oracle import Oracle
from sessionize.testing.runs import BackgroundRun
from sessionize.testing.tables import check_run, iceberg_rows
from tests.system.whole_runs import run_once

START_MS = 1_700_000_000_000
LONG_AGO_S = 1_600_000_000
TIMEOUT_S = 120
PIPELINE = """
name = "p"
[input]
kind = "directory"
paths = ["{folder}"]
[input.mapping]
user = "user"
time = "ts"
event_id = "id"
event_type = "type"
page = "page"
[rules]
lateness = "5m"
[output.sqlite]
path = "store.sqlite"
[output.lake]
path = "lake"
[stream]
reconcile = "none"
epoch = "200ms"
poll = "20ms"
[run]
home = "{home}"
"""

Row = dict[str, Any]


def pipeline(folder: Path, **overrides: object) -> PipelineConfig:
    (folder / "in").mkdir(exist_ok=True)
    path = folder / "p.toml"
    path.write_text(PIPELINE.format(folder=folder / "in", home=folder / "home"))
    return load_pipeline(str(path), overrides={k.replace("__", "."): v for k, v in overrides.items()}, environ={})


def rows_of(number: int, count: int = 60) -> list[Row]:
    """The rows of one file; some of them twice, some late."""
    rows = []
    for i in range(count):
        late_ms = 3_600_000 if i % 20 == 19 else 0
        time_ms = START_MS + number * 600_000 + i * 10_000 - late_ms
        rows.append({"user": f"u{i % 7}", "ts": time_ms, "id": f"{number}-{i}", "type": "view", "page": f"p{i % 3}"})
    return [*rows, rows[0]]


def lines(rows: list[Row]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def encoded(rows: list[Row], ending: str) -> bytes:
    if ending == "parquet":
        out = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), out, row_group_size=20)
        return bytes(out.getvalue())
    if ending.startswith("csv"):
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        data = text.getvalue().encode()
    else:
        data = lines(rows)
    return gzip.compress(data) if ending.endswith("gz") else data


def put(config: PipelineConfig, name: str, data: bytes, *, age_s: float | None = None) -> Path:
    """A file that appears as a whole. age_s: seconds after long ago; None: it is new."""
    path = Path(config.input_paths()[0]) / name
    hidden = path.with_name(f".{name}")
    hidden.write_bytes(data)
    if age_s is not None:
        os.utime(hidden, (LONG_AGO_S + age_s, LONG_AGO_S + age_s))
    return hidden.rename(path)


def check(config: PipelineConfig, files: dict[str, list[Row]], accounting: Accounting, *, rejected: int = 0) -> None:
    """Against the oracle, which reads the files in the order in which the pipeline took them up."""
    order = [entry.place for entry in FileLog(config.home / "state" / "p" / "files.book").entries]
    records = [line for name in order if name in files for line in lines(files[name]).splitlines()]
    oracle = Oracle.of_json(
        [records], config.dialect(), lateness_ms=config.rules.lateness_ms, watermark=config.rules.watermark
    )
    assert oracle.late
    assert set(files) <= set(order)
    oracle = replace(oracle, rejected=oracle.rejected + rejected)
    check_run(config.home, oracle, config.policy(), config.event_rules(), accounting, user=config.dialect().user_name)


class Process:
    """The pipeline as a process of its own."""

    def __init__(self, config: PipelineConfig) -> None:
        command = [
            sys.executable,
            "-c",
            "from sessionize.cli import main; main()",
            "run",
            str(config.home.parent / "p.toml"),
        ]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def wait_for_an_epoch(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if '"event": "epoch_committed"' in line:
                return
        raise AssertionError(f"the process ended with {self.process.wait(TIMEOUT_S)}")

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=TIMEOUT_S)


def test_files_that_appear_while_it_is_killed_and_started_again(tmp_path: Path) -> None:
    config = pipeline(tmp_path)
    endings = ("ndjson", "json.gz", "csv", "parquet", "csv.gz")
    files: dict[str, list[Row]] = {}
    for kill in range(3):
        running = Process(config)
        try:
            for ending in endings:
                name = f"{kill}-{ending.replace('.', '')}.{ending}"
                files[name] = rows_of(len(files))
                put(config, name, encoded(files[name], ending), age_s=len(files))
            running.wait_for_an_epoch()
        finally:
            running.kill()
    check(config, files, run_once(config))
    assert run_once(config).consumed == sum(map(len, files.values()))  # nothing is left to read


def test_a_parquet_file_that_is_still_being_written_waits_and_holds_nobody_up(tmp_path: Path) -> None:
    config = pipeline(tmp_path)
    files = {"b.ndjson": rows_of(1), "c.parquet": rows_of(2)}
    whole = encoded(files["c.parquet"], "parquet")
    with BackgroundRun(open_stream, config) as running:
        written = put(config, "c.parquet", whole[: len(whole) // 2])
        put(config, "b.ndjson", encoded(files["b.ndjson"], "ndjson"))
        running.wait_for(lambda: running.status.consumed == len(files["b.ndjson"]), "the file beside it")
        with written.open("ab") as file:
            file.write(whole[len(whole) // 2 :])
        running.wait_for(lambda: running.status.consumed == sum(map(len, files.values())), "the file when it is whole")
        assert running.status.rejected == 0
        running.end(stop=True)
    check(config, files, run_once(config))


def test_broken_files_are_set_aside_once(tmp_path: Path) -> None:
    config = pipeline(tmp_path)
    files = {"a.ndjson": rows_of(0), "t.ndjson.gz": rows_of(1, 3_000), "z.csv": rows_of(2)}
    put(config, "a.ndjson", encoded(files["a.ndjson"], "ndjson"), age_s=0)
    put(config, "nofooter.parquet", encoded(rows_of(8), "parquet")[:-20], age_s=1)
    put(config, "nogzip.csv.gz", b"neither gzip nor CSV", age_s=2)
    put(config, "otherfields.csv", b"who,when\nu1,1\n", age_s=3)
    put(config, "empty.parquet", b"", age_s=4)
    torn = encoded(files["t.ndjson.gz"], "ndjson.gz")[:-2_000]
    put(config, "t.ndjson.gz", torn, age_s=5)
    readable = zlib.decompressobj(31).decompress(torn).count(b"\n")
    files["t.ndjson.gz"] = files["t.ndjson.gz"][:readable]
    put(config, "z.csv", encoded(files["z.csv"], "csv"), age_s=6)

    class Crash(BaseException):
        pass

    def crash(step: str) -> None:
        if step == "commit":
            raise Crash

    with pytest.raises(Crash):  # everything is written, nothing is committed
        run_once(config, on_step=crash)
    accounting = run_once(config)
    check(config, files, accounting, rejected=5)
    assert accounting.rejected_by_reason == {"unreadable_file": 4, "truncated_gzip": 1}
    told = {Path(row["source"]).name: row["detail"] for row in iceberg_rows(config.home, "rejected_events")}
    assert "a Parquet file cannot be read" in told["nofooter.parquet"]
    assert "not gzipped" in told["nogzip.csv.gz"]
    assert "size is 0 bytes" in told["empty.parquet"]
    assert "no column 'user'" in told["otherfields.csv"]
    # put right, under another name, it is read
    files["mended.parquet"] = rows_of(8)
    put(config, "mended.parquet", encoded(files["mended.parquet"], "parquet"), age_s=9)
    assert run_once(config).consumed == accounting.consumed + len(files["mended.parquet"])


def test_a_file_that_grew_after_it_was_read_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = pipeline(tmp_path)
    files = {"a.ndjson": rows_of(1)}
    path = put(config, "a.ndjson", encoded(files["a.ndjson"], "ndjson"), age_s=0)
    with BackgroundRun(open_stream, config) as running, caplog.at_level(logging.WARNING, "sessionize.input.files"):
        running.wait_for(lambda: running.reports, "the file")
        with path.open("ab") as file:
            file.write(lines(rows_of(5)))
        running.wait_for(lambda: "a.ndjson changed after it was read" in caplog.text, "a warning")
        files["b.ndjson"] = rows_of(2)
        put(config, "b.ndjson", encoded(files["b.ndjson"], "ndjson"), age_s=1)
        running.wait_for_epochs(1)
        running.end(stop=True)
    check(config, files, run_once(config))
    assert caplog.text.count("changed after it was read") <= 2  # once a run


def test_an_empty_directory_and_one_with_nothing_usable(tmp_path: Path) -> None:
    config = pipeline(tmp_path)
    nothing = Oracle([], [], 0)
    accounting = run_once(config)
    check_run(config.home, nothing, config.policy(), config.event_rules(), accounting, user="user")
    put(config, "bad.ndjson", b"not json\n[1]\n{}\n", age_s=0)
    put(config, "empty.ndjson", b"", age_s=1)
    with pytest.raises(InputError, match="none of the records could be used"):
        run_once(config)
    accounting = run_once(config)  # told after all was written
    check_run(config.home, replace(nothing, rejected=3), config.policy(), config.event_rules(), accounting, user="user")
    started = time.monotonic()
    assert run_once(config).consumed == 3
    assert time.monotonic() - started < TIMEOUT_S


def test_an_epoch_ends_early_when_its_rows_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte on the disk, much more of text that is the same in each row."""
    config = pipeline(tmp_path, stream__epoch="1h")
    with gzip.open(tmp_path / "large.gz", "wb", compresslevel=1) as file:
        for n in range(400):
            file.write(lines([{"user": "u", "ts": START_MS + n * 3_600_000, "id": str(n), "page": "p" * 100_000}]))
    put(config, "large.ndjson.gz", (tmp_path / "large.gz").read_bytes(), age_s=0)
    epochs: list[int] = []
    options = replace(streaming.stream_options_of(config), epoch_bytes_max=10 << 20, once=True)
    monkeypatch.setattr(streaming, "stream_options_of", lambda _: options)
    accounting = run_once(config, on_epoch=lambda report: epochs.append(report.consumed))
    assert accounting.consumed == accounting.sessions == 400
    assert 100 <= max(epochs) < 250


def test_a_million_rejects_of_two_bytes_do_not_come_at_once(tmp_path: Path) -> None:
    config = pipeline(tmp_path, stream__epoch="1h", stream__epoch_rows=60_000)
    files = {"b.ndjson": rows_of(1)}
    put(config, "a.ndjson.gz", gzip.compress(b"x\n" * 200_000), age_s=0)
    put(config, "b.ndjson", encoded(files["b.ndjson"], "ndjson"), age_s=1)
    epochs: list[int] = []
    accounting = run_once(config, on_epoch=lambda report: epochs.append(report.consumed))
    check(config, files, accounting, rejected=200_000)
    assert max(epochs) <= 160_000  # a batch too many, and lines before it that made the batch just not full


def test_what_the_pipeline_writes_does_not_come_in_again(tmp_path: Path) -> None:
    """Home and lake lie in the folder that is followed, and the columns fit."""
    config = pipeline(tmp_path, input__paths=[str(tmp_path)], input__mapping__time="event_time_ms")
    rows = [{**row, "event_time_ms": row["ts"]} for row in rows_of(0)]
    (tmp_path / "a.ndjson").write_bytes(lines(rows))
    os.utime(tmp_path / "a.ndjson", (LONG_AGO_S, LONG_AGO_S))
    for _ in range(3):
        assert run_once(config).consumed == len(rows)
    for inside in ("home/warehouse/sessions", "home/lake"):
        within = pipeline(tmp_path, input__paths=[str(tmp_path / inside)])
        with pytest.raises(InputError, match="an output of this pipeline"):
            run_once(within)


def test_the_checkpoints_do_not_grow_with_the_files_that_were_read(tmp_path: Path) -> None:
    config = pipeline(tmp_path)
    headers = []
    for number in range(3):
        for n in range(40):
            put(config, f"{number}-{n}.ndjson", lines(rows_of(1, 1)), age_s=n)
        run_once(config)
        with Checkpoints(config.home / "state" / "p", writer="p") as checkpoints:
            found = checkpoints.recover()
            assert found is not None
            headers.append(found.header)
    assert [len(header["positions"]) for header in headers if header is not None] == [1, 1, 1]


@pytest.mark.parametrize("how", ["grows", "shrinks", "is gone", "is written anew"])
def test_a_file_that_changes_while_it_is_read_can_be_put_right(tmp_path: Path, how: str) -> None:
    config = pipeline(tmp_path, stream__epoch_rows=1_000)
    files = {"a.ndjson": [{**row, "x": "y" * 4_000} for row in rows_of(1, 5_000)], "b.ndjson": rows_of(700)}
    path = put(config, "a.ndjson", encoded(files["a.ndjson"], "ndjson"), age_s=0.123456789)
    put(config, "b.ndjson", encoded(files["b.ndjson"], "ndjson"), age_s=1)
    kept, stat = path.read_bytes(), path.stat()
    seen: list[str] = []

    def change(step: str) -> None:
        seen.append(step)
        if step != "committed" or seen.count(step) > 1:
            return
        if how == "grows":
            path.write_bytes(kept + kept[:4_000])
        elif how == "shrinks":
            os.truncate(path, len(kept) // 2)
        elif how == "is gone":
            path.unlink()
        else:
            put(config, "a.ndjson", kept, age_s=5)

    said = "removed before it was read to its end" if how == "is gone" else "changed after reading had started"
    with pytest.raises(InputError, match=said):
        run_once(config, on_step=change)
    with pytest.raises(InputError, match=said) as caught:
        run_once(config)
    assert str(path) in str(caught.value.detail)
    assert f"{len(kept):,} bytes" in str(caught.value.detail)
    path.write_bytes(kept)
    command = re.search(r"touch -d @[0-9.]+", str(caught.value.hint))
    assert command is not None
    subprocess.run([*command[0].split(), str(path)], check=True)
    assert path.stat().st_mtime_ns == stat.st_mtime_ns
    check(config, files, run_once(config))
