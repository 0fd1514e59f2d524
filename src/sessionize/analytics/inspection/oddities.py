"""What looks odd about sampled records, and would give wrong sessions without a word."""

from collections.abc import Mapping, Sequence
from typing import Any

from sessionize.analytics.inspection.amounts import guess_amounts
from sessionize.analytics.inspection.fields import FieldValues
from sessionize.analytics.inspection.roles import Role
from sessionize.analytics.inspection.times import UNITS, TimeGuess
from sessionize.errors import ConfigError
from sessionize.formats.content.samples import Sample
from sessionize.session.columns import check_user_name

_FEW = 20


def oddities(
    fields: Sequence[FieldValues],
    roles: Mapping[str, Role],
    time: TimeGuess,
    sample: Sample,
    rows: Sequence[Mapping[str, Any]],
) -> list[str]:
    """A text for each."""
    by_path = {each.path: each for each in fields}
    users = [by_path[path] for path in roles["user"].paths if path in by_path]
    return [
        *_of_times(time, roles["time"], sample),
        *_of_users(users, roles["user"], len(rows)),
        *_of_ids(by_path, roles, users),
        *_of_words(fields, sample),
        *_of_amounts(by_path, roles, sample),
        *_of_text(sample, len(rows)),
    ]


def _of_times(time: TimeGuess, role: Role, sample: Sample) -> list[str]:
    said = []
    if time.number and time.form != "auto" and not role.why.startswith("as in"):
        said.append(f"the times are {UNITS[time.form]}; without --time-format they would be read as milliseconds")
    for unit, count in time.others:
        said.append(f"{count:,} of the sampled times are in {UNITS[unit]}, the others are not: they come out wrong")
    if time.early:
        said.append(
            f"{time.early:,} of the sampled times lie before 1990 or are no times: clocks not set, or another unit"
        )
    if time.local and sample.format != "w3c":
        name = " (and the field is called so)" if any("local" in path.casefold() for path in role.paths) else ""
        said.append(
            f"the times name no time zone{name} and are read as UTC; if they are local, add --time-zone, for example "
            "Europe/Berlin"
        )
    if time.alternatives:
        said.append(f"day and month could be exchanged: the times also fit {', '.join(time.alternatives[:3])}")
    return said


def _of_users(users: Sequence[FieldValues], role: Role, count: int) -> list[str]:
    said = []
    texts = [
        next((value for value in row if value is not None), None)
        for row in zip(*(u.values for u in users), strict=True)
    ]
    missing = sum(1 for value in texts if value is None)
    different = len({str(value) for value in texts if value is not None})
    if missing:
        said.append(f"{missing:,} of {count:,} records have no user ({role.option}) and are rejected")
    if count >= _FEW and different == 1:
        said.append("all records have the same user: sessions need a field that tells users apart")
    elif count >= _FEW and different == count - missing:
        said.append("every record has a user of its own: is it an id of the event?")
    name = users[0].name_of_column if users else ""
    try:
        check_user_name(name, sessions=True, events=False)
    except ConfigError:
        said.append(f"the user column is called {name!r} like a column of sessions, so batch refuses it: rename it")
    if role.sure == "unsure":
        said.append(f"which field is the user is a mere guess: {role.option}")
    return said


def _of_ids(by_path: Mapping[str, FieldValues], roles: Mapping[str, Role], users: Sequence[FieldValues]) -> list[str]:
    """An id that comes again at another time is no duplicate by the rules."""
    if "event_id" not in roles or not users or roles["time"].paths[0] not in by_path:
        return []
    ids, times = (by_path[roles[name].paths[0]].values for name in ("event_id", "time"))
    seen: dict[tuple[str, str], set[str]] = {}
    for row in zip(users[0].values, ids, times, strict=True):
        if None not in row:
            seen.setdefault((str(row[0]), str(row[1])), set()).add(str(row[2]))
    again = sum(1 for each in seen.values() if len(each) > 1)
    if not again:
        return []
    return [
        f"{again:,} event ids come again at another time, as retries do; each counts: only equal times are duplicates"
    ]


def _of_words(fields: Sequence[FieldValues], sample: Sample) -> list[str]:
    found: dict[str, list[str]] = {}
    for each in fields:
        for word in each.null_words:
            found.setdefault(word, []).append(each.path)
    remedy = "" if sample.format == "csv" else "; in this format they stay text"
    return [f"{word!r} stands for a missing value in {', '.join(paths[:3])}{remedy}" for word, paths in found.items()]


def _of_amounts(by_path: Mapping[str, FieldValues], roles: Mapping[str, Role], sample: Sample) -> list[str]:
    if "value" not in roles or roles["value"].paths[0] not in by_path:
        return []
    guess = guess_amounts(by_path[roles["value"].paths[0]].filled)
    if guess is None:
        return []
    said = []
    if guess.unusable:
        shown = ", ".join(map(repr, dict.fromkeys(guess.unusable[:20])))
        said.append(f"amounts are written in several ways; {len(guess.unusable):,} are left out: {shown[:100]}")
    if guess.ambiguous and sample.format == "csv":
        said.append("the amounts could have a decimal comma, or a comma between thousands: --decimal , or --decimal .")
    return said


def _of_text(sample: Sample, count: int) -> list[str]:
    said = []
    if sample.encoding is not None:
        said.append(f"the text is not UTF-8 and names no encoding: {sample.encoding} is likely; look at the examples")
    if sample.unreadable:
        said.append(f"{sample.unreadable:,} of the sampled lines are no records and are rejected")
    return said
