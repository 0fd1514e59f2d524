"""The answer of `check` as a page."""

from sessionize.analytics.checks import Check, CheckReport
from sessionize.analytics.page import Page

HEAD = ("", "check", "measured", "limit", "detail")
MARKS = {"passed": "✓ passed", "failed": "✗ failed", "skipped": "– skipped"}


def verdict(report: CheckReport) -> str:
    """The answer in a sentence."""
    judged = [each for each in report.checks if each.status != "skipped"]
    if not report.failed:
        return f"All {len(judged)} checks passed."
    return f"{report.failed} of {len(judged)} checks failed."


def row(each: Check) -> tuple[str, ...]:
    """A check by HEAD."""
    return MARKS[each.status], f"{each.group}: {each.name}", each.measured, each.limit, each.detail


def check_page(report: CheckReport) -> str:
    """The page as HTML."""
    page = Page("Are the events and sessions sound?", report.source)
    page.facts((name, f"{count:,}") for name, count in report.counts.items())
    page.heading(verdict(report))
    page.paragraph(f"Rules: {report.rules}", dim=True)
    colours = {"passed": "good", "failed": "bad", "skipped": ""}
    kinds = [colours[each.status] for each in report.checks]
    page.table(HEAD, [row(each) for each in report.checks], right=(2, 3), kinds=kinds)
    return page.html()
