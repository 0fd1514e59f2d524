"""Whether the topic is the one that a state was made with: one of the same name may have been made anew.

Offsets alone do not tell: a new topic that has grown beyond ours would be read on from the middle. The note lies beside
the checkpoints, and is made before the first record is read.
"""

from pathlib import Path

from sessionize.durable import atomic_write, is_transient
from sessionize.errors import OutputError, StateError, UnavailableError

NOTE = "topic.id"


def check_same_topic(folder: Path, topic: str, topic_id: str | None) -> None:
    """Note the topic's id, or compare it with the note. topic_id: None where servers give none; then nothing is known.

    Errors: StateError when it is another topic; UnavailableError when the disk is full or fails, OutputError when the
    note cannot be read or written for a reason that stays.
    """
    if topic_id is None:
        return
    note = folder / NOTE
    try:
        known = note.read_text(errors="replace").strip() if note.exists() else ""
        if not known or not known.isascii():  # what is damaged counts as absent
            with atomic_write(note) as unfinished:
                unfinished.write_text(f"{topic_id}\n")
            return
    except OSError as error:
        raise (UnavailableError if is_transient(error) else OutputError)(
            "the topic's id cannot be saved",
            detail=f"{note}: {error.strerror or error}",
            hint="free disk space, fix the disk, or check the folder's permissions; nothing was read",
        ) from error
    if known != topic_id:
        raise StateError(
            "the Kafka topic was recreated",
            detail=f"{topic} has the id {topic_id}; the state in {folder} was made with {known}",
            hint="it was deleted and recreated, so the old offsets do not apply. Start over with a new --home, or "
            "another stream.writer and empty outputs",
        )
