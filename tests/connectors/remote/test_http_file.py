"""Files on a web server: ranges, cuts, refusals, slow servers."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sessionize.connectors.http_files import HttpFile
from sessionize.errors import InputError, UnavailableError
from tests.connectors.remote.web_server import WebServer

DATA = bytes(range(256)) * 40
PAUSES = (0.0, 0.0)


@pytest.fixture
def server() -> Iterator[WebServer]:
    with WebServer({"a.bin": DATA, "empty": b""}) as running:
        yield running


def opened(server: WebServer, name: str = "a.bin", *, random: bool = False, timeout_s: float = 20) -> HttpFile:
    return HttpFile(server.url(name), random=random, pauses_s=PAUSES, timeout_s=timeout_s)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("tag", ['"1"', None])
def test_a_file_is_read_as_a_whole_by_one_request(
    server: WebServer, ranges: bool, length: bool, tag: str | None
) -> None:
    server.ranges, server.length, server.tag = ranges, length, tag
    with opened(server) as file:
        assert file.size_bytes == (len(DATA) if ranges or length else None)
        assert file.read() == DATA
        assert file.read() == b""
    assert server.asked == [(0, None)]


@pytest.mark.parametrize("ranges", [True, False])
def test_an_empty_file(server: WebServer, ranges: bool) -> None:
    server.ranges = ranges
    with opened(server, "empty") as file:
        assert (file.size_bytes, file.read()) == (0, b"")


@pytest.mark.parametrize("cuts", [1, 2, 5])
def test_a_cut_connection_goes_on_where_it_ended(server: WebServer, cuts: int) -> None:
    server.cuts, server.cut_after = cuts, 1000
    with opened(server) as file:
        assert file.read() == DATA
    assert server.asked == [(n * 1000, None) for n in range(cuts + 1)]


def test_tries_without_a_byte_are_bounded(server: WebServer) -> None:
    server.cuts, server.cut_after = 1, 500
    with opened(server) as file:
        assert file.read(400) == DATA[:400]
        server.statuses = [503] * 50
        with pytest.raises(UnavailableError, match=r"503[^$]* at byte 500 of 10,240"):
            file.read()
    assert len(server.statuses) == 50 - len(PAUSES)  # the first try was the answer that ended


def test_without_ranges_a_cut_is_an_error(server: WebServer) -> None:
    server.ranges, server.cuts = False, 1
    with opened(server) as file, pytest.raises(UnavailableError, match=r"cut at byte 1,000[^$]*download it first"):
        file.read()


@pytest.mark.parametrize(
    ("status", "what", "kind"),
    [
        (404, "a file does not exist", InputError),
        (410, "a file does not exist", InputError),
        (403, "a file may not be read", InputError),
        (401, "a file may not be read", InputError),
        (400, "a file cannot be read", InputError),
        (500, "a file cannot be read now", UnavailableError),
    ],
)
def test_refusals(server: WebServer, status: int, what: str, kind: type[Exception]) -> None:
    server.statuses = [status] * 5
    with pytest.raises(kind, match=what):
        opened(server)
    assert len(server.statuses) == (2 if kind is UnavailableError else 4)


def test_a_failing_answer_is_tried_again(server: WebServer) -> None:
    server.statuses = [503, 429]
    assert opened(server).read() == DATA


def test_a_server_that_does_not_answer(server: WebServer) -> None:
    server.stalls = True
    with opened(server, timeout_s=0.05) as file, pytest.raises(UnavailableError, match="timed out at byte 0"):
        file.read()


def test_no_server() -> None:
    with WebServer() as server:
        url = server.url("x")
    with pytest.raises(UnavailableError, match="refused"):
        HttpFile(url, pauses_s=PAUSES)


def test_a_file_that_changes_is_not_read_on(server: WebServer) -> None:
    server.cuts = 1
    with opened(server) as file:
        file.read(10)
        server.tag = '"2"'
        with pytest.raises(InputError, match="a file changed while it was read"):
            file.read()


def test_parquet_asks_for_what_it_needs(server: WebServer) -> None:
    sink = pa.BufferOutputStream()
    rows = pa.table({"a": range(200_000), "b": range(200_000), "c": range(200_000)})
    pq.write_table(rows, sink, compression="none", use_dictionary=False, row_group_size=50_000)
    server.files["t.parquet"] = sink.getvalue().to_pybytes()
    with opened(server, "t.parquet", random=True) as file:
        server.sent = 0
        found = pq.ParquetFile(pa.PythonFile(file, mode="r"), pre_buffer=True).read_row_group(1, columns=["b"])
    assert found["b"].to_pylist() == list(range(50_000, 100_000))
    assert server.sent < len(server.files["t.parquet"]) // 4


def test_an_encrypted_server_does_not_lead_elsewhere() -> None:
    from urllib.request import Request

    from sessionize.connectors.http_files import _Redirects

    with pytest.raises(InputError, match="not encrypted"):
        _Redirects().redirect_request(Request("https://a/x"), None, 302, "", {}, "http://a/x")
