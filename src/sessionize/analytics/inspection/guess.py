"""From sampled records to the whole answer: the format, the columns, the command to run, and what looks odd."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sessionize.analytics.inspection.amounts import guess_amounts
from sessionize.analytics.inspection.command import OUTPUT, command_of, shell_text, toml_text
from sessionize.analytics.inspection.fields import FieldValues, fields_of
from sessionize.analytics.inspection.oddities import oddities
from sessionize.analytics.inspection.producers import KnownProducer, producer_of, with_known_header
from sessionize.analytics.inspection.roles import (
    PAGES,
    VALUES,
    Role,
    event_id_role,
    event_type_role,
    page_role,
    rank,
    time_role,
    user_roles,
    value_role,
)
from sessionize.analytics.inspection.times import TimeGuess
from sessionize.errors import InputError
from sessionize.formats.content.samples import Sample
from sessionize.formats.input_format import LOGS

_EXAMPLES = 3
_EXAMPLE_LENGTH = 40
_PLAUSIBLE = 3
_CONVERSION_WORDS = ("purchase", "order", "book", "pay", "checkout", "transact", "conver", "subscri", "sale")
_CANONICAL = {"user": "user", "time": "ts", "page": "page"}


@dataclass(frozen=True, slots=True)
class ColumnReport:
    """A field as a row of the table. share: of the records that have a value. role: None where it has none."""

    name: str
    kind: str
    share: float
    distinct: int
    examples: tuple[str, ...]
    role: str | None = None
    why: str = ""
    sure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What an input is, as far as a sample tells. options: those of the command, by name."""

    inputs: tuple[str, ...]
    output: str
    format: str
    compression: str | None
    encoding: str | None
    delimiter: str | None
    header: bool | None
    records: int
    unreadable: int
    read_bytes: int
    whole: bool
    dialect: str | None
    time_format: str
    local_times: bool
    columns: tuple[ColumnReport, ...]
    options: dict[str, Any]
    reasons: tuple[str, ...]
    alternatives: tuple[str, ...]
    warnings: tuple[str, ...] = field(default=())

    @property
    def words(self) -> list[str]:
        """The command, word by word."""
        return command_of(self.inputs, self.options, self.output)

    @property
    def command(self) -> str:
        """The command for a shell."""
        return shell_text(self.words)

    @property
    def toml(self) -> str:
        """The same for a pipeline file."""
        return toml_text(self.inputs, self.options)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "command": self.command, "argv": self.words, "toml": self.toml}


