"""A real Kafka broker (KRaft) on loopback, started from jars in a few seconds, for tests and the demo.

KafkaBroker is a child process that ends with this process. KafkaServers is any broker by its address: topics, records,
offsets.
"""

import base64
import contextlib
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # untyped
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from sessionize.testing.services import child
from sessionize.testing.services.java_parts import java, server_jars

_START_TIMEOUT_S = 90
_STOP_TIMEOUT_S = 20
_CALL_TIMEOUT_S = 20
_POLL_S = 0.05
_MEMORY = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")


@dataclass(frozen=True, slots=True)
class KafkaServers:
    """A running broker. servers: its address in the form for clients."""

    servers: str

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """Create a topic and wait until it is usable; returns its name. Errors: KafkaException."""
        topic = NewTopic(name, partitions, 1, config=dict(config or {}))
        admin = self._admin()  # running calls end with it
        admin.create_topics([topic])[name].result(_CALL_TIMEOUT_S)
        self._wait_for_partitions(name, partitions)
        return name

    def add_partitions(self, topic: str, total: int) -> None:
        """Increase a topic's partitions to this number."""
        admin = self._admin()
        admin.create_partitions([NewPartitions(topic, total)])[topic].result(_CALL_TIMEOUT_S)
        self._wait_for_partitions(topic, total)

    def configure_topic(self, topic: str, config: Mapping[str, str]) -> None:
        """Change settings of a topic."""
        entries = [ConfigEntry(n, v, incremental_operation=AlterConfigOpType.SET) for n, v in config.items()]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        admin = self._admin()
        admin.incremental_alter_configs([resource])[resource].result(_CALL_TIMEOUT_S)

    def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        """Delete the records of each partition before an offset, as retention does."""
        wanted = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
        admin = self._admin()
        for done in admin.delete_records(wanted).values():
            done.result(_CALL_TIMEOUT_S)

    def delete_topic(self, topic: str) -> None:
        """Delete a topic."""
        admin = self._admin()
        admin.delete_topics([topic])[topic].result(_CALL_TIMEOUT_S)

    def send(
        self,
        topic: str,
        values: Sequence[bytes | None],
        *,
        partition: int = 0,
        keys: Sequence[bytes | None] | None = None,
        headers: Sequence[tuple[str, bytes]] | None = None,
    ) -> None:
        """Write records to one partition, in order, and wait until they are stored. Errors: KafkaException."""
        producer = Producer({"bootstrap.servers": self.servers, "max.in.flight": 1, "linger.ms": 5})
        failed: list[KafkaException] = []
        marks: list[tuple[str, str | bytes | None]] = [*(headers or ())]

        def note(error: object, _message: object) -> None:
            if error is not None:
                failed.append(KafkaException(error))

        for number, value in enumerate(values):
            key = None if keys is None else keys[number]
            while True:
                try:
                    producer.produce(topic, value=value, key=key, partition=partition, on_delivery=note, headers=marks)
                    break
                except BufferError:
                    producer.poll(_POLL_S)
        producer.flush(_CALL_TIMEOUT_S)
        if failed:
            raise failed[0]

    def records(self, topic: str, partition: int | None = None) -> list[Message]:
        """All committed records of a topic, or of one partition; in order for each partition.

        Errors: TimeoutError if it does not end.
        """
        settings = {"bootstrap.servers": self.servers, "group.id": "reader", "isolation.level": "read_committed",
                    "enable.partition.eof": True, "enable.auto.commit": False}  # fmt: skip
        consumer, found = Consumer(settings), list[Message]()
        try:
            known = consumer.list_topics(topic, timeout=_CALL_TIMEOUT_S).topics[topic].partitions
            left = set(known) if partition is None else {partition}
            consumer.assign([TopicPartition(topic, number, 0) for number in left])
            until_s = time.monotonic() + _CALL_TIMEOUT_S
            while left:
                messages = consumer.consume(10_000, _POLL_S)
                if messages:
                    until_s = time.monotonic() + _CALL_TIMEOUT_S
                elif time.monotonic() > until_s:
                    raise TimeoutError(f"topic {topic} does not end")
                for message in messages:
                    error = message.error()
                    if error is None:
                        found.append(message)
                    elif error.code() == KafkaError._PARTITION_EOF:
                        left.discard(message.partition() or 0)
        finally:
            consumer.close()
        return found

    def committed(self, topic: str, partition: int = 0) -> list[bytes]:
        """The values of `records` of a partition."""
        return [bytes(message.value() or b"") for message in self.records(topic, partition)]

    def answers(self) -> bool:
        """Whether the broker answers now."""
        try:
            self._admin().list_topics(timeout=1)
        except KafkaException:
            return False
        return True

    def _admin(self) -> AdminClient:
        # Errors while connecting to a starting broker are not logged.
        return AdminClient({"bootstrap.servers": self.servers, "log_level": 0, "reconnect.backoff.max.ms": 500})

    def _wait_for_partitions(self, topic: str, count: int) -> None:
        admin = self._admin()
        until = time.monotonic() + _CALL_TIMEOUT_S
        while True:
            metadata = admin.list_topics(topic, timeout=_CALL_TIMEOUT_S).topics[topic]
            leaders = [p.leader for p in metadata.partitions.values() if p.error is None]
            if len(leaders) == count and min(leaders) >= 0:
                return
            if time.monotonic() > until:
                raise TimeoutError(f"topic {topic} has {len(leaders)} of {count} partitions")
            time.sleep(_POLL_S)


