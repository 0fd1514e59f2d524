"""Where runs, chains and sessions begin, and why: rules 2 to 5 of docs/spec/sessions.md as SQL.

Columns of the steps: sz_rule: the rule that cuts between two neighbours. sz_reach: until when the run lasts without
a silence (only with gaps of the events' own). sz_why: the reason that begins a chain here. sz_chain, sz_anchor: number
and start of the chain. sz_place: the place of the event in its chain, from 1. sz_until: the place of the last event
that a session from here has room for. sz_begins: the reason that begins a session here. sz_number: number of the
session, from 1.
"""

from sqlglot import exp

from sessionize.sql import steps
from sessionize.sql.steps import Plan
from sessionize.sql.tree import Tree, column, named, number, select, text, tree


def numbered(plan: Plan) -> str:
    """Add the steps up to the events of all sessions, with their numbers; return the name of the last."""
    last = steps.ordered(plan, steps.flagged(plan, steps.read(plan)))
    last = _changed(plan, _silent(plan, _local(plan, last)))
    last = _pieces(plan, last)
    why = "the number of a session is how many have begun"
    begun = _how_many(plan, "sz_begins")
    return plan.step("sz_numbered", why, select("*", named(begun, "sz_number"), source=last))


def _how_many(plan: Plan, reason: str) -> Tree:
    """How many events of the user up to this one have a reason."""
    return plan.running(tree("SUM(CASE WHEN :why IS NULL THEN 0 ELSE 1 END)", why=column(reason)))


def _local(plan: Plan, source: str) -> str:
    """Rules that two neighbours decide, in their order (rule 5)."""
    rules, zone, dialect = plan.definition.rules, plan.definition.policy.day_start, plan.dialect
    found = exp.Case()
    if rules.end_events:
        found = found.when(column("sz_after_end"), text("rule:end_events"))
    if rules.start_events:
        found = found.when(column("sz_starts"), text("rule:start_events"))
    if zone is not None:
        now, before = (dialect.local_day(column(name), zone) for name in ("sz_time", "sz_before"))
        found = found.when(
            tree("sz_before IS NOT NULL AND :now <> :before", now=now, before=before), text("rule:day_start")
        )
    if not found.args.get("ifs"):
        return source
    why = "what cuts between two neighbours, whatever came before them (rule 4)"
    return plan.step("sz_local", why, select("*", named(found, "sz_rule"), source=source))


def _silent(plan: Plan, source: str) -> str:
    """Rule 2: where the silence before an event is too long; it goes before all other reasons."""
    policy = plan.definition.policy
    has_rule = "sz_rule" in plan.own_columns
    if policy.gap_by is None:
        silent = tree("sz_time - sz_before > :longest", longest=number(policy.longest_silence_ms))
    else:
        group: list[Tree] = []
        if has_rule:
            why = "the cut of a rule resets how long the gaps before it reach (rule 2)"
            cuts = named(_how_many(plan, "sz_rule"), "sz_group")
            source = plan.step("sz_grouped", why, select("*", cuts, source=source))
            group = [column("sz_group")]
        reach = plan.running(tree("MAX(sz_time + sz_gap - :less)", less=number(policy.inclusive_ms)), *group)
        why = "a session lasts as long as the gap of any of its events (rule 2)"
        source = plan.step("sz_lasting", why, select("*", named(reach, "sz_reach"), source=source))
        before = plan.over(tree("LAG(sz_reach)"), order=[tree("sz_pos")])
        why = "up to when the run of the event before lasts"
        source = plan.step("sz_lasted", why, select("*", named(before, "sz_lasted_until"), source=source))
        silent = tree("sz_time > sz_lasted_until")
    why_here = (
        exp.Case()
        .when(tree("sz_before IS NULL"), text("first" if policy.numbers_sessions else "inactivity"))
        .when(silent, text("inactivity"))
    )
    if has_rule:
        why_here = why_here.else_(column("sz_rule"))
    name = "sz_cut" if plan.definition.rules.split_fields else "sz_why"
    why = "a longer silence begins a chain, whatever else does (rules 2 and 5)"
    return plan.step("sz_silent", why, select("*", named(why_here, name), source=source))


def _changed(plan: Plan, source: str) -> str:
    """Rule 4: a field has another value than the last one that counts in the run."""
    fields = [f"sz_split_{at}" for at in range(len(plan.definition.rules.split_fields))]
    if not fields:
        return source
    why = "changes are looked for within a run, between silences and cuts (rule 4)"
    source = plan.step("sz_runs", why, select("*", named(_how_many(plan, "sz_cut"), "sz_run"), source=source))
    last = [
        named(
            plan.over(tree("LAG(:v)", v=column(field)), column("sz_run"), is_null, order=[tree("sz_pos")]),
            f"sz_last_{at}",
        )
        for at, field in enumerate(fields)
        for is_null in [tree(":v IS NULL", v=column(field))]
    ]
    why = "the last value of each field that counts, among the events that have one"
    source = plan.step("sz_valued", why, select("*", *last, source=source))
    # null is not another value, neither here nor before
    changed = exp.or_(*(tree(f"{field} <> sz_last_{at}") for at, field in enumerate(fields)))
    begins = tree("COALESCE(sz_cut, CASE WHEN :changed THEN 'rule:split_on_change' END)", changed=exp.paren(changed))
    why = "another value begins a chain, but no run (rule 4)"
    return plan.step("sz_changed", why, select("*", named(begins, "sz_why"), source=source))


