"""The error of a run that read records and could use none of them."""

from collections.abc import Mapping
from types import MappingProxyType

from sessionize.errors import InputError
from sessionize.formats.absent_fields import AbsentFields

HINT_RETRY = (
    "the records were kept: once the pipeline can read them, `sessionize rejected retry` brings them in as late events,"
    " and `sessionize reconcile` makes sessions of them"
)


def nothing_usable(
    rejected: int,
    by_reason: Mapping[str, int],
    then: str,
    absent: AbsentFields | None = None,
    examples: Mapping[str, str] = MappingProxyType({}),
) -> InputError:
    """Records were there, and all of them were rejected. then: what to do about it. absent: fields none of them has.

    examples: by reason the first record.
    """
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in by_reason.items())
    shown = "".join(f"\n{reason}: {example}" for reason, example in examples.items())
    return InputError(
        "none of the records could be used",
        detail=f"{rejected:,} rejected: {reasons}" + ("" if absent is None else f"; {absent.detail}") + shown,
        hint=f"{_question(by_reason)} {then}" if absent is None else f"{absent.hint}; {then}",
    )


def _question(by_reason: Mapping[str, int]) -> str:
    if by_reason and max(by_reason, key=by_reason.__getitem__) == "invalid_time":
        return (
            "are the times written in another way? --time-format '%d.%m.%Y %H:%M' (batch, label, explain), "
            "or input.mapping.time_format in a pipeline, reads them;"
        )
    return "is it the right dialect, or are the fields named right?"
