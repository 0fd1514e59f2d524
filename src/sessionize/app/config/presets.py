"""The pipelines that come with the package: each is one TOML file in sessionize/presets, run by its name or
copied and edited like any other pipeline file.
"""

import tomllib
from importlib.resources import files

from sessionize.app.config.suggest import did_you_mean, hint_of
from sessionize.errors import ConfigError


def preset_names() -> list[tuple[str, str]]:
    """Every preset as (name, its description), in the order of the names."""
    return [(name, str(tomllib.loads(text)["description"])) for name, text in sorted(_texts().items())]


def preset_text(name: str) -> str:
    """The TOML text of a preset, comments and all. Errors: ConfigError for a name that is not known."""
    texts = _texts()
    if name not in texts:
        known = sorted(texts)
        raise ConfigError(
            f"no preset named {name!r}",
            detail=f"presets: {', '.join(known)}",
            hint=hint_of(did_you_mean(name.removesuffix(".toml"), known), "a pipeline file ends in .toml"),
        )
    return texts[name]


def _texts() -> dict[str, str]:
    folder = files("sessionize").joinpath("presets")
    return {
        entry.name.removesuffix(".toml"): entry.read_text("utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    }