def _pieces(plan: Plan, source: str) -> str:
    """Rule 3: the maxima cut a chain into pieces, the maximum duration before that of events."""
    policy = plan.definition.policy
    limit, most = policy.max_duration_ms, policy.max_events
    start = plan.running(tree("MAX(CASE WHEN sz_why IS NOT NULL THEN sz_time END)"))
    columns = [named(_how_many(plan, "sz_why"), "sz_chain"), named(start, "sz_anchor")]
    source = plan.step("sz_chained", "number and start of the chain", select("*", *columns, source=source))
    if limit is not None and policy.max_duration_mode == "rolling":
        return _rolling(plan, source, limit, most)
    begins = [column("sz_why")]
    within = [column("sz_chain")]
    if limit is not None:
        now, before = (plan.dialect.divided(tree(f"({name} - sz_anchor)"), limit) for name in ("sz_time", "sz_before"))
        begins.append(tree("CASE WHEN :now <> :before THEN 'max_duration' END", now=now, before=before))
        within.append(now)
    if most is not None:
        place = plan.over(tree("ROW_NUMBER()"), *within, order=[tree("sz_pos")])
        why = "the events of each part are counted, of which a session has so many at most (rule 3)"
        source = plan.step("sz_placed", why, select("*", named(place, "sz_place"), source=source))
        full = tree("(sz_place - 1) % :most = 0", most=number(most))
        begins.append(tree("CASE WHEN :full THEN 'max_events' END", full=full))
    made = exp.func("COALESCE", *begins) if len(begins) > 1 else begins[0]
    why = "the maximum duration cuts a chain at its start + k times the maximum (rule 3)"
    return plan.step("sz_opened", why, select("*", named(made, "sz_begins"), source=source))


_CUTS = """
SELECT sz_user AS sz_cut_user, sz_chain AS sz_cut_chain, sz_place AS sz_cut_place,
  :next AS sz_next, CAST(:first AS TEXT) AS sz_cut_why, :reason AS sz_next_why
FROM sz_reached WHERE sz_place = 1 AND :kept
UNION ALL
SELECT sz_user, sz_chain, sz_place, :next, sz_next_why, :reason FROM sz_cuts JOIN sz_reached
ON sz_user = sz_cut_user AND sz_chain = sz_cut_chain AND sz_place = sz_next AND :kept
"""


def _rolling(plan: Plan, source: str, limit: int, most: int | None) -> str:
    """Each session's limit counts from its own start, so that one has to be found after the other."""
    kept = column("sz_kept") if plan.keeps_rows else exp.true()
    chain = column("sz_chain")
    place = plan.over(tree("ROW_NUMBER()"), chain, order=[tree("sz_pos")])
    why = "the place of each event in its chain"
    source = plan.step("sz_placed", why, select("*", named(place, "sz_place"), source=source))
    within = exp.WindowSpec(kind="RANGE", start="CURRENT ROW", end=number(limit - 1), end_side="FOLLOWING")
    until = plan.over(tree("MAX(sz_place)"), chain, order=[tree("sz_time")], frame=within)
    why = "the last event that a session has room for if it begins at this one (rule 3, rolling)"
    plan.step("sz_reached", why, select("*", named(until, "sz_until"), source=source))
    following, reason = tree("sz_until + 1"), text("max_duration")
    if most is not None:
        fewer = tree("sz_place + :most <= sz_until", most=number(most))
        following = tree("CASE WHEN :fewer THEN sz_place + :most ELSE sz_until + 1 END", fewer=fewer, most=number(most))
        reason = tree("CASE WHEN :fewer THEN 'max_events' ELSE 'max_duration' END", fewer=fewer)
    nothing = exp.cast(exp.null(), "text")
    cuts = tree(_CUTS, kept=kept, next=following, reason=exp.cast(reason, "text"), first=nothing)
    plan.step("sz_cuts", "from the start of each session to that of the next", cuts)
    plan.is_recursive = True
    begins = tree("COALESCE(sz_why, CASE WHEN COALESCE(sz_cut_place, 0) > 0 THEN sz_cut_why END)")
    same = tree("sz_user = sz_cut_user AND sz_chain = sz_cut_chain AND sz_place = sz_cut_place AND :kept", kept=kept)
    made = select("*", named(begins, "sz_begins"), source="sz_reached").join("sz_cuts", on=same, join_type="left")
    return plan.step("sz_opened", "a maximum cuts where such a session begins", made)
