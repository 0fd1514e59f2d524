"""The sink in memory: rows by the name of their table, and by the names of before for one version."""

import pytest

from sessionize.testing import epoch_sinks
from sessionize.testing.epoch_sinks import epoch_id, epoch_rows
from sessionize.testing.streams import InMemoryEpochSink


@pytest.mark.parametrize(
    ("old", "new"), [("sessions", "user_sessions"), ("late", "late_events"), ("rejected", "rejected_events")]
)
def test_the_names_of_before_still_work_with_a_warning(old: str, new: str) -> None:
    sink = InMemoryEpochSink()
    sink.write_epoch(epoch_id(1), epoch_rows(1))
    with pytest.warns(DeprecationWarning, match=new):
        rows = sink.rows(old)
    assert rows == sink.rows(new) == [epoch_rows(1).tables[new]]
    with pytest.warns(DeprecationWarning, match=new):
        assert sink.count(old) == 2
    assert sink.rows("alerts") == []


@pytest.mark.parametrize(
    ("old", "new"), [("SESSIONS", "user_sessions"), ("LATE", "late_events"), ("REJECTED", "rejected_events")]
)
def test_the_constants_of_before_are_the_names_of_the_tables(old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=new):
        assert getattr(epoch_sinks, old) == new
    with pytest.raises(AttributeError):
        epoch_sinks.NOTHING  # noqa: B018
