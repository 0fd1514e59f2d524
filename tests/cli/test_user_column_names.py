"""A user column that is called like one of ours: the same error on every road, before anything is read or written."""

import json

import pytest

RECORD = {"session_id": "s1", "Revision": "r", "event_count": "c", "event_time_ms": "t", "at": "2026-03-02T10:00:00Z"}
SAYS = "two columns of a table would have the same name"


@pytest.fixture
def events(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.ndjson").write_text(json.dumps(RECORD) + "\n")
    return "in/a.ndjson"


@pytest.mark.parametrize("output", ["o.csv", "o.ndjson", "o.parquet", "iceberg:a.b"])
@pytest.mark.parametrize("user", ["session_id", "event_count", "Revision"])
def test_batch_refuses(sessionize, events, tmp_path, user, output):
    done = sessionize("batch", events, "-o", output, "--user", user, "--time", "at", code=2)
    assert SAYS in done.err
    assert f"column {user!r} holds the user" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize("user", ["session_id", "event_time_ms"])
def test_label_refuses(sessionize, events, tmp_path, user):
    assert SAYS in sessionize("label", events, "-o", "o.csv", "--user", user, "--time", "at", code=2).err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize(
    ("kind", "output"),
    [("files", 'kind = "iceberg"'), ("files", 'kind = "csv"\npath = "o.csv"'), ("directory", 'kind = "iceberg"')],
)
def test_run_refuses(sessionize, events, tmp_path, kind, output):
    (tmp_path / "p.toml").write_text(
        f'[input]\nkind = "{kind}"\npaths = ["in"]\n[input.mapping]\nuser = "event_count"\ntime = "at"\n'
        f"[output]\n{output}\n"
    )
    assert SAYS in sessionize("run", "p.toml", "--once", code=2).err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "p.toml"]


def test_what_only_events_have_is_free_for_sessions(sessionize, tmp_path):
    (tmp_path / "in.ndjson").write_text(json.dumps({"page": "/a", "at": "2026-03-02T10:00:00Z"}) + "\n")
    sessionize("batch", "in.ndjson", "-o", "o.ndjson", "--user", "page", "--time", "at")
    assert json.loads((tmp_path / "o.ndjson").read_text())["page"] == "/a"


def test_another_field_of_the_users_name_is_kept_beside_it(sessionize, tmp_path):
    """`who.id` is the user, which outputs call `id`; records may have an `id` of their own."""
    (tmp_path / "in").mkdir()
    record = {"who": {"id": "ann"}, "id": "x1", "ID": "x2", "session_id": "s", "at": "2026-03-02T10:00:00Z"}
    (tmp_path / "in" / "a.ndjson").write_text(json.dumps(record | {"input_session_id": "t"}) + "\n")
    for output in ("o.csv", "o.parquet", "o.ndjson"):
        sessionize("label", "in/a.ndjson", "-o", output, "--user", "who.id", "--time", "at")
    made = json.loads((tmp_path / "o.ndjson").read_text())
    assert made.pop("event_time_ms") == 1_772_445_600_000
    assert json.loads(made.pop("properties")) == {"who": {"id": "ann"}, "id": "x1", "ID": "x2"}
    assert made == {
        "id": "ann",
        "session_id": "ann_1772445600000",
        "input_session_id": "t",
        "input_input_session_id": "s",
    }
    (tmp_path / "p.toml").write_text(
        '[input]\nkind = "directory"\npaths = ["in"]\n[input.mapping]\nuser = "who.id"\ntime = "at"\n'
        '[output.lake]\n[output.sqlite]\n[rules]\nmax_future = "none"\n'
    )
    assert sessionize("run", "p.toml", "--once", "--json").json["sessions"] == 1
    found = sessionize("query", "SELECT id, session_id, properties FROM events", "--json").rows[0]
    assert (found["id"], found["session_id"], json.loads(found["properties"])["id"]) == ("ann", "s", "x1")
