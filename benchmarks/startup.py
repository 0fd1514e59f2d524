"""What starting costs: `--help` and the batch of a tiny file, the first times and from then on.

Every row has a bytecode cache of its own, which starts empty: the first run compiles everything, libraries and all.
Before the second the project's own bytecode is taken away again, as after an installation that compiles libraries
only. The files are in the page cache throughout. `python -c pass` is the floor under every row.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from contenders import SELF, Contender
from measure import Limits, run
from report import Row

TASK = "A"
ROOT = Path(__file__).resolve().parents[1]
OWN_CODE = (ROOT / "src", ROOT / "benchmarks")


def measure_startup(contenders: Sequence[Contender], python: str, tiny: Path, repeat: int, limits: Limits) -> list[Row]:
    """One row per command: a run with nothing compiled, one without the own code compiled, `repeat` more."""
    with tempfile.TemporaryDirectory(prefix="sessionize-startup-") as folder:
        output = Path(folder, "sessions.parquet")
        rows = [Row("python -c pass", [python, "-c", "pass"])]
        for contender in contenders:
            reason = contender.left_out(TASK)
            out = reason is not None and contender.is_optional
            if contender.name == SELF:
                asking = [*contender.program, "--help"]
                rows.append(Row("sessionize --help", asking, problem=reason, left_out=out))
            command = contender.command(TASK, tiny, output)
            rows.append(Row(f"tiny batch: {contender.name}", command, problem=reason, left_out=out))
        for number, row in enumerate(rows):
            bytecode = Path(folder, f"bytecode-{number}")
            env = os.environ | {"PYTHONPYCACHEPREFIX": str(bytecode)}
            env.pop("PYTHONDONTWRITEBYTECODE", None)
            for turn in range(repeat + 2):
                if turn == 1:
                    for code in OWN_CODE:
                        shutil.rmtree(bytecode / code.relative_to("/"), ignore_errors=True)
                if row.problem is None:
                    row.keep(run(row.command, limits, env))
                output.unlink(missing_ok=True)
    return rows
