"""A Kafka broker for trying streams, until Ctrl-C: `python -m sessionize.testing.services.broker`, or `make kafka`.

One node on loopback, started from jars that Maven downloads once. Its data is in a temporary folder.
"""

import argparse
import signal
import socket
import sys
import tempfile
from pathlib import Path

from sessionize.testing.services.java_parts import ServiceMissing
from sessionize.testing.services.kafka import KafkaBroker

PORT = 9092
TOPIC = "web-events"
_PARTITIONS = 2


def main() -> int:
    """Run the broker; returns the exit code."""
    parser = argparse.ArgumentParser(description="A Kafka broker on loopback for trying streams, until Ctrl-C.")
    parser.add_argument("--port", type=int, default=PORT)
    port = parser.parse_args().port
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if _is_taken(port):
        return _failed(f"port {port} is in use: use the server there, or choose another port with --port")
    try:
        sys.stderr.write("starting Kafka; the first time Maven downloads its jars, which takes a minute …\n")
        with tempfile.TemporaryDirectory(prefix="sessionize-kafka-") as folder:
            _run(Path(folder), port)
    except ServiceMissing as missing:
        return _failed(
            f"{missing}\n"
            "  Kafka needs Java 17 or newer and Maven (Debian, Ubuntu: apt install default-jre-headless maven).\n"
            "  Without them, `sessionize demo --stream` shows a stream that needs no server."
        )
    except RuntimeError as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
    return 0


def _run(folder: Path, port: int) -> None:
    with KafkaBroker(folder / "kafka", port=port) as broker:
        broker.create_topic(TOPIC, _PARTITIONS)
        servers = broker.bootstrap_servers
        sys.stderr.write(
            f"Kafka runs at {servers} with the topic {TOPIC}; Ctrl-C stops it. In other terminals:\n"
            f"  sessionize produce --kafka-servers {servers} --topic {TOPIC} --rate 50 --num-users 1000\n"
            f"  sessionize run kafka_stream --kafka-servers {servers} --gap 30s --lateness 5s --home try\n"
        )
        broker.wait()


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _failed(why: str) -> int:
    sys.stderr.write(f"error: {why}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
