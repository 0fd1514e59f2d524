"""The command line: thin, and quick to start; every command loads what it needs when it runs."""

from sessionize.cli.process import main

__all__ = ["main"]
