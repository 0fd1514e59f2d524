"""The sink in memory: rows by the name of their table, and by the names of before for one version."""

import pytest

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
