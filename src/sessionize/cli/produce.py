"""`produce`: synthetic clickstreams in the record formats of the five dialects, to stdout, a file or Kafka."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sessionize.errors import ConfigError

if TYPE_CHECKING:
    from sessionize.app.produce import GeneratedTotals

Profile = Annotated[
    str, typer.Option(help="Record format: clickstream, user-events, user_activity, clicks or ecommerce.")
]
Sample = Annotated[bool, typer.Option("--sample", help="Print a few records and exit.")]
Users = Annotated[int, typer.Option("--num-users", help="Number of users.")]
Events = Annotated[int | None, typer.Option(help="Number of events.")]
Rate = Annotated[float | None, typer.Option(help="Events per second; in real time without --events.")]
Duration = Annotated[str | None, typer.Option(help="Duration: minutes, or with a unit (90s, 2h).")]
Out = Annotated[Path | None, typer.Option("-o", "--output", help="A file, .gz to compress; default: stdout.")]
Servers = Annotated[str | None, typer.Option("--kafka-servers", help="Send to Kafka: host:port, comma-separated.")]
Topic = Annotated[str | None, typer.Option(help="Kafka topic; created if it does not exist.")]
Format = Annotated[str, typer.Option("--format", help="Encoding of Kafka records: json or avro.")]
AvroSchema = Annotated[Path | None, typer.Option(help="With avro: file to write the schema to.")]
Registry = Annotated[
    str | None, typer.Option("--schema-registry", help="With avro: registry to register the schema in.")
]
KafkaSettings = Annotated[
    Path | None, typer.Option(help="File with librdkafka settings, one name=value per line; passwords go here.")
]
Skew = Annotated[
    float, typer.Option(help="Skew of activity: the exponent of a Zipf distribution; 0: all users are equally active.")
]
Late = Annotated[float, typer.Option(help="Share of late events.")]
LateBy = Annotated[str, typer.Option(help="Lateness of late events.")]
OutOfOrder = Annotated[str, typer.Option(help="Events are out of order by at most this.")]
Duplicates = Annotated[float, typer.Option(help="Share of duplicate events.")]
Broken = Annotated[float, typer.Option(help="Share of malformed records.")]
Seed = Annotated[int, typer.Option(help="Random seed; the same seed gives the same bytes.")]
Start = Annotated[str | None, typer.Option(help="Time of the first event, ISO 8601 or ms; in real time, default: now.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No LATE lines and no summary on stderr.")]

_SHOW_EVERY_S = 0.2


def produce(
    profile: Profile = "clickstream",
    sample: Sample = False,
    num_users: Users = 50,
    events: Events = None,
    rate: Rate = None,
    duration: Duration = None,
    output: Out = None,
    skew: Skew = 0.0,
    late_fraction: Late = 0.0,
    late_by: LateBy = "3m",
    out_of_order: OutOfOrder = "0s",
    duplicate_fraction: Duplicates = 0.0,
    broken_fraction: Broken = 0.0,
    seed: Seed = 0,
    start: Start = None,
    kafka_servers: Servers = None,
    topic: Topic = None,
    record_format: Format = "json",
    avro_schema: AvroSchema = None,
    schema_registry: Registry = None,
    kafka_settings: KafkaSettings = None,
    quiet: Quiet = False,
) -> None:
    """Write sample events of synthetic visitors, who browse, buy or leave, pause and return.

    With --rate and without --events, events come in real time, for --duration or until Ctrl-C; otherwise as fast as
    possible. Rates from 10 per second are even; after a stall, events catch up at twice the rate at most.
    """
    import time

    from sessionize.app import produce as producing
    from sessionize.cli.output import print_json
    from sessionize.session.durations import parse_duration_ms

    if sample:
        for record in producing.sample(profile, seed=seed):  # type: ignore[arg-type]  # checked there
            print_json(record)
        return
    realtime = events is None
    rate = 5.0 if realtime and rate is None else rate
    started = time.perf_counter()
    settings = producing.settings_of(
        profile=profile,
        users=num_users,
        events=events,
        rate_per_s=rate,
        duration_ms=None if duration is None else parse_duration_ms(duration, name="--duration", bare_unit="m"),
        start_ms=_instant(start),
        seed=seed,
        skew=skew,
        late_fraction=late_fraction,
        late_by_ms=parse_duration_ms(late_by, name="--late-by"),
        out_of_order_ms=parse_duration_ms(out_of_order, name="--out-of-order"),
        duplicate_fraction=duplicate_fraction,
        broken_fraction=broken_fraction,
    )
    places = {"schema_file": avro_schema, "registry_url": schema_registry, "settings_file": kafka_settings}
    kafka = producing.KafkaTarget.of(servers=kafka_servers, topic=topic, record_format=record_format, **places)
    totals = producing.produce(
        settings,
        output,
        kafka=kafka,
        realtime=realtime,
        dated_now=start is None,
        progress=None if quiet or kafka is None else _counter(),
        on_late=None if quiet or not realtime else _say_late,
    )
    if not quiet:
        _say_totals(totals, time.perf_counter() - started)


def _say_totals(totals: "GeneratedTotals", seconds: float) -> None:
    sys.stderr.write(
        f"{totals.records:,} records of {totals.users:,} users in {seconds:.1f} s"
        f" ({totals.late:,} late, {totals.duplicates:,} duplicate, {totals.broken:,} broken)\n"
    )


def _counter() -> Callable[[int], None] | None:
    """Shows how many events have gone out, where somebody looks."""
    if not sys.stderr.isatty():
        return None
    import time

    shown_s = 0.0

    def show(count: int) -> None:
        nonlocal shown_s
        if time.monotonic() - shown_s > _SHOW_EVERY_S:
            shown_s = time.monotonic()
            sys.stderr.write(f"\r{count:,} events\r")
            sys.stderr.flush()

    return show


def _say_late(user: str, behind_ms: int) -> None:
    sys.stderr.write(f"LATE {user} {behind_ms / 1000:.0f} s behind\n")


def _instant(text: str | None) -> int | None:
    if text is None:
        return None
    from datetime import UTC, datetime

    if text.lstrip("-").isdigit():
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError("--start is not a time", detail=text, hint="2024-01-15T09:00:00Z, or ms since 1970") from None
    return round((at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp() * 1000)
