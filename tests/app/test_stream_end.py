"""The end of a stream is reported when everything has closed, and only where that succeeded."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sessionize.app.build import STREAM_SOURCES
from sessionize.app.config.pipeline import PipelineConfig, load_pipeline
from sessionize.app.streams import run
from sessionize.app.streams.run import open_stream
from sessionize.app.streams.startup import StoppedError
from sessionize.engine.run_events import StreamStopped
from sessionize.engine.stream.checkpoints import Checkpoints
from sessionize.errors import OutputError, UnavailableError
from sessionize.testing.observers import RecordedEvents

PIPELINE = """
name = "ended"
[input]
kind = "directory"
paths = ["{inbox}"]
dialect = "clickstream"
[run]
once = true
home = "{home}"
"""


@pytest.fixture
def config(tmp_path: Path) -> PipelineConfig:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    event = {"uuid": "u", "event_id": "1", "event_timestamp": "1700000000000"}
    (inbox / "events.jsonl").write_text(json.dumps(event))
    path = tmp_path / "ended.toml"
    path.write_text(PIPELINE.format(inbox=inbox, home=tmp_path / "home"))
    return load_pipeline(str(path), environ={})


def on_close(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """The state, which is closed last, does this too."""

    class Closing(Checkpoints):
        def close(self) -> None:
            super().close()
            act()

    monkeypatch.setattr(run, "Checkpoints", Closing)


def refuse() -> None:
    raise OutputError("the folder is gone")


def test_it_is_reported_when_everything_has_closed(config: PipelineConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    events, while_closing = RecordedEvents(), list[list[StreamStopped]]()
    on_close(monkeypatch, lambda: while_closing.append(events.of(StreamStopped)))
    with open_stream(config, stopping=threading.Event(), observer=events) as opened:
        accounting = opened.run()
    assert while_closing == [[]]
    assert [event.accounting for event in events.of(StreamStopped)] == [accounting]
    assert accounting.consumed == 1


def test_an_error_while_it_closes_is_no_end_without_an_error(
    config: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = RecordedEvents()
    on_close(monkeypatch, refuse)
    with (
        pytest.raises(OutputError, match="the folder is gone"),
        open_stream(config, stopping=threading.Event(), observer=events) as opened,
    ):
        opened.run()
    assert events.names() == ["stream_started", "epoch_committed", "reconcile_finished"]


@pytest.mark.parametrize("closes", [True, False])
def test_a_stop_while_it_opens_is_reported_too(
    config: PipelineConfig, monkeypatch: pytest.MonkeyPatch, closes: bool
) -> None:
    events, stopping = RecordedEvents(), threading.Event()
    while_closing: list[list[StreamStopped]] = []

    def refuses(*_: Any) -> None:
        stopping.set()
        raise UnavailableError("refused")

    def closing() -> None:
        while_closing.append(events.of(StreamStopped))
        if not closes:
            refuse()

    monkeypatch.setitem(STREAM_SOURCES, "directory", refuses)
    on_close(monkeypatch, closing)
    with (
        pytest.raises(StoppedError if closes else OutputError),
        open_stream(config, stopping=stopping, observer=events),
    ):
        pass
    reason = "stopped while waiting for directory; nothing was read or written"
    assert while_closing == [[]]
    assert events.of(StreamStopped) == ([StreamStopped(reason=reason)] if closes else [])
