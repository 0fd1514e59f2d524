"""Where chains and sessions begin, and why: rules 2 to 5 of docs/spec/sessions.md as SQL."""

from sqlglot import exp

from sessionize.sql import steps
from sessionize.sql.steps import Plan
from sessionize.sql.tree import Tree, column, named, number, select, text, tree


def numbered(plan: Plan) -> str:
    """Add the steps up to the events of all sessions, with their numbers; return the name of the last."""
    last = _opened(plan, steps.ordered(plan, steps.flagged(plan, steps.read(plan))))
    why = "the number of a session is how many have begun"
    begun = plan.running(tree("SUM(CASE WHEN sz_begins IS NULL THEN 0 ELSE 1 END)"))
    return plan.step("sz_numbered", why, select("*", named(begun, "sz_number"), source=last))


def cuts(plan: Plan) -> list[tuple[Tree, str]]:
    """(condition, reason) of everything that begins a chain, the first that applies wins (rule 5)."""
    policy, rules = plan.definition.policy, plan.definition.rules
    found = [
        (tree("sz_before IS NULL"), "first" if policy.numbers_sessions else "inactivity"),
        (tree("sz_time - sz_before > :longest", longest=number(policy.longest_silence_ms)), "inactivity"),
    ]
    if rules.end_events:
        found.append((column("sz_after_end"), "rule:end_events"))
    if rules.start_events:
        found.append((column("sz_starts"), "rule:start_events"))
    return found


def _opened(plan: Plan, source: str) -> str:
    """Rules 2 to 5: where chains and sessions begin, and why."""
    why = exp.Case()
    for condition, reason in cuts(plan):
        why = why.when(condition, text(reason))
    gap = "a longer silence or the cut of a rule begins a chain (rules 2, 4 and 5)"
    source = plan.step("sz_cut", gap, select("*", named(why, "sz_why"), source=source))
    columns = [
        named(plan.running(tree("SUM(CASE WHEN sz_why IS NULL THEN 0 ELSE 1 END)")), "sz_chain"),
        named(plan.running(tree("MAX(CASE WHEN sz_why IS NOT NULL THEN sz_time END)")), "sz_anchor"),
    ]
    numbered = "number and start of the chain of each event"
    source = plan.step("sz_chained", numbered, select("*", *columns, source=source))
    limit = plan.definition.policy.max_duration_ms
    if limit is None:
        begins: Tree = column("sz_why")
    elif plan.definition.policy.max_duration_mode == "anchored":
        now, before = (plan.dialect.divided(tree(f"({name} - sz_anchor)"), limit) for name in ("sz_time", "sz_before"))
        begins = tree("COALESCE(sz_why, CASE WHEN :now <> :before THEN 'max_duration' END)", now=now, before=before)
    else:
        return _rolling(plan, source, limit)
    cut = "the maximum duration cuts a chain at its start + k times the maximum (rule 3)"
    return plan.step("sz_opened", cut, select("*", named(begins, "sz_begins"), source=source))


_CUTS = """
SELECT sz_user AS sz_cut_user, sz_chain AS sz_cut_chain, sz_place AS sz_cut_place, sz_place + sz_reach AS sz_next
FROM sz_reached WHERE sz_place = 1 AND :kept
UNION ALL
SELECT sz_user, sz_chain, sz_place, sz_place + sz_reach FROM sz_cuts JOIN sz_reached
ON sz_user = sz_cut_user AND sz_chain = sz_cut_chain AND sz_place = sz_next AND :kept
"""


def _rolling(plan: Plan, source: str, limit: int) -> str:
    """Each session's limit counts from its own start, so that one has to be found after the other."""
    kept = column("sz_kept") if plan.keeps_rows else exp.true()
    chain, position = column("sz_chain"), tree("sz_pos")
    within = exp.WindowSpec(kind="RANGE", start="CURRENT ROW", end=number(limit - 1), end_side="FOLLOWING")
    columns = [
        named(plan.over(tree("ROW_NUMBER()"), chain, order=[position]), "sz_place"),
        named(plan.over(tree("COUNT(*)"), chain.copy(), order=[tree("sz_time")], frame=within), "sz_reach"),
    ]
    why = "how many events of the chain a session has that begins at this one (rule 3, rolling)"
    plan.step("sz_reached", why, select("*", *columns, source=source))
    plan.step("sz_cuts", "from the start of each session to that of the next", tree(_CUTS, kept=kept))
    plan.is_recursive = True
    begins = tree("COALESCE(sz_why, CASE WHEN COALESCE(sz_cut_place, 0) > 0 THEN 'max_duration' END)")
    same = tree("sz_user = sz_cut_user AND sz_chain = sz_cut_chain AND sz_place = sz_cut_place AND :kept", kept=kept)
    made = select("*", named(begins, "sz_begins"), source="sz_reached").join("sz_cuts", on=same, join_type="left")
    return plan.step("sz_opened", "the maximum duration cuts where such a session begins", made)
