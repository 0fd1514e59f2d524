"""What a file holds in a few bytes: equal for equal content, other for any change that people make."""

import os
import random
from pathlib import Path

import pytest

from sessionize.connectors.files.fingerprint import fingerprint, same_content
from sessionize.connectors.files.source_paths import InputFile, input_files
from sessionize.errors import InputError

LARGE = 20 << 20


def file(path: Path, data: bytes | None = None) -> InputFile:
    if data is not None:
        path.write_bytes(data)
    return InputFile(str(path), "ndjson", None, path.stat().st_size)


@pytest.mark.parametrize("size", [0, 1, 1_000, 8 << 20, (8 << 20) + 1, LARGE])
def test_equal_content_is_equal_wherever_it_is(tmp_path: Path, size: int) -> None:
    data = random.Random(size).randbytes(size)
    one = fingerprint(file(tmp_path / "a.ndjson", data))
    assert one is not None
    assert len(one) == 32
    assert fingerprint(file(tmp_path / "b.csv", data)) == one
    assert fingerprint(file(tmp_path / "a.ndjson", data + b"\n")) != one


@pytest.mark.parametrize("place", [0, 1 << 20, LARGE // 2, LARGE - (2 << 20), LARGE - 1])
def test_a_run_of_other_bytes_in_a_large_file_is_seen(tmp_path: Path, place: int) -> None:
    """Between the samples lie 300 kB: another day's records differ everywhere."""
    data = bytearray(random.Random(1).randbytes(LARGE))
    one = fingerprint(file(tmp_path / "a.ndjson", bytes(data)))
    data[place : place + (400 << 10)] = bytes(min(400 << 10, LARGE - place))
    assert fingerprint(file(tmp_path / "b.ndjson", bytes(data))) != one


def test_any_byte_of_a_small_file_counts(tmp_path: Path) -> None:
    data = random.Random(2).randbytes(200_000)
    one = fingerprint(file(tmp_path / "a.ndjson", data))
    for place in random.Random(3).sample(range(len(data)), 20):
        changed = bytearray(data)
        changed[place] ^= 1
        assert fingerprint(file(tmp_path / "b.ndjson", bytes(changed))) != one


def test_a_pipe_cannot_be_read_twice(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ndjson")  # which nobody writes into
    (piped,), _ = input_files([str(tmp_path / "pipe.ndjson")])
    (stdin,), _ = input_files(["-"])
    assert (fingerprint(piped), fingerprint(stdin)) == (None, None)
    assert same_content([piped, piped, stdin]) == []


def test_a_file_that_went_away_is_an_error(tmp_path: Path) -> None:
    gone = file(tmp_path / "a.ndjson", b"x")
    (tmp_path / "a.ndjson").unlink()
    with pytest.raises(InputError):
        fingerprint(gone)


def test_twins_are_named_with_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"a": b"one", "b": b"two", "c": b"one", "d": b"three", "e": b"", "f": b"", "g": b"one"}
    files = {name: file(tmp_path / name, data) for name, data in names.items()}
    read: list[str] = []
    module = "sessionize.connectors.files.fingerprint.fingerprint"

    def noted(each: InputFile) -> str | None:
        read.append(Path(each.path).name)
        return fingerprint(each)

    monkeypatch.setattr(module, noted)
    found = same_content(files.values())
    assert found == [(files["c"], files["a"]), (files["g"], files["a"])]
    assert "d" not in read  # the only one of its size
