"""The names of the fields in the first records of an input, to suggest one for a mistyped name."""

from collections.abc import Iterable

_BYTES_MAX = 1 << 16


def names_of_fields(inputs: Iterable[str]) -> list[str]:
    """The fields of the first plain JSON lines among these files; none where there are no such lines."""
    from sessionize.connectors.files.source_paths import input_files
    from sessionize.errors import SessionizeError
    from sessionize.formats.absent_fields import names_of_records

    try:
        files, _ = input_files(list(inputs))
    except SessionizeError:
        return []
    for file in files:
        if file.pipe:
            continue
        try:
            with open(file.path, "rb") as stream:
                names = names_of_records(stream.read(_BYTES_MAX).splitlines())
        except OSError:
            continue
        if names:
            return names
    return []
