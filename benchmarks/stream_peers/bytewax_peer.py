"""bytewax, session windows: JSON events from a topic, sessions as JSON to another; ends where the topic ends.

The clock is event time alone (the system's stands still), so that replaying cannot make an event late. One worker: more
share Python's lock. `--recovery FOLDER` snapshots the state into SQLite every 10 s.
"""

import argparse
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, SessionWindower, fold_window
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import run_main

STOPPED = datetime(2025, 1, 1, tzinfo=UTC)
BATCH_MESSAGES = 5_000
SNAPSHOT = timedelta(seconds=10)


def user_and_time(message):
    event = json.loads(message.value)
    return event["uuid"], int(event["event_timestamp"])


def event_time(time_ms):
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def empty():
    return [1 << 62, 0, 0]


def with_event(session, time_ms):
    if time_ms < session[0]:
        session[0] = time_ms
    if time_ms > session[1]:
        session[1] = time_ms
    session[2] += 1
    return session


def merged(one, other):
    return [min(one[0], other[0]), max(one[1], other[1]), one[2] + other[2]]


def as_message(keyed):
    user, (_, (start, end, count)) = keyed
    session = {"user": user, "start": start, "end": end, "event_count": count}
    return KafkaSinkMessage(user.encode(), json.dumps(session).encode())


def dataflow(servers, source, target):
    flow = Dataflow("sessions")
    messages = op.input("in", flow, KafkaSource([servers], [source], tail=False, batch_size=BATCH_MESSAGES))
    events = op.map("parse", messages, user_and_time)
    clock = EventClock(
        ts_getter=event_time,
        wait_for_system_duration=timedelta(seconds=61),
        now_getter=lambda: STOPPED,
        to_system_utc=lambda _: None,
    )
    windower = SessionWindower(gap=timedelta(minutes=30))
    # a fold that does not look at the order spares it the queue in which events wait to be sorted
    windows = fold_window("session", events, clock, windower, empty, with_event, merged, ordered=False)
    op.output("out", op.map("json", windows.down, as_message), KafkaSink([servers], target))
    return flow


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("servers")
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--recovery", type=Path)
    args = parser.parse_args()
    flow = dataflow(args.servers, args.source, args.target)
    if args.recovery is None:
        run_main(flow)
        return
    args.recovery.mkdir(parents=True)
    init_db_dir(args.recovery, 1)
    run_main(flow, epoch_interval=SNAPSHOT, recovery_config=RecoveryConfig(str(args.recovery)))


if __name__ == "__main__":
    main()
