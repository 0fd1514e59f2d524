"""Follows a path into a table, a column at a time: structs, lists, key/value lists, maps, JSON in text columns."""

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sessionize.arrow import decoded_type, is_text, one_chunk
from sessionize.formats.paths.in_json import value_at
from sessionize.formats.paths.language import KEY_NAMES, TYPED_VALUES, Key, Step, Steps

Places = npt.NDArray[np.int64]


def type_at(schema: pa.Schema, steps: Steps) -> pa.DataType | None:
    """The type of the values at the end of a path; None if there is no such field."""
    places = schema.get_all_field_indices(str(steps[0]))
    kind = schema.field(places[0]).type if places else None
    for step in steps[1:]:
        if kind is None:
            return None
        kind = decoded_type(kind)
        if is_text(kind):
            return pa.string()
        kind = _type_after(kind, step)
    return kind


def read_name(schema: pa.Schema, steps: Steps) -> str:
    """The dotted path to read from a file: as far as it leads through structs."""
    names = [str(steps[0])]
    kind = schema.field(names[0]).type if schema.get_all_field_indices(names[0]) else None
    for step in steps[1:]:
        if kind is None or not pa.types.is_struct(kind):
            break
        names.append(_name(step))
        place = kind.get_field_index(names[-1])
        kind = kind.field(place).type if place >= 0 else None
    return ".".join(names)


def column_at(table: pa.Table, steps: Steps) -> pa.Array:
    """The values at the end of a path that type_at found."""
    array = one_chunk(table[str(steps[0])])
    for at, step in enumerate(steps[1:], start=1):
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if is_text(array.type):
            return _in_json(array, steps[at:])
        if pa.types.is_struct(array.type):
            array = pc.struct_field(array, _name(step))  # unlike Array.field, null where the struct is null
        elif isinstance(step, int):
            array = _element(array, step)
        else:
            array = _of_key(array, _name(step))
    return array


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _name(step: Step) -> str:
    return step.name if isinstance(step, Key) else str(step)


def _type_after(kind: pa.DataType, step: Step) -> pa.DataType | None:
    if pa.types.is_struct(kind):
        place = -1 if isinstance(step, int) else kind.get_field_index(_name(step))
        return kind.field(place).type if place >= 0 else None
    if pa.types.is_map(kind):
        return None if isinstance(step, int) else kind.item_type
    if not _is_list(kind):
        return None
    if isinstance(step, int):
        return kind.value_type
    if not isinstance(step, Key) or _key_name(kind.value_type) is None:
        return None
    place = kind.value_type.get_field_index("value")
    return None if place < 0 else _typed(kind.value_type.field(place).type)


def _key_name(pair: pa.DataType) -> str | None:
    """Under which name a pair of a key/value list has its key."""
    if not pa.types.is_struct(pair):
        return None
    return next((name for name in KEY_NAMES if pair.get_field_index(name) >= 0), None)


def _typed(kind: pa.DataType) -> pa.DataType:
    """The type of what _value gives."""
    if not pa.types.is_struct(kind):
        return kind
    kinds = [kind.field(name).type for name in TYPED_VALUES if kind.get_field_index(name) >= 0]
    return kind if not kinds else kinds[0] if len(kinds) == 1 else pa.string()


def _value(values: pa.Array) -> pa.Array:
    """The values of keys: the first typed member that is not null, as text if there are several."""
    if not pa.types.is_struct(values.type):
        return values
    names = [name for name in TYPED_VALUES if values.type.get_field_index(name) >= 0]
    members = [pc.struct_field(values, name) for name in names]
    if len(members) < 2:
        return members[0] if members else values
    return pc.coalesce(*[member.cast(pa.string()) for member in members])


def _spans(array: pa.Array) -> tuple[Places, Places]:
    """(starts, lengths): where each row's elements are among the flattened ones; a null list has none."""
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.cumsum(lengths) - lengths, lengths


def _taken(values: pa.Array, places: Places) -> pa.Array:
    """The values at these places, null at -1."""
    return values.take(pa.array(places, mask=places < 0))


def _element(array: pa.Array, index: int) -> pa.Array:
    starts, lengths = _spans(array)
    at = index if index >= 0 else lengths + index
    inside = (at >= 0) & (at < lengths)
    return _taken(array.flatten(), np.where(inside, starts + at, -1))


def _of_key(array: pa.Array, key: str) -> pa.Array:
    if pa.types.is_map(array.type):
        entry = pa.struct([pa.field("key", array.type.key_type), pa.field("value", array.type.item_type)])
        array = array.cast(pa.list_(entry))
    pairs = array.flatten()
    names = pc.struct_field(pairs, _key_name(pairs.type) or KEY_NAMES[0])
    found = np.flatnonzero(pc.fill_null(pc.equal(names.cast(pa.string()), key), False).to_numpy(zero_copy_only=False))
    rows = pc.list_parent_indices(array).to_numpy(zero_copy_only=False)[found]
    rows, first = np.unique(rows, return_index=True)
    places = np.full(len(array), -1, np.int64)
    places[rows] = found[first]
    return _taken(_value(pc.struct_field(pairs, "value")), places)


def _in_json(array: pa.Array, steps: Steps) -> pa.Array:
    """The values inside of JSON texts; each distinct text is decoded once."""
    coded = array.cast(pa.string()).dictionary_encode()
    values = [value_at(text, steps) for text in coded.dictionary.to_pylist()]
    try:
        found = pa.array(values)
        if pa.types.is_nested(found.type):
            raise pa.ArrowInvalid("no single values")
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        found = pa.array([_text(value) for value in values], pa.string())
    return found.take(coded.indices)


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()
