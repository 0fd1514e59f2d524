"""The id of its session on every row of the table: rule 6 of docs/spec/sessions.md as SQL."""

from sqlglot import exp

from sessionize.session import columns as col
from sessionize.sql.steps import Plan, session_id
from sessionize.sql.tree import column, named, select, tree


def labelled(plan: Plan, source: str) -> exp.Select:
    """Every row with the id of its session; a duplicate has that of the event it repeats."""
    style = plan.definition.policy.session_ids
    if style == "start":
        start = plan.over(tree("MIN(sz_time)"), column("sz_number"))
        source = plan.step(
            "sz_started", "the start of each session", select("*", named(start, "sz_start"), source=source)
        )
        repeat = tree("sz_number - :first", first=plan.over(tree("MIN(sz_number)"), column("sz_start")))
        why = "sessions of a user that begin in the same millisecond are told apart (rule 6)"
        source = plan.step("sz_repeated", why, select("*", named(repeat, "sz_repeat"), source=source))
    elif style == "sequential":
        piece = tree("sz_number - :first", first=plan.over(tree("MIN(sz_number)"), column("sz_chain")))
        source = plan.step(
            "sz_pieces", "pieces of a chain count from 0", select("*", named(piece, "sz_piece"), source=source)
        )
    identified = tree("CASE WHEN sz_kept THEN :id END", id=session_id(plan))
    why = "the id of every event that is in a session (rule 6)"
    source = plan.step("sz_identified", why, select("*", named(identified, "sz_session"), source=source))
    label = column("sz_session")
    if plan.has(col.EVENT_ID):
        same_event = ("sz_original",) if plan.definition.policy.repeats_ids else ("sz_time",)
        by = [column(name) for name in ("sz_user", "sz_counts", *same_event, "sz_id")]
        same = exp.Window(this=tree("MAX(sz_session)"), partition_by=by)
        label = tree("CASE WHEN sz_kept OR NOT sz_counts THEN sz_session ELSE :same END", same=same)
    return select(plan.dialect.without(plan.own_columns), named(label, col.SESSION_ID), source=source)
