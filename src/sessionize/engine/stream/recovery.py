"""How a run goes on after the last one: what is restored, and what has to agree before anything is written.

The state and the sinks have to belong together. A sink takes every epoch up to its last one as known, so a state that
is behind it would lose what it reads; and a sink that is behind the state never gets what is missing, because the state
does not go back.

An epoch that is repeated may find fewer records than it was planned with, when the source no longer keeps them. A plan
says how many records each partition gave, so a difference is always noticed. Rows that a sink has already cannot be
taken back, and without the records no other sink, and no session, can be made to agree with them: then the run ends.
Where no sink has the epoch, it is planned anew with what is left, before anything is written.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sessionize.engine.accounting import Accounting
from sessionize.engine.retry import Retrier
from sessionize.engine.stream.checkpoint_format import INSTEAD_OF, RECORDS, Plan
from sessionize.engine.stream.checkpoints import RecoveredState
from sessionize.errors import ConfigError, StateError
from sessionize.kernel.operator import Operator
from sessionize.kernel.processor import EventProcessor
from sessionize.ports import EpochSink
from sessionize.session.definition import SessionDefinition


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredRun:
    """What a checkpoint says of a run. positions: the next offsets. fronts: WatermarkTracker.state.

    processor: its `dropped` names the operators that the state has and the run has not.
    """

    epoch: int
    processor: EventProcessor
    positions: dict[str, int]
    accounting: Accounting
    fronts: dict[str, Any]


def restore(found: RecoveredState, definition: SessionDefinition, operators: Sequence[Operator]) -> RestoredRun | None:
    """The run as of the last committed epoch; None before the first one.

    Errors: StateError when the state was made for another policy, other rules, other session columns, or another
    definition of an operator.
    """
    if found.header is None or found.state is None:
        return None
    header = found.header
    return RestoredRun(
        epoch=found.epoch,
        processor=EventProcessor.restore(found.state, definition, operators, track_changes=True),
        positions={place: int(offset) for place, offset in header["positions"].items()},
        accounting=Accounting(**header["totals"]),
        fronts=header["fronts"] if "fronts" in header else header["latest_ms"],  # as checkpoints of before had it
    )


def check_tables(sinks: Mapping[str, EpochSink], operators: Sequence[Operator]) -> None:
    """Errors: ConfigError where an operator makes a table that a sink would refuse, once an epoch is planned."""
    for operator in operators:
        for name, sink in sinks.items():
            known = sink.known_tables
            unknown = [] if known is None else sorted(set(operator.tables) - known)
            if known is not None and unknown:
                raise ConfigError(
                    "an operator makes a table that an output does not know",
                    detail=f"operator {operator.name}, table {unknown[0]!r}; {name} knows {', '.join(sorted(known))}",
                    hint="declare the table beside the others in session/output_tables.py, or give the sink its spec",
                )


def check_sinks(
    sinks: Mapping[str, EpochSink],
    retrier: Retrier,
    *,
    writer: str,
    done: int,
    begun: int,
    warn: Callable[[str], None],
) -> dict[str, int | None]:
    """The last epoch that each sink has of this writer, None where it keeps no record.

    done: the epoch of the checkpoint. begun: the newest one that is planned, done where none is. warn: gets a text for
    a sink that is new to the writer. Errors: StateError when the state is not the one that the sinks were written with.
    """
    has: dict[str, int | None] = {}
    for name, sink in sinks.items():
        has[name] = last = retrier.call(name, lambda sink=sink: sink.last_epoch(writer))  # type: ignore[misc]
        warning = _check_sink(name, last, writer=writer, done=done, begun=begun)
        if warning is not None:
            warn(warning)
    return has


def _check_sink(name: str, last: int | None, *, writer: str, done: int, begun: int) -> str | None:
    """A warning where an output has nothing of this writer yet, though the state is further; else None.

    last: the last epoch that the output has, 0 for none, None where it keeps no record. done: the epoch of the
    checkpoint. begun: the newest one that is planned, done where none is. Errors: StateError when they disagree.
    """
    if last is None:
        return None
    if last > begun:
        raise StateError(
            "an output is ahead of the state",
            detail=f"{name} has epochs of writer {writer!r} up to {last}, the state knows of {begun or 'none'}",
            hint="bring back the state that belongs to these outputs (run.home/state); or begin anew, with another "
            "run.home or stream.writer, and with outputs that are empty",
        )
    if last >= done:
        return None
    if last == 0:
        return f"{name} is new to writer {writer!r}: it gets what comes after epoch {done}"
    raise StateError(
        "an output lacks epochs that are done",
        detail=f"{name} has epochs of writer {writer!r} up to {last}, the state is at {done}",
        hint="bring back the output as it was, or the state that belongs to it; one without any of this writer's "
        "epochs counts as new, and gets what comes from now on",
    )


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
            detail=f"epoch {plan.epoch}, {missing_records(plan, found)}; {', '.join(written)} "
            f"{'has' if len(written) == 1 else 'have'} the epoch with them",
            hint="nothing was changed. Bring back state and outputs as they were before this epoch; or begin anew, "
            "with another run.home or stream.writer and empty outputs",
        )
    return replace(plan, extra={**plan.extra, RECORDS: dict(found), INSTEAD_OF: plan.digest})


def missing_records(plan: Plan, found: Mapping[str, int]) -> str:
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
