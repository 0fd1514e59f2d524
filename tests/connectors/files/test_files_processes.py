"""Files read in several processes: the same batches as in one, whatever ends, and nothing left behind."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest

from sessionize.connectors.files import source_workers
from sessionize.connectors.files.source import FileSource
from sessionize.connectors.files.source_paths import input_files
from sessionize.connectors.files.source_ranges import Done, decode, divide
from sessionize.connectors.files.source_worker import DecoderSpec
from sessionize.errors import InputError
from tests.connectors.files.reading import OWN, lines, read, times


class TestProcesses:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        parts = []
        for n in range(40):
            parts.append(lines(25, start=25 * n))
            parts.append(
                [b"broken\n", b"\n", b'{"u":"x"}\r\n', b"\xff\n", b'{"u":"long","t":1,"p":"' + b"x" * 5_000][n % 5]
            )
            if n % 5 == 4:
                parts.append(b'"}\n')
        path = tmp_path / "a.ndjson"
        path.write_bytes(b"\xef\xbb\xbf" + b"".join(parts) + b'{"u":"last","t":7}')
        return path

    @pytest.mark.parametrize("extras", [False, True])
    def test_two_processes_give_what_one_gives(self, path: Path, extras: bool) -> None:
        one, two, three = (read(path, batch_bytes=2_000, processes=n, extras=extras) for n in (1, 2, 3))
        assert len(one[2]) > 15
        assert [b.events.equals(a.events) for a, b in zip(one[2], two[2], strict=True)] == [True] * len(one[2])
        for other in (two, three):
            assert other[0].equals(one[0])
            assert other[1].equals(one[1])
            assert [b.read_bytes for b in other[2]] == [b.read_bytes for b in one[2]]
        numbers = {line: n for n, line in enumerate(path.read_bytes().split(b"\n"), start=1)}
        for record in one[1].to_pylist():
            assert path.read_bytes().split(b"\n")[record["line_number"] - 1] == record["raw"]
        assert one[0].num_rows + one[1].num_rows == sum(map(bool, path.read_bytes().split(b"\n")))
        assert len(numbers) > 1000

    def test_a_byte_order_mark_where_a_range_begins_is_a_broken_line(self, tmp_path: Path) -> None:
        line = b'{"u":"a","t":1,"p":"' + b"x" * 70 + b'"}\n'
        marked = b"\xef\xbb\xbf" + line[:-6] + line[-3:]
        assert len(marked) == len(line)
        (tmp_path / "a.ndjson").write_bytes(line + marked + line)
        events, rejected, _ = read(tmp_path / "a.ndjson", batch_bytes=len(line), processes=1)
        assert events.num_rows == 2
        assert rejected["line_number"].to_pylist() == [2]

    def test_ranges_and_a_stream_give_the_same(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        in_ranges = read(path, batch_bytes=2_000, processes=1)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))
        as_stream = read("-")
        assert as_stream[0].to_pylist() == in_ranges[0].to_pylist()
        assert as_stream[1].drop_columns(["source"]).equals(in_ranges[1].drop_columns(["source"]))

    def test_many_small_files_share_batches(self, tmp_path: Path) -> None:
        for n in range(30):
            (tmp_path / f"{n:02}.ndjson").write_bytes(lines(10, start=10 * n) + b"bad\n")
        one, two = read(tmp_path, batch_bytes=2_000, processes=1), read(tmp_path, batch_bytes=2_000, processes=2)
        assert two[0].equals(one[0])
        assert two[1].equals(one[1])
        assert times(one[0]) == list(range(300))
        assert one[1]["line_number"].to_pylist() == [11] * 30
        assert 3 < len(one[2]) < 15

    def test_a_large_file_behind_small_ones(self, path: Path) -> None:
        small = path.with_name("0.ndjson")
        small.write_bytes(lines(5) + b"bad\n")
        _, rejected, _ = read([small, path, path.with_name("0.ndjson")], batch_bytes=2_000, processes=2)
        alone = read(path, batch_bytes=2_000, processes=1)[1]
        assert rejected.slice(1).equals(alone)

    def test_a_worker_gives_what_this_process_would(self, path: Path) -> None:
        work = divide(input_files([path])[0], range_bytes=2_000)[:5]
        spec = DecoderSpec(dialect=OWN, columns=None, extras=True, latest_ms=500)
        done: dict[int, Done | None] = {}
        with source_workers._Pool(spec, 1) as team:
            given = 0
            while len(done) < len(work):
                given = team.hand_out(work, given, len(work))
                assert given <= len(done) + 2
                done |= team.results(wait=True)
        for number, piece in enumerate(work):
            result, own = done[number], decode(piece, spec.decoder())
            assert result is not None
            assert result.decoded.events.equals(own.decoded.events)
            assert result.decoded.events.schema == own.decoded.events.schema
            assert result.decoded.rejected.equals(own.decoded.rejected)
            assert result.line_count == own.line_count

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
    def test_a_worker_that_dies_is_not_missed(self, path: Path, how: signal.Signals) -> None:
        expected = read(path, batch_bytes=2_000, processes=1)
        source = FileSource(path, dialect=OWN, batch_bytes=2_000, processes=3)
        batches = source.batches()
        found = [next(batches)]
        for process in children():
            os.kill(process, how)
        found += list(batches)
        assert pa.concat_tables([b.events for b in found]).equals(expected[0])
        assert pa.concat_tables([b.rejected for b in found]).equals(expected[1])

    def test_a_worker_that_cannot_start_is_not_missed(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = read(path, batch_bytes=2_000, processes=1)
        for executable in ["/nonexistent/python", "/bin/true", ""]:
            monkeypatch.setattr(sys, "executable", executable)
            assert read(path, batch_bytes=2_000, processes=2)[0].equals(expected[0])

    def test_nothing_is_left_behind(self, path: Path) -> None:
        before = open_files()
        batches = FileSource(path, dialect=OWN, batch_bytes=2_000, processes=3).batches()
        next(batches)
        assert len(children()) == 2
        batches.close()  # type: ignore[attr-defined]
        assert children() == []
        list(FileSource(path, dialect=OWN, batch_bytes=2_000, processes=3).batches())
        assert children() == []
        assert open_files() == before

    def test_the_error_of_a_worker_is_raised_here(self, path: Path) -> None:
        batches = FileSource(path, dialect=OWN, batch_bytes=2_000, processes=2).batches()
        next(batches)
        path.unlink()
        with pytest.raises(InputError, match="cannot be read"):
            list(batches)
        assert children() == []


SCRIPT = """
import sys, time
from sessionize.connectors.files import source
from sessionize.formats.dialects import Dialect
if __name__ == "__main__":
    dialect = Dialect.mapping(user="u", time="t")
    batches = source.FileSource(sys.argv[1], dialect=dialect, batch_bytes=2_000, processes=3).batches()
    next(batches)
    print("reading", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_parent_leaves_no_children(tmp_path: Path, how: signal.Signals) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(lines(2_000))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, str(script), str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"reading\n"
        workers = children(parent.pid)
        assert len(workers) == 2
        parent.send_signal(how)
        parent.wait()
    wait_for(lambda: not any(is_running(worker) for worker in workers))


def children(parent: int | None = None) -> list[int]:
    """The processes that this one (or another) has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == (parent or os.getpid()) and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def wait_for(condition) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
