"""What the generator can be asked for, and how it refuses the rest."""

import pytest

from sessionize.connectors.generator import GeneratorSettings
from sessionize.errors import ConfigError
from sessionize.session.time import MS_PER_DAY


def test_events_alone_are_spread_over_a_day():
    settings = GeneratorSettings(events=43_200)
    assert (settings.total_events, settings.span_ms, settings.mean_rate_per_s) == (43_200, MS_PER_DAY, 0.5)


def test_events_and_duration_give_the_rate():
    settings = GeneratorSettings(events=600, duration_ms=60_000)
    assert (settings.total_events, settings.span_ms, settings.mean_rate_per_s) == (600, 60_000, 10.0)


def test_rate_and_duration_give_the_events():
    settings = GeneratorSettings(rate_per_s=5, duration_ms=90_000)
    assert (settings.total_events, settings.span_ms, settings.mean_rate_per_s) == (450, 90_000, 5)


def test_events_and_rate_give_the_duration():
    settings = GeneratorSettings(events=100, rate_per_s=20)
    assert (settings.total_events, settings.span_ms, settings.mean_rate_per_s) == (100, 5_000, 20)


def test_a_rate_alone_has_no_end():
    settings = GeneratorSettings(rate_per_s=20)
    assert (settings.total_events, settings.span_ms, settings.mean_rate_per_s) == (None, None, 20)


def test_a_short_run_has_at_least_one_event():
    assert GeneratorSettings(rate_per_s=0.01, duration_ms=1_000).total_events == 1


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"profile": "clickstreams"}, "clickstreams"),
        ({"users": 0}, "users = 0"),
        ({"users": 1.5}, "users = 1.5"),
        ({"users": True}, "users = True"),
        ({"users": 10**9}, "users = 1000000000"),
        ({"users": None}, "users = None"),
        ({"events": 0}, "events = 0"),
        ({"events": -1}, "events = -1"),
        ({"events": "100"}, "events = '100'"),
        ({"events": None, "rate_per_s": 0.0}, "rate_per_s = 0.0"),
        ({"events": None, "rate_per_s": float("nan")}, "rate_per_s = nan"),
        ({"events": None, "rate_per_s": float("inf")}, "rate_per_s = inf"),
        ({"duration_ms": 0}, "duration_ms = 0"),
        ({"start_ms": -1}, "start_ms = -1"),
        ({"start_ms": 10**18}, "start_ms = 1000000000000000000"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": 2**64}, "seed = 18446744073709551616"),
        ({"late_fraction": 1.01}, "late_fraction = 1.01"),
        ({"late_fraction": -0.1}, "late_fraction = -0.1"),
        ({"late_fraction": "5%"}, "late_fraction = '5%'"),
        ({"late_by_ms": -1}, "late_by_ms = -1"),
        ({"out_of_order_ms": 10**12}, "out_of_order_ms = 1000000000000"),
        ({"duplicate_fraction": 2}, "duplicate_fraction = 2"),
        ({"broken_fraction": float("nan")}, "broken_fraction = nan"),
        ({"skew": -1}, "skew = -1"),
        ({"skew": 6}, "skew = 6"),
        ({"events": None}, "events = None"),
        ({"events": None, "duration_ms": 60_000}, "duration_ms = 60000"),
        ({"rate_per_s": 5.0, "duration_ms": 60_000}, "100 events, 5.0 a second, for 60000 ms"),
        ({"events": 10**12, "duration_ms": 1}, "1e+15 events a second"),
        ({"events": 1, "duration_ms": 3_660 * MS_PER_DAY}, "events a second"),
    ],
)
def test_what_cannot_be_meant_is_refused(wrong, named):
    with pytest.raises(ConfigError) as refused:
        GeneratorSettings(**({"events": 100} | wrong))
    assert named in (refused.value.detail or "")
    assert refused.value.hint
