"""Checks that the topic is the one of the state: a topic may have been recreated under the same name.

Offsets do not show this: a new topic that is longer than the old one would be read from the middle. The topic's id is
saved beside the checkpoints before the first record is read.
"""

from pathlib import Path

from sessionize.durable import atomic_write, disk_errors
from sessionize.errors import StateError

NOTE = "topic.id"


def check_same_topic(folder: Path, topic: str, topic_id: str | None) -> None:
    """Save the topic's id, or compare it with the saved one. topic_id: None from servers without ids; not checked then.

    Errors: StateError if it is another topic; UnavailableError if the disk is full or fails, OutputError if the saved
    id cannot be read or written for a permanent reason.
    """
    if topic_id is None:
        return
    note = folder / NOTE
    with disk_errors(
        "the topic's id cannot be saved",
        note,
        hint="free disk space, fix the disk, or check the folder's permissions; nothing was read",
    ):
        known = note.read_text(errors="replace").strip() if note.exists() else ""
        if not known or not known.isascii():  # a damaged file counts as missing
            with atomic_write(note) as unfinished:
                unfinished.write_text(f"{topic_id}\n")
            return
    if known != topic_id:
        raise StateError(
            "the Kafka topic was recreated",
            detail=f"{topic} has the id {topic_id}; the state in {folder} was made with {known}",
            hint="it was deleted and recreated, so the old offsets do not apply. Start over with a new --home, or "
            "another stream.writer and empty outputs",
        )
