"""Commands within this process, and what their answers look like."""

import json
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
from typer.testing import CliRunner

from sessionize.cli.app import app

HTML = "{http://www.w3.org/1999/xhtml}"


def asked(*words: object, width: int = 120, code: int = 0) -> str:
    """What a command prints on stdout. code: how it has to end."""
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": str(width), "NO_COLOR": "1"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, (done.output, done.exception)
    return done.stdout


def answer(*words: object, code: int = 0) -> Any:
    """What a command answers as JSON."""
    return json.loads(asked(*words, "--json", code=code))


def read_page(text: str) -> ElementTree.Element:
    """A report: well-formed, and nothing in it comes from elsewhere or runs."""
    page = ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    for element in page.iter():
        assert element.tag.partition("}")[2] not in {"script", "link", "img", "iframe", "object", "a"}
        assert not {name for name in element.attrib if name.startswith("on") or name in {"src", "href", "style"}}
    assert "url(" not in text
    assert "@import" not in text
    return page


def coded(events: pa.Table) -> pa.Table:
    """Events as the engine hands them to a part: the users as a dictionary."""
    users = events["user"].dictionary_encode().combine_chunks()
    return events.set_column(events.schema.get_field_index("user"), "user", users)
