"""Guesses which field is the user, the time, the page, and so on: by its name, and by what its values look like."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from sessionize.analytics.inspection.amounts import guess_amounts
from sessionize.analytics.inspection.fields import FieldValues
from sessionize.analytics.inspection.times import TimeGuess, guess_time, is_clock, is_day

Sure = Literal["sure", "likely", "unsure"]
USERS = (
    "userid", "user", "uid", "useruuid", "uuid", "visitorid", "visitor", "clientid", "customerid", "customer",
    "memberid", "accountid", "playerid", "subscriberid", "personid", "distinctid", "anonymousid", "anonid",
    "userpseudoid", "cookieid", "cookie", "deviceid", "fingerprint", "domainuserid", "networkuserid",
    "fullvisitorid", "subject", "email", "login", "username", "who", "remoteaddr", "clientip", "cip", "ip",
    "ipaddress", "host", "remotehost", "client", "member", "account", "sessionid", "session",
)  # fmt: skip
TIMES = (
    "eventtimestamp", "eventtime", "timestamp", "ts", "time", "timeiso8601", "datetime", "occurredat", "createdat",
    "eventdate", "when", "date", "t", "clicktime", "visittime", "accesstime", "starttime", "localtime", "timelocal",
    "originaltimestamp", "servertime", "receivedat", "msec",
)  # fmt: skip
EVENT_IDS = ("eventid", "messageid", "msgid", "insertid", "eventuuid", "hitid", "requestid", "logid", "guid", "id")
EVENT_TYPES = ("eventtype", "eventname", "event", "eventaction", "action", "activity", "type")
PAGES = (
    "page", "pageurl", "pagepath", "pagelocation", "url", "path", "uri", "requesturi", "requestpath", "currenturl",
    "screen", "screenname", "pagename", "pageview", "location", "route", "csuristem", "request",
)  # fmt: skip
VALUES = (
    "revenue", "value", "amount", "price", "total", "ordertotal", "ordervalue", "purchaserevenue", "purchaseamount",
    "transactionrevenue", "sum", "gmv", "betrag", "umsatz",
)  # fmt: skip
_NOT_THE_EVENT = ("received", "sent", "processed", "updated", "loaded", "ingest", "etl", "expire", "birth", "uploaded")
_NOT_A_PAGE = ("refer", "avatar", "image", "icon", "lib", "agent", "source", "specversion", "schema")
_SHORT = 4
_MANY_TYPES = 60


@dataclass(frozen=True, slots=True)
class Role:
    """What a field is. paths: candidates in order; joined: they are parts of one value. why, sure: for people."""

    role: str
    paths: tuple[str, ...]
    why: str
    sure: Sure
    joined: bool = False

    @property
    def option(self) -> str:
        """As an option of the command line has it."""
        return ("+" if self.joined else ",").join(self.paths)


def rank(each: FieldValues, names: Sequence[str]) -> int | None:
    """How good the name is for this: 0 the best; None if it says nothing. Depth counts against it."""
    for name in dict.fromkeys((each.name, each.two_names)):
        if name in names:
            return 2 * names.index(name) + min(each.depth, 3)
    ends = [at for at, name in enumerate(names) if len(name) > _SHORT and each.name.endswith(name)]
    return 200 + 2 * ends[0] + min(each.depth, 3) if ends else None


def _best(
    fields: Sequence[FieldValues], names: Sequence[str], fits: Callable[[FieldValues], bool]
) -> list[FieldValues]:
    ranked = [(r, -each.share, at, each) for at, each in enumerate(fields) if (r := rank(each, names)) is not None]
    return [each for *_, each in sorted(ranked, key=lambda item: item[:3]) if each.is_mappable and fits(each)]


def time_role(fields: Sequence[FieldValues], *, by_name: bool) -> tuple[list[tuple[Role, TimeGuess]], set[str]]:
    """The plausible times, the best first; and the paths of all fields whose values are times by their form."""
    scored: list[tuple[tuple[float, ...], Role, TimeGuess]] = []
    by_form: set[str] = set()
    days, clocks = [], []
    for at, each in enumerate(fields):
        if not each.is_mappable or each.kind in ("list", "boolean", "empty"):
            continue
        filled = each.filled
        if is_clock(filled):
            clocks.append(each)
            continue
        guess = guess_time(filled)
        if guess is None:
            continue
        only_day = is_day(filled)
        if only_day:
            days.append(each)
        named = rank(each, TIMES)
        is_text = not guess.number
        if is_text:
            by_form.add(each.path)
        if not is_text and named is None and by_name and not _is_late_name(each):
            continue  # any number of ten digits may be one of seconds
        late = any(word in each.name for word in _NOT_THE_EVENT)
        score = (late, each.share < 0.8, only_day, 500 if named is None else named, -guess.share, at)
        why = _time_why(each, guess, named)
        sure: Sure = "sure" if named is not None and guess.share > 0.95 and not guess.alternatives else "likely"
        scored.append((score, Role("time", (each.path,), why, sure), guess))
    joined = _of_day_and_clock(days, clocks)
    if joined is not None and (not scored or all(path in by_form for path in [scored[0][1].paths[0]])):
        best = min(scored, key=lambda item: item[0], default=None)
        if best is None or best[1].paths[0] in {day.path for day in days}:
            scored = [((-1.0,), *joined), *scored]
    return [(role, guess) for _, role, guess in sorted(scored, key=lambda item: item[0])], by_form


def _is_late_name(each: FieldValues) -> bool:
    return each.name.endswith(("time", "timestamp", "at", "date", "ts"))


def _time_why(each: FieldValues, guess: TimeGuess, named: int | None) -> str:
    said = f"{guess.share:.0%} of the values are {guess.said}"
    return said if named is None else f"named like a time; {said}"


def _of_day_and_clock(days: list[FieldValues], clocks: list[FieldValues]) -> tuple[Role, TimeGuess] | None:
    if not days or not clocks:
        return None
    day, clock = days[0], clocks[0]
    pairs = zip(day.values, clock.values, strict=True)
    guess = guess_time([f"{a} {b}" for a, b in pairs if a is not None and b is not None])
    if guess is None:
        return None
    why = f"a day and a time of day; together {guess.share:.0%} are {guess.said}"
    return Role("time", (day.path, clock.path), why, "likely", joined=True), guess


def user_roles(fields: Sequence[FieldValues], taken: set[str]) -> list[Role]:
    """The plausible users, the best first; a field that fills the gaps of another is behind it in its paths."""

    def fits(each: FieldValues) -> bool:
        return each.path not in taken and each.kind not in ("list", "boolean", "empty", "time")

    named = _best(fields, USERS, fits)
    named = [each for each in named if "session" not in each.name] or named
    if named:
        made = []
        for at, each in enumerate(named):
            others = [other for other in named[at + 1 :] if _fills(each, other)][:1] if each.share < 1 else []
            why = f"named like a user; {each.distinct:,} in {len(each.filled):,} records"
            if others:
                why += f"; {others[0].path} where it is missing"
            paths = tuple(one.path for one in (each, *others))
            made.append(Role("user", paths, why, "sure" if (rank(each, USERS) or 0) < 24 else "likely"))
        return sorted(made, key=lambda role: _gaps(fields, role) > 0.5)
    rest = [each for each in fields if fits(each) and each.is_mappable and not _is_address(each)]
    rest.sort(key=lambda each: (each.share < 0.5, each.depth, each.distinct == len(each.filled) > 5))
    return [Role("user", (each.path,), "no name says so; the first field that can be one", "unsure") for each in rest]


def _gaps(fields: Sequence[FieldValues], role: Role) -> float:
    """In what part of the records the role has no value."""
    its = [each.values for each in fields if each.path in role.paths]
    rows = list(zip(*its, strict=True))
    return sum(1 for row in rows if all(value is None for value in row)) / max(len(rows), 1)


def _fills(first: FieldValues, second: FieldValues) -> bool:
    """Whether the second has values where the first has none: most of them."""
    gaps = [b for a, b in zip(first.values, second.values, strict=True) if a is None]
    return bool(gaps) and sum(1 for value in gaps if value is not None) > len(gaps) / 2


def _is_address(each: FieldValues) -> bool:
    texts = [value for value in each.filled[:100] if isinstance(value, str)]
    return bool(texts) and sum(1 for t in texts if t.startswith("/") or "://" in t) >= 0.8 * len(texts)


def event_id_role(fields: Sequence[FieldValues], taken: set[str]) -> Role | None:
    """An id of the event: nearly always there, and mostly unique."""

    def fits(each: FieldValues) -> bool:
        if each.path in taken or each.kind in ("list", "boolean", "empty", "time", "mixed"):
            return False
        least = 0.9 if each.name == "id" else 0.5
        return each.share >= 0.5 and each.distinct >= least * len(each.filled)

    for each in _best(fields, EVENT_IDS, fits):
        why = f"named like an id; {each.distinct:,} different in {len(each.filled):,}"
        return Role("event_id", (each.path,), why, "likely")
    return None


def event_type_role(fields: Sequence[FieldValues], taken: set[str]) -> Role | None:
    """The kind of the event: a few words."""

    def fits(each: FieldValues) -> bool:
        few = each.distinct <= max(_MANY_TYPES, len(each.filled) // 10)
        return each.path not in taken and each.kind == "text" and few and each.share >= 0.5 and not _is_address(each)

    for each in _best(fields, EVENT_TYPES, fits):
        return Role("event_type", (each.path,), f"named like a type; {each.distinct:,} different", "likely")
    return None


def page_role(fields: Sequence[FieldValues], taken: set[str]) -> Role | None:
    """The page: by its name, or by values that are paths or addresses."""

    def fits(each: FieldValues) -> bool:
        return each.path not in taken and each.kind in ("text", "mixed") and not _is_elsewhere(each)

    for each in _best(fields, PAGES, fits):
        return Role("page", (each.path,), "named like a page", "sure" if _is_address(each) else "likely")
    for each in fields:
        if each.is_mappable and fits(each) and _is_address(each):
            return Role("page", (each.path,), "its values are paths or addresses", "likely")
    return None


def _is_elsewhere(each: FieldValues) -> bool:
    return any(word in each.path.casefold() for word in _NOT_A_PAGE)


def value_role(fields: Sequence[FieldValues], taken: set[str]) -> Role | None:
    """An amount."""

    def fits(each: FieldValues) -> bool:
        guess = guess_amounts(each.filled)
        return each.path not in taken and guess is not None and guess.share >= 0.5

    for each in _best(fields, VALUES, fits):
        return Role("value", (each.path,), "named like an amount; its values are numbers", "likely")
    return None
