"""`label`: files of events in, every event with the id of its session into one file or table."""

from typing import Annotated

from sessionize.app.options import FileOptions
from sessionize.cli import options as opt
from sessionize.cli.batch import DryRun, run_files


def label(
    options: Annotated[FileOptions, opt.LABEL],
    dry_run: DryRun = False,
    as_json: opt.Json = False,
) -> None:
    """Read files of events and write one row per event, with its session id.

    A row has the decoded event (user, event_time_ms, event_id, event_type, page, value: those the records have), its
    other fields as columns, and nested values as JSON in `properties`.
    """
    run_files("labels", options, dry_run=dry_run, as_json=as_json)