class KafkaBroker:
    """A broker with its data in a folder; it ends with the thread that started it, even if that is killed.

    port: on loopback; 0 chooses one at the first start and keeps it. Errors: ServiceMissing if Java or the jars are
    missing.
    """

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._port = port
        self._jars = server_jars("kafka")
        self._java = java()

    @property
    def servers(self) -> KafkaServers:
        """The broker's address, valid from the first start on."""
        return KafkaServers(f"127.0.0.1:{self._port}")

    @property
    def bootstrap_servers(self) -> str:
        """The same as text."""
        return self.servers.servers

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """Create a topic; returns its name."""
        return self.servers.create_topic(name, partitions, config)

    def start(self) -> None:
        """Start, and wait until the broker answers. Errors: RuntimeError with the end of its log if it does not."""
        if self._process is not None:
            raise RuntimeError("the broker runs already")
        if not self._properties.exists():
            self._prepare()
        memory = [*_MEMORY, f"-Dkafka.logs.dir={self.folder}"]
        self._process = self._spawn(*memory, "kafka.Kafka", str(self._properties))
        until = time.monotonic() + _START_TIMEOUT_S
        while not (self._listens() and self.servers.answers()):
            code = self._process.poll()
            if code is not None or time.monotonic() > until:
                self.kill()
                raise RuntimeError(f"the Kafka broker did not start (exit code {code}): {self._log_end()}")
            time.sleep(_POLL_S)

    def wait(self) -> None:
        """Wait until it ends by itself. Errors: RuntimeError with the end of its log."""
        if self._process is not None:
            code = self._process.wait()
            raise RuntimeError(f"the Kafka broker ended with exit code {code}: {self._log_end()}")

    def stop(self) -> None:
        """Shut it down cleanly; does nothing if it is not running."""
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_TIMEOUT_S)
        self.kill()

    def kill(self) -> None:
        """Kill it, like a crash; does nothing if it is not running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Stop and start with the same data and address."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        port, controller_port = _free_ports()
        self._port = self._port or port
        text = _server_properties(data=self.folder / "data", port=self._port, controller_port=controller_port)
        self._properties.write_text(text, encoding="utf-8")
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # A cluster id that begins with a dash would be parsed as an option.
        options = ("format", f"--cluster-id={cluster}", "-c", str(self._properties))
        code = self._spawn("-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", *options).wait(_START_TIMEOUT_S)
        if code != 0:
            raise RuntimeError(f"the Kafka broker's folder could not be formatted: {self._log_end()}")

    def _spawn(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / "broker.log").open("ab") as log:
            dependent = (sys.executable, "-I", "-S", child.__file__, str(os.getpid()))
            return subprocess.Popen(
                [*dependent, self._java, "-cp", str(self._jars / "*"), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C in a terminal is for the parent process
            )

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def _log_end(self) -> str:
        return (self.folder / "broker.log").read_text(errors="replace")[-1_000:].strip() or "it wrote no log"


def _free_ports() -> tuple[int, int]:
    """Two free ports on loopback."""
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


def _server_properties(*, data: Path, port: int, controller_port: int) -> str:
    """The configuration of a single node that is broker and controller, on loopback."""
    settings = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": data,
        # What a cluster replicates or splits into many parts, a single node has once or in few parts.
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        # After a kill the node waits until its previous registration expires, 9 s by default.
        "broker.session.timeout.ms": 1_500,
        "broker.heartbeat.interval.ms": 300,
        "auto.create.topics.enable": "false",
        "log.retention.hours": -1,
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())
