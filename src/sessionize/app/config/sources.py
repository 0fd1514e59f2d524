"""Layers: what each place says about a pipeline, laid over one another: file < environment < command line.

A layer is a set of leaf values by key path, each with a name for where it came from. A higher layer that
selects another mode (input.kind, output.kind, a mapping in place of a dialect) sets aside what lower layers
said about the mode that it replaces; contradictions within one layer stay, and are refused by the validation.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sessionize.app.config.presets import preset_names, preset_text
from sessionize.app.config.suggest import closest, hint_of
from sessionize.app.config.values import parse_value, without_secrets
from sessionize.errors import ConfigError

KeyPath = tuple[str, ...]

PREFIX = "SESSIONIZE_"
_SIZE_BYTES_MAX = 1 << 20
_DEPTH_MAX = 8  # deeper than any key lies

_WITH_TABLES = (
    *("database", "table", "events", "mode", "layout", "buckets", "catalog"),
    *("postgres", "sqlite", "redis", "kafka", "lake", "console"),
)
# Which options mean something only while a key has a certain value: {selecting key: {value: its options}}.
_FORMAT_KEYS = "format pattern delimiter columns encoding decimal null_values comment page_query"
_FORMAT = tuple(("input", name) for name in _FORMAT_KEYS.split())
MODES: dict[KeyPath, dict[str, tuple[KeyPath, ...]]] = {
    ("input", "kind"): {
        "files": (("input", "paths"), ("input", "known_files"), *_FORMAT),
        "directory": (("input", "paths"), *_FORMAT),
        "kafka": (("input", "kafka"),),
        "generator": (("input", "generator"), ("input", "known_files")),
    },
    ("output", "kind"): {
        "iceberg": tuple(("output", name) for name in _WITH_TABLES),
        "parquet": (("output", "path"),),
        "csv": (("output", "path"),),
        "ndjson": (("output", "path"),),
    },
    ("output", "layout"): {"date_bucket": (("output", "buckets"),)},
}
# Two ways to say the same: at most one of them.
EITHER_OR: tuple[tuple[KeyPath, KeyPath], ...] = ((("input", "dialect"), ("input", "mapping")),)


@dataclass(frozen=True, slots=True)
class ConfigSource:
    """Leaf values by key path, and for each the place that said it."""

    values: dict[KeyPath, object] = field(default_factory=dict)
    origins: dict[KeyPath, str] = field(default_factory=dict)

    def put(self, path: KeyPath, value: object, origin: str) -> None:
        """Set one value; what lies under or above the same path gives way."""
        if value == {} and any(_within(path, known) for known in self.values):
            return
        for known in [k for k in self.values if _within(path, k) or _within(k, path)]:
            del self.values[known], self.origins[known]
        self.values[path] = value
        self.origins[path] = origin

    def drop_under(self, path: KeyPath) -> None:
        """Forget a value, or every value under a table."""
        for known in [k for k in self.values if _within(path, k)]:
            del self.values[known], self.origins[known]

    def has(self, path: KeyPath) -> bool:
        """Whether anything was said at or under a path."""
        return any(_within(path, known) for known in self.values)

    def origin_of(self, path: KeyPath) -> str | None:
        """Where a value came from; for a table, or a part of a value, the nearest that is known."""
        exact = self.origins.get(path)
        if exact is not None:
            return exact
        return next((o for k, o in self.origins.items() if _within(path, k) or _within(k, path)), None)

    def nested(self) -> dict[str, object]:
        """The values as tables within tables."""
        tree: dict[str, object] = {}
        for path, value in self.values.items():
            table = tree
            for name in path[:-1]:
                table = table.setdefault(name, {})  # type: ignore[assignment]  # leaves never lie on a path
            table[path[-1]] = value
        return tree


def file_layer(name_or_path: str) -> tuple[ConfigSource, str, Path | None]:
    """Read a preset by its name, or a pipeline file by its path: (layer, its name, its folder or None)."""
    is_path = name_or_path.endswith(".toml") or os.sep in name_or_path
    if is_path:
        path = Path(name_or_path).expanduser()
        return tree_layer(_parse(_read(path), str(path)), f"file {path}"), path.stem, path.parent
    try:
        text = preset_text(name_or_path)
    except ConfigError as error:
        beside = Path(f"{name_or_path}.toml")
        if beside.is_file():
            error.hint = f"did you mean the file {beside}?"
        raise
    return tree_layer(_parse(text, name_or_path), f"preset {name_or_path}"), name_or_path, None


def environment_layer(environ: Mapping[str, str], known: list[str]) -> ConfigSource:
    """Take the variables SESSIONIZE_<SECTION>__<KEY>; a key of [run] and a top-level key need no section.

    An empty variable counts as not set. Errors: ConfigError for a variable that names no key, and for a key
    that two of them set.
    """
    layer = ConfigSource()
    keys = {tuple(key.split(".")) for key in known}
    tables = {key[:end] for key in keys for end in range(1, len(key))}
    for name, text in sorted(environ.items()):
        if not name.startswith(PREFIX) or not text:
            continue
        path = tuple(name.removeprefix(PREFIX).lower().split("__"))
        if len(path) == 1 and ("run", *path) in keys:
            path = ("run", *path)
        if path not in keys and path not in tables:
            raise _unknown_variable(name, path, known)
        value = parse_value(text)
        if layer.has(path) and layer.values.get(path) != value:
            raise ConfigError(
                f"{'.'.join(path)} is set twice in the environment",
                detail=f"{layer.origin_of(path)} and {name} differ",
                hint="unset one of them",
            )
        for leaf, leaf_value in _leaves(value, path):
            layer.put(leaf, leaf_value, f"environment {name}")
    return layer


def option_layer(overrides: Mapping[str, object]) -> ConfigSource:
    """Take the command line's {dotted key: value}; None means the option was not given."""
    layer = ConfigSource()
    for key, value in overrides.items():
        if value is not None:
            for path, leaf in _leaves(value, tuple(key.split("."))):
                layer.put(path, leaf, "option")
    return layer


