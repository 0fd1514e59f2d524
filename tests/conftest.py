"""What holds for every test: hypothesis profiles, servers, and no skipping in CI.

CI sets the environment variable CI to "true". A test skipped there would look like a test passed,
so there it fails, with the reason it gave; the same goes for a module that skips itself while it is imported.
"""

import os
import signal
from collections.abc import Generator

import pytest
from hypothesis import settings

from sessionize.testing.services.fixtures import kafka, own_kafka, postgres, rest_catalog, valkey

__all__ = ["kafka", "own_kafka", "postgres", "rest_catalog", "valkey"]

# A shell that starts the tests in the background has SIGINT ignored, and so would every process that a test interrupts.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

IN_CI = os.environ.get("CI") == "true"

# The machine may be busy, so no deadline. A failing example prints the blob that replays it.
settings.register_profile("default", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=False)
settings.load_profile("ci" if IN_CI else "default")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        fail_instead_of_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if IN_CI and report.skipped:
        fail_instead_of_skip(report)
    return report


def fail_instead_of_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    report.outcome = "failed"
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.longrepr = f"{report.nodeid} may not be skipped in CI. {reason}"
