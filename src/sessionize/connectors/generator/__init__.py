"""Synthetic clickstreams: users who visit, pause and return, written in five systems' formats."""

from sessionize.connectors.generator.pace import Timer
from sessionize.connectors.generator.settings import (
    PROFILE_NAMES,
    GeneratedTotals,
    GeneratorSettings,
    ProfileName,
)
from sessionize.connectors.generator.writer import LateRecord, open_output, sample, write_lines

__all__ = [
    "PROFILE_NAMES",
    "GeneratedTotals",
    "GeneratorSettings",
    "LateRecord",
    "ProfileName",
    "Timer",
    "open_output",
    "sample",
    "write_lines",
]