def inspection(
    samples: Sequence[Sample], inputs: Sequence[str], notes: Sequence[str] = (), *, output: str = OUTPUT
) -> Inspection:
    """What these samples of one kind are. inputs, output: of the command. notes: warnings to add.

    Errors: InputError if they have no usable record, user or time.
    """
    samples = [with_known_header(each) for each in samples]
    first = samples[0]
    rows = [row for each in samples for row in each.rows]
    if not rows:
        raise _nothing(first)
    is_text = first.format in LOGS or first.format == "csv"
    fields = fields_of(rows, text_nulls=is_text)
    known = producer_of(fields, first.format)
    found = _roles(fields, first, known)
    if first.header is False:
        found = _named(found, first)
    options = _options(found, first, known, fields)
    warnings = [*notes, *oddities(fields, found.roles, found.time, first, rows)]
    alternatives = _alternatives(found, known)
    return Inspection(
        inputs=tuple(inputs),
        output=output,
        format=first.format,
        compression=first.compression,
        encoding=first.encoding,
        delimiter=first.delimiter if first.format == "csv" else None,
        header=first.header,
        records=len(rows),
        unreadable=sum(each.unreadable for each in samples),
        read_bytes=sum(each.read_bytes for each in samples),
        whole=all(each.whole for each in samples),
        dialect=known.dialect.name if known is not None else None,
        time_format=found.time.said,
        local_times=bool(found.time.local) and (known is None or known.dialect.name != "w3c"),
        columns=tuple(_report(each, found) for each in found.fields),
        options=options,
        reasons=tuple(_reasons(found, known)),
        alternatives=tuple(alternatives),
        warnings=tuple(dict.fromkeys(warnings)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """roles: by role, the best. time: how its values are times. users, times: all plausible ones, the best first."""

    fields: Sequence[FieldValues]
    roles: dict[str, Role]
    time: TimeGuess
    users: Sequence[Role]
    times: Sequence[tuple[Role, TimeGuess]]


def _roles(fields: Sequence[FieldValues], sample: Sample, known: KnownProducer | None) -> _Found:
    times, by_form = time_role(fields, by_name=sample.header is not False)
    if known is not None:
        times = _of_dialect(times, known)
    if not times:
        raise _no_time(fields, sample)
    time, guess = times[0]
    taken = {*time.paths} | by_form
    page = page_role(fields, taken)
    if page is not None:
        taken |= {*page.paths}
    users = user_roles(fields, taken)
    if known is not None:
        paths = known.dialect.user
        users = [Role("user", paths, f"as in {known.dialect.name}", "sure"), *users]
    if not users:
        raise InputError(
            "no field looks like the user",
            detail=f"{sample.source}: the fields are {_listed(fields)}",
            hint="name it yourself: sessionize batch FILE --user FIELD --time FIELD -o sessions.parquet",
        )
    taken |= {*users[0].paths}
    roles = {"user": users[0], "time": time}
    for name, its in (
        ("event_id", event_id_role(fields, taken)),
        ("event_type", event_type_role(fields, taken)),
        ("page", page),
        ("value", value_role(fields, taken)),
    ):
        if its is not None:
            roles[name] = its
            taken |= {*its.paths}
    if known is not None:
        there = {each.path for each in fields}
        for name in ("event_id", "event_type", "page", "value"):
            own = tuple(path for path in known.dialect.paths(name) if path in there)
            if own:
                roles[name] = Role(name, own, f"as in {known.dialect.name}", "sure")
    return _Found(fields=fields, roles=roles, time=guess, users=users, times=times)


def _of_dialect(times: Sequence[tuple[Role, TimeGuess]], known: KnownProducer) -> list[tuple[Role, TimeGuess]]:
    """The time of the dialect before all others."""
    dialect = known.dialect
    paths = set(dialect.event_time_ms)
    own = [(role, guess) for role, guess in times if paths & {*role.paths}]
    if not own:
        return list(times)
    role, guess = own[0]
    joined = "event_time_ms" in dialect.joined
    its = Role("time", dialect.event_time_ms, f"as in {dialect.name}; {role.why}", "sure", joined=joined)
    return [(its, guess), *(each for each in times if each[0] is not role)]


def _named(found: _Found, sample: Sample) -> _Found:
    """Columns without a header get the names of their roles."""
    new = {role.paths[0]: _CANONICAL.get(name, name) for name, role in found.roles.items() if len(role.paths) == 1}
    for each in found.fields:
        each.path = new.get(each.path, each.path)
    roles = {name: replace(role, paths=tuple(new.get(p, p) for p in role.paths)) for name, role in found.roles.items()}
    users = [replace(role, paths=tuple(new.get(p, p) for p in role.paths)) for role in found.users]
    times = [(replace(role, paths=tuple(new.get(p, p) for p in role.paths)), guess) for role, guess in found.times]
    return _Found(fields=found.fields, roles=roles, time=found.time, users=users, times=times)


def _options(
    found: _Found, sample: Sample, known: KnownProducer | None, fields: Sequence[FieldValues]
) -> dict[str, str | list[str]]:
    """The options of the command."""
    made: dict[str, str | list[str]] = {}
    if sample.header is False:
        made["columns"] = ",".join(each.path for each in fields if each.path not in sample.keys)
    if sample.encoding is not None:
        made["encoding"] = sample.encoding
    if sample.comment is not None:
        made["comment"] = sample.comment
    if known is not None:
        made["dialect"] = known.dialect.name
        made |= _beside(found, known)
    else:
        made |= {name: role.option for name, role in found.roles.items()}
    form = found.time.form
    own = known.dialect.time_format if known is not None else "auto"
    if form != own and not (known is not None and sample.format in LOGS):
        made["time_format"] = "ms" if form == "auto" and found.time.number else form
    if made.get("time_format") == "auto":
        del made["time_format"]
    value = _values_of(found, "value")
    amounts = guess_amounts(value) if value and sample.format == "csv" else None
    if amounts is not None and amounts.decimal is not None:
        made["decimal"] = amounts.decimal
    words = _null_words(found) if sample.format == "csv" else []
    if words:
        made["null_values"] = ",".join(words)
    conversions = _conversions(found, known)
    if conversions:
        made["conversion_events"] = conversions
    return made


def _beside(found: _Found, known: KnownProducer) -> dict[str, str]:
    """What the records have that the dialect does not map, or maps to fields that are not there."""
    there = {each.path for each in found.fields}
    made = {}
    for name, names in (("page", PAGES), ("value", VALUES)):
        role = found.roles.get(name)
        if role is None or there & {*known.dialect.paths(name)}:
            continue
        its = next(each for each in found.fields if each.path == role.paths[0])
        if rank(its, names) is not None and its.depth <= 1:
            made[name] = role.option
    return made


def _values_of(found: _Found, name: str) -> list[Any]:
    role = found.roles.get(name)
    return [] if role is None else [v for each in found.fields if each.path in role.paths for v in each.filled]


def _null_words(found: _Found) -> list[str]:
    words = Counter[str]()
    mapped = {path for role in found.roles.values() for path in role.paths}
    for each in found.fields:
        if each.path in mapped:
            words.update(each.null_words)
    return [word for word, _ in words.most_common() if "," not in word]


def _conversions(found: _Found, known: KnownProducer | None) -> list[str]:
    """The types of events with a value that are conversions by their names, where none of them is one yet."""
    if "value" not in found.roles or "event_type" not in found.roles:
        return []
    by_path = {each.path: each.values for each in found.fields}
    pairs = zip(by_path[found.roles["event_type"].paths[0]], by_path[found.roles["value"].paths[0]], strict=True)
    types = Counter(str(kind) for kind, value in pairs if kind is not None and value not in (None, 0, "0"))
    own = ("purchase", "booking", "order") if known is None else known.dialect.conversion_events
    if any(kind.casefold() in {each.casefold() for each in own} for kind in types):
        return []
    return [kind for kind, _ in types.most_common(5) if any(word in kind.casefold() for word in _CONVERSION_WORDS)]


def _reasons(found: _Found, known: KnownProducer | None) -> list[str]:
    said = [] if known is None else [f"dialect {known.dialect.name}: {known.why}"]
    said += [f"{name.replace('_', ' ')} {role.option}: {role.why} ({role.sure})" for name, role in found.roles.items()]
    return said


def _alternatives(found: _Found, known: KnownProducer | None) -> list[str]:
    """Other plausible answers, the best first, as options to put in place."""
    if known is not None and known.dialect.name == "combined":
        return ["--user ip+user_agent: an address and a browser together are a user"]
    if known is not None and known.dialect.name == "w3c":
        return [f"--user {shell_text(['c-ip+cs(User-Agent)'])}: an address and a browser together are a user"]
    users = [role for role in found.users[1:] if role.option != found.roles["user"].option][:_PLAUSIBLE]
    made = [f"--user {shell_text([role.option])}: {role.why}" for role in users if role.sure != "unsure"]
    if found.roles["user"].sure == "unsure":
        made += [f"--user {shell_text([role.option])}: {role.why}" for role in users if role.sure == "unsure"]
    for role, guess in found.times[1 : 1 + _PLAUSIBLE]:
        form = "" if guess.form == "auto" else f" --time-format {shell_text([guess.form])}"
        made.append(f"--time {shell_text([role.option])}{form}: {role.why}")
    return made + [f"--time-format {shell_text([form])}: the values fit it too" for form in found.time.alternatives]


def _report(each: FieldValues, found: _Found) -> ColumnReport:
    role = next((role for role in found.roles.values() if each.path in role.paths), None)
    seen = dict.fromkeys(_example(value) for value in each.filled[:200])
    return ColumnReport(
        name=each.path,
        kind=each.kind,
        share=round(each.share, 4),
        distinct=each.distinct,
        examples=tuple(seen)[:_EXAMPLES],
        role=None if role is None else role.role,
        why="" if role is None else role.why,
        sure="" if role is None else role.sure,
    )


def _example(value: object) -> str:
    text = str(value)[:_EXAMPLE_LENGTH]
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)


def _listed(fields: Sequence[FieldValues]) -> str:
    return ", ".join(repr(each.path) for each in fields[:20]) + (" ..." if len(fields) > 20 else "")


def _nothing(sample: Sample) -> InputError:
    said = f", but {sample.unreadable:,} lines that are none" if sample.unreadable else ""
    return InputError(
        "there is nothing to inspect",
        detail=f"{sample.source}: read as {sample.format}, it has no record{said}",
        hint="is the file complete, and of one of the known formats? See docs/inputs.md",
    )


def _no_time(fields: Sequence[FieldValues], sample: Sample) -> InputError:
    return InputError(
        "no field looks like the time",
        detail=f"{sample.source}: the fields are {_listed(fields)}",
        hint="name it yourself: sessionize batch FILE --user FIELD --time FIELD -o sessions.parquet",
    )
