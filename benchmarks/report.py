"""Turns measurements into plain tables, and says on which machine they were taken."""

import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measure import Run, Spread

ABSENT = "–"
SAID_LINES = 12


@dataclass(slots=True)
class Row:
    """A command and its runs. `problem` (WRONG, FAILED, …) takes the place of the figures, `said` is shown below.

    `left_out`: it could not take part, which is no failure.
    """

    name: str
    command: Sequence[str]
    runs: list[Run] = field(default_factory=list)
    problem: str | None = None
    said: str = ""
    left_out: bool = False

    def keep(self, run: Run) -> None:
        """Takes in a run; from a failed one only the failure."""
        if run.failure is None:
            self.runs.append(run)
        else:
            self.problem, self.said = run.failure, run.said

    def spread(self, measure: str) -> Spread | None:
        return Spread.of([getattr(run, measure) for run in self.runs]) if self.runs and self.problem is None else None

    def ratio(self, base: "Row | None", measure: str) -> Spread | None:
        """This one over `base`, each run over that of the same round."""
        if base is None or self.problem is not None or base.problem is not None:
            return None
        pairs = [
            (getattr(mine, measure), getattr(other, measure)) for mine, other in zip(self.runs, base.runs, strict=True)
        ]
        return Spread.of([mine / other for mine, other in pairs]) if all(other for _, other in pairs) else None

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "command": shlex.join(self.command),
            "problem": self.problem,
            "runs": [run.as_dict() for run in self.runs],
        }


def machine() -> dict[str, str]:
    """CPU, cores, memory, system."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    memory_kb = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "cpu": cpu or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory_kb * 1024 / 1e9:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def machine_lines(facts: Mapping[str, str], versions: Mapping[str, str]) -> str:
    hardware = f"{facts['cpu']}, {facts['cores']} cores, {facts['memory']}, {facts['system']}"
    software = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    return f"{hardware}, load {facts['load']}\nPython {facts['python']}, {software}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need be; the first and the last to the left, figures to the right."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    last = len(header) - 1
    shown = []
    for line in lines:
        cells = [
            cell.ljust(width) if i in (0, last) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        shown.append("  ".join(cells).rstrip())
    shown.insert(1, "  ".join("-" * width for width in widths).rstrip())
    return "\n".join(shown)


def costs(rows: Sequence[Row], base_name: str) -> str:
    """Wall, CPU and peak memory of every row, and each over `base_name`'s (above 1: it takes more)."""
    base = next((row for row in rows if row.name == base_name), None)
    header = ("", "wall s", "min–max", "CPU s", "min–max", "peak MB", "× wall", "min–max", "× CPU", "× MB", "")
    lines = []
    for row in rows:
        peak = row.spread("peak_mb")
        wall_ratio, cpu_ratio, peak_ratio = (row.ratio(base, m) for m in ("wall_s", "cpu_s", "peak_mb"))
        lines.append(
            (
                row.name,
                *median_and_range(row.spread("wall_s")),
                *median_and_range(row.spread("cpu_s")),
                f"{peak.median:,.0f}" if peak else ABSENT,
                *median_and_range(wall_ratio),
                median_and_range(cpu_ratio)[0],
                median_and_range(peak_ratio)[0],
                row.problem or "ok",
            )
        )
    return table(header, lines)


def starts(rows: Sequence[Row]) -> str:
    """The first two runs of every row apart from the later ones; see startup.py."""
    lines = []
    for row in rows:
        if row.problem is not None:
            lines.append((row.name, *[ABSENT] * 6, row.problem))
            continue
        uncompiled, first, *later = row.runs
        lines.append(
            (
                row.name,
                f"{uncompiled.wall_s:.2f}",
                f"{first.wall_s:.2f}",
                *median_and_range(Spread.of([run.wall_s for run in later])),
                f"{Spread.of([run.cpu_s for run in later]).median:.2f}",
                f"{max(run.peak_mb for run in row.runs):,.0f}",
                "ok",
            )
        )
    return table(("", "nothing compiled s", "first s", "next s", "min–max", "CPU s", "peak MB", ""), lines)


def median_and_range(spread: Spread | None) -> tuple[str, str]:
    if spread is None:
        return ABSENT, ABSENT
    return f"{spread.median:.2f}", f"{spread.low:.2f}–{spread.high:.2f}"


def failures(rows: Sequence[Row]) -> list[str]:
    """What the failed commands were and the last they said, a paragraph each."""
    return [
        "\n".join(
            (
                f"{row.name}: {row.problem}",
                f"  $ {shlex.join(row.command)}",
                *(f"  | {line}" for line in row.said.strip().splitlines()[-SAID_LINES:]),
            )
        )
        for row in rows
        if row.problem is not None and not row.left_out
    ]
