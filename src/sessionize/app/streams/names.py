"""What a process of a stream is called: its share of the topic, the writer of its epochs, and where its state is."""

import os
from pathlib import Path

from sessionize.app.config.pipeline import PipelineConfig


def instance_of(config: PipelineConfig) -> tuple[int, int] | None:
    """(i, n) when the topic is split between n processes, of which this is number i; None for a whole topic.

    Errors: ConfigError where the host's name does not say which one it is.
    """
    from sessionize.connectors.kafka.partitions import instance_of as instance_of_host

    kafka = config.input.kafka
    if config.input.kind != "kafka" or kafka.instances == 1:
        return None
    if kafka.instance is not None:
        return (kafka.instance, kafka.instances)
    return instance_of_host(os.uname().nodename, kafka.instances)


def shares_topic(config: PipelineConfig) -> bool:
    """Whether other processes may read the rest of the topic."""
    kafka = config.input.kafka
    return config.input.kind == "kafka" and (kafka.instances > 1 or kafka.partitions is not None)


def writer_name(config: PipelineConfig) -> str:
    """Under which name epochs are recorded: one for each process that may write. Errors: those of instance_of."""
    if config.stream.writer is not None:
        return config.stream.writer
    share = instance_of(config)
    if config.input.kind == "kafka" and config.input.kafka.partitions is not None:
        return f"{config.name}-p{config.input.kafka.partitions.replace(' ', '').replace(',', '_')}"
    return config.name if share is None else f"{config.name}-{share[0]}"


def state_folder(config: PipelineConfig, writer: str) -> Path:
    """Where a writer keeps its checkpoints."""
    return config.home / "state" / writer


def name_of_input(config: PipelineConfig) -> str:
    """What the input is called in reports of unavailable servers: not like an output."""
    kind = config.input.kind
    return "kafka input" if kind == "kafka" and config.output.kafka is not None else kind
