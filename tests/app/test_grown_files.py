"""Files that have grown since they were loaded: what is in the tables is not doubled, whatever the way to name them."""

import gzip
import shutil
from pathlib import Path

import pytest

from sessionize.app.files import FilePlan
from sessionize.errors import StateError
from sessionize.formats.dialects import dialect_named
from sessionize.session.policy import Policy
from sessionize.session.rules import Rules
from tests.app.loads import ONCE, KilledError, counts, killed_after, pipeline, records, run, two_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As two_files."""
    return two_files(tmp_path)


def append(path: Path, data: bytes | None = None) -> None:
    with open(path, "ab") as file:
        file.write(records("new", 1).encode() if data is None else data)


def test_a_file_that_grew_is_refused_and_says_by_how_much(folder: Path) -> None:
    run(pipeline(folder))
    path = folder / "in" / "ann.ndjson"
    size = path.stat().st_size
    append(path)
    more = path.stat().st_size - size
    for known in ("refuse", "skip"):
        with pytest.raises(StateError) as caught:
            run(pipeline(folder, "in/ann.ndjson", **{"input.known_files": known}))
        text = str(caught.value)
        assert "files have grown since they were loaded" in text
        assert f"the first {size:,} bytes of {path} are in the tables (loaded 20" in text
        assert f"the {more:,} bytes after them are not" in text
        assert "--again loads all of the files once more, --set output.mode=overwrite replaces" in text
    assert counts(folder) == ONCE
    run(pipeline(folder, "in/ann.ndjson", **{"input.known_files": "again"}))
    assert counts(folder) == (4, 10, 4)
    with pytest.raises(StateError, match="files are in the tables already"):
        run(pipeline(folder, "in/ann.ndjson"))
    append(path)  # and once more: the newest load counts
    with pytest.raises(StateError, match=f"the first {size + more:,} bytes of"):
        run(pipeline(folder, "in/ann.ndjson"))


def test_overwrite_replaces_a_file_that_grew(folder: Path) -> None:
    run(pipeline(folder))
    append(folder / "in" / "ann.ndjson")
    run(pipeline(folder, **{"output.mode": "overwrite"}))
    assert counts(folder) == (3, 7, 3)


@pytest.mark.parametrize("name", ["in/../in/ann.ndjson", "in/*.ndjson", "link.ndjson", "elsewhere/ann.ndjson"])
def test_it_is_the_file_that_counts_and_not_how_it_is_named(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "link.ndjson").symlink_to("in/ann.ndjson")
    run(pipeline(folder))
    if name == "link.ndjson":
        run(pipeline(folder, name, **{"input.known_files": "again"}))
    append(folder / "in" / "ann.ndjson")
    (folder / "elsewhere").mkdir()
    shutil.copy(folder / "in" / "ann.ndjson", folder / "elsewhere")
    with pytest.raises(StateError, match="files have grown"):
        run(pipeline(folder, name))


def test_other_content_under_a_known_name_is_new(folder: Path) -> None:
    run(pipeline(folder))
    path = folder / "in" / "ann.ndjson"
    path.write_text(records("new", 5))
    assert path.stat().st_size > (folder / "in" / "bob.ndjson").stat().st_size
    run(pipeline(folder, "in/ann.ndjson"))
    assert counts(folder) == (3, 11, 3)


def test_a_file_without_a_record_may_grow(folder: Path) -> None:
    (folder / "t.csv").write_text("user_id,timestamp,url\n")
    (folder / "t.ndjson").write_text("\n\n")
    names = ("t.csv", "t.ndjson")
    run(pipeline(folder, *names))
    append(folder / "t.csv", b"ann,1700000000000,/a\n")
    append(folder / "t.ndjson", b'{"user_id": "bob", "timestamp": 1700000000000}\n')
    run(pipeline(folder, *names))
    assert counts(folder) == (2, 2, 0)
    append(folder / "t.csv", b"cid,1700000000000,/a\n")
    with pytest.raises(StateError, match="files have grown"):
        run(pipeline(folder, "t.csv"))


def test_large_and_gzipped_files(folder: Path) -> None:
    """Of a large file only places are compared, as for its fingerprint."""
    event = b'{"user_id": "ann", "timestamp": 1700000000000, "url": "%s"}\n'
    (folder / "large.ndjson").write_bytes(event % (b"x" * 1000) * 9000)
    (folder / "small.ndjson.gz").write_bytes(gzip.compress(event % b"x"))
    for name in ("large.ndjson", "small.ndjson.gz"):
        run(pipeline(folder, name))
        append(folder / name, gzip.compress(event % b"y") if name.endswith("gz") else event % b"y")
        with pytest.raises(StateError, match="files have grown"):
            run(pipeline(folder, name))
        whole = bytearray((folder / name).read_bytes())
        whole[10] ^= 1
        (folder / "other").mkdir(exist_ok=True)
        (folder / "other" / name).write_bytes(whole)
        if name == "large.ndjson":
            run(pipeline(folder, f"other/{name}"))


@pytest.mark.parametrize("commits", [1, 2, 3])
def test_a_file_that_grew_after_its_load_was_killed_is_loaded_once(
    folder: Path, commits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the load that was cut off has left is taken out, as for the same content."""
    with monkeypatch.context() as broken:
        killed_after(broken, commits)
        with pytest.raises(KilledError):
            run(pipeline(folder, "in/ann.ndjson"))
    append(folder / "in" / "ann.ndjson")
    with monkeypatch.context() as broken:
        killed_after(broken, commits)
        with pytest.raises(KilledError):
            run(pipeline(folder, "in/ann.ndjson"))
    append(folder / "in" / "ann.ndjson")
    run(pipeline(folder, "in/ann.ndjson"))
    assert counts(folder) == (2, 5, 3)


@pytest.mark.parametrize("what", ["sessions", "labels"])
def test_batch_and_label_refuse_a_file_that_grew(folder: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)

    def load() -> None:
        FilePlan(
            what="sessions" if what == "sessions" else "labels",
            inputs=("in/ann.ndjson",),
            output="iceberg:mine.t",
            dialect=dialect_named("clicks"),
            policy=Policy(),
            rules=Rules(),
            home=folder / "home",
        ).open().run()

    load()
    append(folder / "in" / "ann.ndjson")
    with pytest.raises(StateError, match=r"(?s)files have grown.*--overwrite replaces"):
        load()
    (folder / "in" / "ann.ndjson").write_text(records("ann", 2))
    load()  # less than was loaded, and so another file
