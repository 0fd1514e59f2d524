"""The log of a stream hears what sources warn of, as lines of its own, as long as the run lasts."""

import io
import json
import logging

from sessionize.app.logs import StreamLog


def test_warnings_of_sources_are_lines_of_the_log() -> None:
    written = io.StringIO()
    log = StreamLog("web", level="WARNING", to=written)
    source = logging.getLogger("sessionize.input.kafka")
    with log.listening():
        source.warning("%s: records from offset %d on are gone", "t[0]", 7)
    source.error("nobody listens any more")
    (line,) = map(json.loads, written.getvalue().splitlines())
    assert (line["event"], line["level"], line["problem"]) == (
        "input",
        "warning",
        "t[0]: records from offset 7 on are gone",
    )
