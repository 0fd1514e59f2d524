"""`demo --stream`: a followed folder, from the first file to late events merged, for somebody who has no server."""

import re


def test_it_shows_the_whole_road_and_leaves_something_to_go_on_with(sessionize, tmp_path):
    done = sessionize("demo", "--stream")
    assert "every record is accounted for" in done.err
    epochs = re.findall(r"epoch +(\d+) ", done.err)
    assert [int(number) for number in epochs] == sorted(map(int, epochs))
    assert "stopped, as by Ctrl-C" in done.err
    late = re.search(r"reconcile: ([\d,]+) late events of .* sessions replaced", done.err)
    assert late is not None
    assert int(late[1].replace(",", "")) > 100
    home = tmp_path / "sessionize-demo-stream"
    assert sorted(path.name for path in tmp_path.iterdir()) == [home.name]
    assert len(list((home / "inbox").iterdir())) == 16
    rows = sessionize(
        "query", "--home", home, "--json",
        "SELECT (SELECT count(*) FROM late_events) AS late, count(*) FILTER (revision > 0) AS replaced,"
        " count(*) FILTER (end_reason = 'end_of_input') AS drained FROM user_sessions",
    ).rows  # fmt: skip
    assert rows[0]["late"] == int(late[1].replace(",", ""))
    assert rows[0]["replaced"] > 0
    assert rows[0]["drained"] > 0
    lines = [line.strip() for line in done.err.partition("next steps")[2].splitlines()[1:]]
    shown = [line for line in lines if line and not line.startswith("#")]
    assert len(shown) == 6
    assert all(line.split()[1] in ("run", "produce", "query", "rejected", "explain", "init") for line in shown)


def test_it_runs_again_in_its_own_folder_and_leaves_others_alone(sessionize, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "stream.toml").write_text("# mine\n")
    done = sessionize("demo", "--stream", "--home", "mine", code=1)
    assert "the demo folder has other contents" in done.err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["stream.toml"]
    sessionize("demo", "--stream", "--home", "a")
    sessionize("demo", "--stream", "--home", "a")
    assert len(list((tmp_path / "a" / "inbox").iterdir())) == 16
