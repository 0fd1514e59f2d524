"""Every table of an epoch has the input's name of the user, also the tables of operators, which know it as `user`."""

import pyarrow as pa

from sessionize import Policy
from sessionize.engine.stream.checkpoint_format import Plan
from sessionize.engine.stream.epoch import final_rows
from sessionize.kernel.processor import EventProcessor
from sessionize.session.definition import SessionDefinition
from tests.kernel.counting import Counts


def test_rows_of_operators_get_the_inputs_name_of_the_user() -> None:
    processor = EventProcessor(SessionDefinition(policy=Policy(), user_name="uid"), [Counts()])
    processor.push(pa.table({"user": ["a", "b"], "event_time_ms": [1, 2], "product": ["x", None]}))
    plan = Plan(epoch=1, ranges={}, watermark_ms=None, now_ms=0, drain=True)
    final = final_rows(processor, plan, drained_to_ms=10)
    assert {name: sorted(table["uid"].to_pylist()) for name, table in final.items()} == {
        "user_sessions": ["a", "b"],
        "event_counts": ["a", "b"],
    }
    assert all("user" not in table.column_names for table in final.values())
