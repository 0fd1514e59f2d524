"""Late repair of tables by the rules that compare events, against a batch over everything that was archived."""

from pathlib import Path

from sessionize.app.runs import plan
from sessionize.app.tables.reconcile import reconcile_tables
from tests.app.test_reconcile_tables import NOW_MS, batch_of, pipeline, rows_in, stored

# by canonical columns and by a further field, which the tables keep as a column
COMPARED: dict[str, object] = {
    "input.fields": {"kind": "eventType"},
    "rules.split_on_change": ["kind", "page"],
    "rules.split_ignore": ["PAGE_VIEW", "CLICK", "/*"],
    "rules.gap_by": {"field": "kind", "gaps": {"CLICK": "2m", "PAGE_VIEW": "2h"}},
    "rules.day_start": "Europe/Berlin",
    "rules.max_events": 5,
    "rules.min_events": 2,
    "rules.bounce": ["no_conversion", "10m"],
}


def test_tables_equal_a_batch_afterwards(tmp_path: Path) -> None:
    generated = {"events": 1_500, "users": 30, "duration": "30h", "late_fraction": 0.05}
    made = {f"input.generator.{name}": value for name, value in generated.items()}
    config = pipeline(tmp_path, **{"input.kind": "generator", "rules.watermark": "maximum", **made, **COMPARED})
    accounting = plan(config, now_ms=NOW_MS).run()
    assert accounting.late > 30
    assert accounting.short_sessions > 10
    assert rows_in(config, stored(config)) != batch_of(config)
    done = reconcile_tables(tmp_path, config, users_max=15, rows_max=400)
    expected = batch_of(config)
    assert rows_in(config, stored(config)) == expected
    assert (done.waiting, done.incomplete_users) == (0, 0)
    reasons = {"inactivity", "max_events", "rule:day_start", "rule:split_on_change"}
    assert reasons <= {row["start_reason"] for row in expected}
    assert {row["is_bounce"] for row in expected} == {True, False}
    assert min(row["event_count"] for row in expected) == 2
    again = reconcile_tables(tmp_path, config)
    assert (again.replaced, again.added, again.commits, again.late_events) == (0, 0, 0, 0)
