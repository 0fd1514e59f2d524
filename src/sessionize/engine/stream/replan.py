"""An epoch that is repeated may find fewer records than it was planned with: what a source no longer keeps is gone.

A plan says how many records each partition gave, so a difference is always noticed. Rows that an output has already
cannot be taken back, and without the records no other output, and no session, can be made to agree with them: then the
run ends. Where no output has the epoch, it is planned anew with what is left, before anything is written.
"""

from collections.abc import Mapping
from dataclasses import replace

from sessionize.engine.stream.checkpoint_format import INSTEAD_OF, RECORDS, Plan
from sessionize.errors import StateError


def replan(plan: Plan, found: Mapping[str, int], has: Mapping[str, int | None]) -> Plan | None:
    """The plan to go on with when the records are not those of `plan`; None when they are.

    found: records by partition, as read now. has: the last epoch that each output has, None where it keeps no record.
    Errors: StateError when one has the epoch, or a part of it.
    """
    planned = plan.extra.get(RECORDS)
    if planned is None or planned == found:
        return None
    written = [name for name, last in has.items() if (last or 0) >= plan.epoch]
    if written:
        raise StateError(
            "records of an epoch that is written already are gone from the input",
            detail=f"epoch {plan.epoch}, {gone(plan, found)}; {', '.join(written)} "
            f"{'has' if len(written) == 1 else 'have'} the epoch with them",
            hint="nothing was changed. Bring back state and outputs as they were before this epoch; or begin anew, "
            "with another run.home or stream.writer and empty outputs",
        )
    return replace(plan, extra={**plan.extra, RECORDS: dict(found), INSTEAD_OF: plan.digest})


def gone(plan: Plan, found: Mapping[str, int]) -> str:
    """Which records are missing, for people."""
    planned: Mapping[str, int] = plan.extra[RECORDS]
    return ", ".join(
        f"{partition}: {found.get(partition, 0):,} of {planned.get(partition, 0):,} records from offset "
        f"{plan.ranges[partition][0]:,} to before {plan.ranges[partition][1]:,}"
        if partition in plan.ranges
        else f"{partition}: {found.get(partition, 0):,} of {planned.get(partition, 0):,} records"
        for partition in sorted(planned.keys() | found.keys())
        if planned.get(partition, 0) != found.get(partition, 0)
    )
