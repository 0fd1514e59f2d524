"""Tables as they are drawn: without rows, and where the terminal is narrow."""

import pyarrow as pa
import pytest

from sessionize.cli.output import print_json, print_rows, print_table


@pytest.fixture
def narrow(monkeypatch):
    def width(columns):
        monkeypatch.setenv("COLUMNS", str(columns))

    return width


def test_no_rows_are_said_with_the_columns(capsys, narrow):
    narrow(60)
    names = [f"column_{n}" for n in range(17)]
    print_rows("sessions", pa.table({name: pa.array([], pa.int64()) for name in names}))
    out = capsys.readouterr().out
    title, *lines = [line.rstrip() for line in out.splitlines()]
    assert title == "sessions"
    assert " ".join(lines) == f"no rows; columns: {', '.join(names)}"
    assert max(map(len, lines)) <= 60


def test_a_table_whose_words_do_not_fit_has_a_field_a_line(capsys, narrow):
    rows = [("user_sessions", "1,234,567", "12 → 3"), ("late_events", "1", "1 → 1")]
    names = ["table", "rows", "files"]
    for width, is_table in ((80, True), (40, True), (20, False)):
        narrow(width)
        print_table("", names, rows, lines=False)
        lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        assert (lines[0].split() == names) is is_table
        assert max(map(len, lines)) <= width
        assert "user_sessions" in " ".join(lines)


def test_text_that_can_wrap_stays_in_its_column(capsys, narrow):
    narrow(40)
    print_table("", ["name", "what it is"], [("preset", "a sentence of many words that takes several lines")])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 40
    assert sum("│" in line for line in lines) > 1


def test_sums_stand_to_the_right(capsys, narrow):
    narrow(80)
    wide = pa.array([10**20, 1], pa.decimal128(38, 0))
    print_rows("", pa.table({"total": wide}))
    assert "│                     1 │" in capsys.readouterr().out


def test_what_is_no_number_is_null_in_json(capsys):
    print_json({"a": float("nan"), "b": [float("inf"), 1.5], "é": "ü"})
    assert capsys.readouterr().out == '{"a": null, "b": [null, 1.5], "é": "ü"}\n'


def test_a_long_word_is_folded_in_its_column(capsys, narrow):
    narrow(60)
    rows = [("run.home", '"./a/' + "x" * 60 + '"', "default"), ("name", '"p"', "preset")]
    print_table("", ["key", "value", "from"], rows)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
    assert all(line[0] in "┏┃┡│└" for line in lines)
    assert "".join(line.split("│")[2].strip() for line in lines if "x" in line) == rows[0][1]
