"""The single guesses of `inspect`: patterns of times, day and month, decimal marks."""

from datetime import datetime, timedelta

import pytest

from sessionize.analytics.inspection.amounts import guess_amounts
from sessionize.analytics.inspection.times import guess_time


@pytest.mark.parametrize(
    "pattern",
    ["%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%m/%d/%Y %I:%M %p", "%d/%m/%Y %H:%M", "%b %d, %Y %I:%M:%S %p",
     "%Y/%m/%d %H:%M:%S", "%d/%b/%Y:%H:%M:%S %z", "%Y%m%d%H%M%S", "%a, %d %b %Y %H:%M:%S GMT"],
)  # fmt: skip
def test_patterns_are_found(pattern: str) -> None:
    start = datetime.fromisoformat("2026-03-02T10:00:00+00:00")
    times = [start + timedelta(hours=7 * n, minutes=n) for n in range(60)]
    guess = guess_time([time.strftime(pattern) for time in times])
    assert guess is not None
    assert guess.form == pattern.replace("GMT", "%Z")
    assert guess.share == 1
    assert guess.alternatives == ()


def test_day_and_month_that_could_be_exchanged_are_said() -> None:
    guess = guess_time(["03/02/2026 10:00", "04/02/2026 10:00"])
    assert guess is not None
    assert {guess.form, *guess.alternatives} == {"%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M"}
    assert guess.form == "%d/%m/%Y %H:%M"  # a day apart, not a month


@pytest.mark.parametrize(
    ("values", "decimal"),
    [(["1,5", "2,25"], ","), (["1.234,50", "0,5"], ","), (["1.5", "2"], None), (["1,234.50"], "."),
     (["1,234", "1.5"], ".")],
)  # fmt: skip
def test_decimal_marks(values: list[str], decimal: str | None) -> None:
    guess = guess_amounts(values)
    assert guess is not None
    assert (guess.decimal, guess.unusable) == (decimal, ())
