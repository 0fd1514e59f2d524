"""`init`: a preset as a pipeline file to edit."""

import sys
from typing import Annotated

import typer


def init(
    preset: Annotated[
        str | None, typer.Argument(metavar="PRESET", help="The preset to print; default: list all.")
    ] = None,
) -> None:
    """Print a preset as a pipeline file to edit: sessionize init NAME > my.toml."""
    from sessionize.app.config.presets import preset_names, preset_text

    if preset is not None:
        sys.stdout.write(preset_text(preset))
        return
    from sessionize.cli.output import print_table

    print_table("presets", ["name", "description"], preset_names())
    sys.stderr.write("to copy one:  sessionize init NAME > my.toml   then:  sessionize run my.toml\n")
