"""Recognises the records of known producers: a dialect wins where its fields are there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sessionize.analytics.inspection.fields import FieldValues
from sessionize.formats.content.samples import Sample
from sessionize.formats.dialects import DIALECTS, PROFILE_DIALECTS, Dialect

# What the records of a producer have, and others have not all together: one of each.
_SIGNS: Mapping[str, Sequence[Sequence[str]]] = {
    "ga4": (("event_timestamp",), ("event_name",), ("user_pseudo_id",)),
    "segment": (("messageId",), ("userId", "anonymousId"), ("timestamp", "originalTimestamp"), ("type",)),
    "cloudevents": (("specversion",), ("id",), ("source",), ("type",), ("subject",), ("time",)),
    "snowplow": (("collector_tstamp",), ("event_id",), ("user_id", "domain_userid", "network_userid")),
    "matomo": (("visitorId",), ("timestamp",), ("type",), ("url",)),
}
_SEGMENT_TYPES = {"track", "page", "screen", "identify", "group", "alias"}
_SHARE_MIN = 0.8


@dataclass(frozen=True, slots=True)
class KnownProducer:
    """A dialect whose fields are there, and why."""

    dialect: Dialect
    why: str


def with_known_header(sample: Sample) -> Sample:
    """A table without a header, as of the producer whose files have as many columns and never a header."""
    for dialect in DIALECTS.values():
        if sample.header is False and dialect.header and len(dialect.header) == len(sample.names):
            names = dict(zip(sample.names, dialect.header, strict=True))
            rows = [{names.get(name, name): value for name, value in row.items()} for row in sample.rows]
            return replace(sample, rows=rows, names=dialect.header, header=None)
    return sample


def producer_of(fields: Sequence[FieldValues], input_format: str) -> KnownProducer | None:
    """The dialect of these records; None where no known one fits."""
    if input_format in ("combined", "common", "w3c"):
        name = "w3c" if input_format == "w3c" else "combined"
        kind = "a W3C extended log" if name == "w3c" else "an access log of Apache or nginx"
        return KnownProducer(DIALECTS[name], f"the lines are those of {kind}")
    by_path = {each.path: each for each in fields}
    for name, signs in _SIGNS.items():
        if not all(_covered(by_path, paths) >= _SHARE_MIN for paths in signs):
            continue
        if name == "segment" and not {str(value) for value in by_path["type"].filled} <= _SEGMENT_TYPES:
            continue
        named = ", ".join(next(path for path in paths if path in by_path) for paths in signs)
        return KnownProducer(DIALECTS[name], f"it has the fields {named}")
    for dialect in PROFILE_DIALECTS.values():
        paths = [dialect.paths(column) for column in sorted(dialect.columns)]
        needed = (dialect.user, dialect.event_time_ms)
        if all(any(p in by_path for p in each) for each in paths) and all(
            _covered(by_path, each) >= _SHARE_MIN for each in needed
        ):
            return KnownProducer(dialect, "all of its fields are there")
    return None


def _covered(by_path: Mapping[str, FieldValues], paths: Sequence[str]) -> float:
    """In what part of the records one of the paths has a value."""
    columns = [by_path[path].values for path in paths if path in by_path]
    rows = list(zip(*columns, strict=True))
    return sum(1 for row in rows if any(value is not None for value in row)) / len(rows) if rows else 0.0