def tree_layer(tree: Mapping[str, object], origin: str) -> ConfigSource:
    """Take tables within tables."""
    values = dict(_leaves(tree, ()))
    return ConfigSource(values, dict.fromkeys(values, origin))


def merge_source(lower: ConfigSource, upper: ConfigSource) -> None:
    """Lay upper over lower, in place; see the module's text for what a newly selected mode sets aside."""
    for key, options_of in MODES.items():
        chosen = upper.values.get(key)
        if chosen is not None and chosen != lower.values.get(key):
            kept = options_of.get(str(chosen), ())
            for option in {o for options in options_of.values() for o in options} - set(kept):
                lower.drop_under(option)
    for one, other in EITHER_OR:
        if upper.has(one) != upper.has(other):
            lower.drop_under(other if upper.has(one) else one)
    limit = upper.values.get(("rules", "max_duration"))
    if isinstance(limit, str) and limit.strip().lower() == "none":
        lower.drop_under(("rules", "max_duration_mode"))
    for path in upper.values:
        if path[0] == "session_columns" and len(path) > 1:
            lower.drop_under(path[:2])  # a column is made in one way, so it is replaced as a whole
    for path, value in upper.values.items():
        lower.put(path, value, upper.origins[path])


def _leaves(value: object, path: KeyPath) -> Iterator[tuple[KeyPath, object]]:
    if isinstance(value, Mapping) and value and len(path) < _DEPTH_MAX:
        for name, inner in value.items():
            yield from _leaves(inner, (*path, str(name)))
    elif path:
        yield path, value


def _within(table: KeyPath, path: KeyPath) -> bool:
    return path[: len(table)] == table


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _SIZE_BYTES_MAX:
            raise ConfigError(
                f"{path} is too large for a pipeline file",
                detail=f"{path.stat().st_size} bytes, at most {_SIZE_BYTES_MAX}",
                hint="to read it as data, use `run --input FILE`, or input.paths in the pipeline file",
            )
        raw = path.read_bytes()
    except FileNotFoundError:
        presets = [name for name, _ in preset_names()]
        beside = {p.stem: str(p) for p in path.parent.glob("*.toml")} if path.parent.is_dir() else {}
        near = closest(path.stem, [*presets, *beside])
        hint = hint_of(
            f"did you mean {beside.get(near, near)}?" if near else "",
            f"presets: {', '.join(presets)}",
            "`sessionize init PRESET > my.toml` creates a file to edit",
        )
        raise ConfigError("no such pipeline file", detail=without_secrets(str(path)), hint=hint) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError("the pipeline file cannot be read", detail=f"{path}: {reason}") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        column = error.start - before.rfind(b"\n")
        raise ConfigError(
            "the pipeline file is not UTF-8 text",
            detail=f"{path}: byte 0x{raw[error.start]:02x} (at line {before.count(10) + 1}, column {column})",
            hint="save it as UTF-8",
        ) from None


def _parse(text: str, where: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        last = f"at line {text.count(chr(10)) + 1}, column {len(text) - text.rfind(chr(10))}, the end"
        raise ConfigError(
            "the pipeline file is not valid TOML",
            detail=f"{where}: {error}".replace("at end of document", last),
            hint='text needs quotes (gap = "30m"), a section needs brackets ([rules]), a key occurs once',
        ) from None
    except RecursionError:
        raise ConfigError("the pipeline file is nested too deeply", detail=where) from None


def _unknown_variable(name: str, path: KeyPath, known: list[str]) -> ConfigError:
    near = closest(".".join(path), [*known, *(k.removeprefix("run.") for k in known)])
    variable = "" if near is None else f"did you mean {PREFIX}{near.replace('.', '__').upper()}?"
    return ConfigError(
        "an environment variable names an unknown key",
        detail=f"{name} would set {'.'.join(path)}",
        hint=hint_of(variable, f"write {PREFIX}<SECTION>__<KEY>, for example {PREFIX}RULES__GAP=45m, or unset it"),
    )
