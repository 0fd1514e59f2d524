"""Files in an object store and on a web server give the sessions of the same files here.

Outputs are whole, or absent.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from sessionize.app.options import FileOptions, RecordOptions
from sessionize.connectors import http_files as http_file
from sessionize.connectors import object_stores as stores
from sessionize.errors import ConfigError, InputError, OutputError, StateError, UnavailableError
from sessionize.testing.services.object_store import ObjectStoreServer
from tests.app.loads import NOW_MS
from tests.connectors.remote.web_server import WebServer

RECORDS = RecordOptions(user="uid", time="at")
ROWS = pa.table({"uid": [f"u{n % 7}" for n in range(900)], "at": [NOW_MS - n * 500_000 for n in range(900)]})


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStoreServer]:
    with ObjectStoreServer() as running:
        yield running


@pytest.fixture
def bucket(server: ObjectStoreServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[fs.FileSystem]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    stores._store.cache_clear()
    yield stores._store("s3", server.bucket)
    stores._store.cache_clear()


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    defaults = {"random": False, "timeout_s": 20, "pauses_s": (0, 0)}
    monkeypatch.setattr(http_file.HttpFile.__init__, "__kwdefaults__", defaults)
    with WebServer() as running:
        yield running


def files(folder: Path) -> dict[str, bytes]:
    """The rows in four formats."""
    folder.mkdir()
    pq.write_table(ROWS.slice(0, 300), folder / "a.parquet")
    pc.write_csv(ROWS.slice(300, 300), folder / "b.csv")
    with pa.CompressedOutputStream(str(folder / "c.csv.gz"), "gzip") as file:
        pc.write_csv(ROWS.slice(600, 200), file)
    rows = ROWS.slice(800).to_pylist()
    (folder / "d.ndjson").write_text("".join(f'{{"uid": "{row["uid"]}", "at": {row["at"]}}}\n' for row in rows))
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def ran(output: Path | str, *inputs: str) -> Any:
    options = FileOptions(inputs=list(inputs), output=str(output), records=RECORDS)
    return options.plan("sessions", now_ms=NOW_MS, warn=pytest.fail).run()


def rows_of(source: Any) -> list[str]:
    return sorted(map(repr, pq.read_table(source).to_pylist()))


@pytest.mark.parametrize("form", ["folder", "pattern", "names"])
def test_a_store_gives_the_sessions_of_the_files_in_it(bucket: fs.FileSystem, tmp_path: Path, form: str) -> None:
    data = files(tmp_path / "in")
    for name, content in data.items():
        with bucket.open_output_stream(f"lake/in/{name}") as file:
            file.write(content)
    names = [f"s3://lake/in/{name}" for name in data]
    inputs = {"folder": ["s3://lake/in"], "pattern": ["s3://lake/in/*"], "names": [*names, names[0]]}[form]
    ran(tmp_path / "here.parquet", str(tmp_path / "in"))
    ran("s3://lake/out/there.parquet", *inputs)
    with bucket.open_input_file("lake/out/there.parquet") as file:
        assert rows_of(file) == rows_of(tmp_path / "here.parquet")


def test_a_web_server_gives_the_sessions_of_its_files(web: WebServer, tmp_path: Path) -> None:
    web.files = files(tmp_path / "in")
    web.cuts, web.cut_after = 6, 2000
    ran(tmp_path / "here.parquet", str(tmp_path / "in"))
    ran(tmp_path / "there.parquet", *(web.url(name) for name in web.files))
    assert rows_of(tmp_path / "there.parquet") == rows_of(tmp_path / "here.parquet")


def test_a_store_that_fails_in_the_middle_of_a_table_is_no_damaged_file(bucket: fs.FileSystem, tmp_path: Path) -> None:
    from sessionize.connectors.files.places import transport_failure

    with bucket.open_output_stream("lake/gone.parquet") as file:
        file.write(files(tmp_path / "in")["a.parquet"])
    opened = bucket.open_input_file("lake/gone.parquet")
    bucket.delete_file("lake/gone.parquet")
    with pytest.raises(OSError) as caught:  # noqa: PT011 - what Arrow says of it is the point
        opened.read(100)
    assert isinstance(transport_failure("s3://lake/gone.parquet", caught.value), InputError | UnavailableError)
    assert transport_failure(str(tmp_path / "gone.parquet"), caught.value) is None


@pytest.mark.parametrize("name", ["a.parquet", "b.csv", "c.csv.gz", "d.ndjson"])
def test_a_server_that_fails_in_the_middle_leaves_nothing(web: WebServer, tmp_path: Path, name: str) -> None:
    web.files = files(tmp_path / "in")
    web.cuts, web.cut_after = 1000, 0
    with pytest.raises((InputError, UnavailableError)):
        ran(tmp_path / "out.parquet", web.url(name))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_a_file_in_a_store_is_loaded_once_whatever_its_place(bucket: fs.FileSystem, tmp_path: Path) -> None:
    content = files(tmp_path / "in")["a.parquet"]
    with bucket.open_output_stream("lake/once/a.parquet") as file:
        file.write(content)

    def load(name: str) -> None:
        options = FileOptions(inputs=[name], output="iceberg:db.s", records=RECORDS, home=tmp_path / "home")
        options.plan("sessions", now_ms=NOW_MS, warn=pytest.fail).run()

    load("s3://lake/once/a.parquet")
    for name in ("s3://lake/once/a.parquet", str(tmp_path / "in" / "a.parquet")):
        with pytest.raises(StateError, match="files are in the tables already"):
            load(name)


def test_a_run_that_fails_leaves_nothing_in_the_store(bucket: fs.FileSystem, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("who,at\nu,1\n")
    with pytest.raises(InputError, match="no column for the user"):
        ran("s3://lake/failed.parquet", str(tmp_path / "in.csv"))
    assert bucket.get_file_info("lake/failed.parquet").type == fs.FileType.NotFound


def test_outputs_that_are_refused_before_anything_is_read(bucket: fs.FileSystem, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(f"uid,at\nu,{NOW_MS}\n")
    with bucket.open_output_stream("lake/same/x.csv") as file:
        file.write(b"uid,at\nu,1\n")
    for output, what in [
        ("s3://nobucket/x.parquet", "no such bucket"),
        ("s3://lake/x.xls", "unknown output format"),
        ("https://host/x.parquet", "on a web server"),
        ("s3://a:hunter2@lake/x.parquet", "a secret in it"),
    ]:
        with pytest.raises((ConfigError, OutputError), match=what) as caught:
            ran(output, str(tmp_path / "in.csv"))
        assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match="would overwrite an input"):
        ran("s3://lake/same/y.csv", "s3://lake/same")
