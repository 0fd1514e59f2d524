"""The note of which topic a state was made with."""

import errno
import os
from pathlib import Path

import pytest

from sessionize.connectors.kafka.same_topic import NOTE, check_same_topic
from sessionize.errors import OutputError, StateError, UnavailableError


def test_the_first_id_is_noted_and_the_next_ones_are_compared(tmp_path: Path) -> None:
    check_same_topic(tmp_path, "clicks", "one")
    check_same_topic(tmp_path, "clicks", "one")
    with pytest.raises(StateError, match="the Kafka topic was recreated") as caught:
        check_same_topic(tmp_path, "clicks", "two")
    assert "clicks has the id two" in str(caught.value.detail)
    assert (tmp_path / NOTE).read_text() == "one\n"


def test_servers_that_give_no_ids_are_no_reason_to_stop(tmp_path: Path) -> None:
    check_same_topic(tmp_path, "clicks", None)
    assert list(tmp_path.iterdir()) == []
    check_same_topic(tmp_path, "clicks", "one")
    check_same_topic(tmp_path, "clicks", None)
    assert (tmp_path / NOTE).read_text() == "one\n"


def test_a_note_that_lost_its_text_is_written_again(tmp_path: Path) -> None:
    (tmp_path / NOTE).touch()
    check_same_topic(tmp_path, "clicks", "one")
    assert (tmp_path / NOTE).read_text() == "one\n"


def test_a_damaged_note_is_written_again_and_one_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / NOTE).write_bytes(b"o\xffe\n")
    check_same_topic(tmp_path, "clicks", "one")
    assert (tmp_path / NOTE).read_text() == "one\n"
    (tmp_path / NOTE).unlink()
    (tmp_path / NOTE).mkdir()
    with pytest.raises(OutputError, match="cannot be saved"):
        check_same_topic(tmp_path, "clicks", "one")


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, UnavailableError), (errno.EACCES, OutputError)])
def test_a_note_that_cannot_be_written_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    def refused(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(kind, match=os.strerror(code)):
        check_same_topic(tmp_path, "clicks", "one")
    assert list(tmp_path.iterdir()) == []
