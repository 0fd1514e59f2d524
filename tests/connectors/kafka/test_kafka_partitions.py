"""Who reads which partition: every partition has one reader, whatever their number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionize.connectors.kafka.partitions import (
    check_instance,
    check_partitions,
    instance_of,
    parse_partitions,
    share,
)
from sessionize.errors import ConfigError, InputError


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", {0}), ("0-3,7", {0, 1, 2, 3, 7}), (" 2 , 2-3 ", {2, 3}), ("5-5", {5}), ("10,9", {9, 10})],
)
def test_lists_and_ranges(text, expected):
    assert parse_partitions(text) == expected


@pytest.mark.parametrize("text", ["", ",", "a", "-1", "3-1", "1--2", "0-999999999", "1.5", "٣"])
def test_texts_that_are_no_partitions(text):
    with pytest.raises(ConfigError):
        parse_partitions(text)


def test_the_number_of_a_stateful_set():
    assert instance_of("sessionize-worker-2", 3) == (2, 3)
    assert instance_of("a-0", 1) == (0, 1)
    for name, total in (("sessionize", 3), ("worker-3", 3), ("worker-x", 3), ("worker-", 3), ("worker-0", 0)):
        with pytest.raises(ConfigError):
            instance_of(name, total)
    for instance in ((-1, 2), (2, 2), (0, 0)):
        with pytest.raises(ConfigError):
            check_instance(instance)


def test_what_to_do_is_said_in_options():
    with pytest.raises(ConfigError) as no_number:
        instance_of("laptop", 4)
    assert "--set input.kafka.instance=0" in str(no_number.value)
    with pytest.raises(InputError) as not_there:
        check_partitions("visits", frozenset({0, 1}), frozenset({1, 5}))
    assert "asked for 5" in str(not_there.value)
    assert "--partitions" in str(not_there.value)


@given(st.integers(1, 40), st.integers(1, 12), st.one_of(st.none(), st.frozensets(st.integers(0, 45))))
def test_each_partition_has_one_reader(partitions, instances, wanted):
    shares = [share(range(partitions), wanted, (number, instances)) for number in range(instances)]
    together = sorted(p for part in shares for p in part)
    assert together == [p for p in range(partitions) if wanted is None or p in wanted]
