"""The questions read what `batch` reads, with the same options about the format."""

from pathlib import Path

import pytest

from tests.questions.commands import answer


@pytest.mark.parametrize(
    "question", [("tune",), ("diff", "default", "gap=45m"), ("check",)], ids=lambda words: words[0]
)
def test_a_log_is_read_by_a_pattern(tmp_path: Path, question: tuple[str, ...]) -> None:
    log = tmp_path / "app.log"
    log.write_text("".join(f"2026-03-02T10:0{n}:00Z u=a\n" for n in range(10)))
    found = answer(*question, log, "--pattern", r"^(?P<when>\S+) u=(?P<who>\S+)", "--user", "who", "--time", "when")
    assert (found["counts"]["events"] if "counts" in found else found["records"]) == 10


def test_check_reads_by_the_format_of_its_pipeline(tmp_path: Path) -> None:
    events, pipeline = tmp_path / "e.csv", tmp_path / "p.toml"
    events.write_text("1772445600000|a\n1772445660000|b\n")
    pipeline.write_text(
        f'[input]\nkind = "files"\npaths = ["{events}"]\ndelimiter = "|"\ncolumns = ["t", "u"]\n'
        '[input.mapping]\nuser = "u"\ntime = "t"\n'
    )
    assert answer("check", events, "--pipeline", pipeline)["counts"]["events"] == 2
