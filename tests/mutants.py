"""Break every comparison that a rule hangs on, one at a time, and see a test fail: `make mutants`.

Each mutant is a copy of the package in a temporary folder in which one `>` became `>=` (or `<` `<=`, `==` `!=`, and the
other way round). The case files and the invariant's tests run against it; a mutant that they pass has survived, and the
run fails. Takes some minutes, so it is not part of the suite.
"""

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "sessionize"
# The functions that decide where a session begins, ends, is final, late or a duplicate.
TARGETS = {
    "kernel/cutting.py": {"cut", "_rule_at", "_split", "_number", "_give_start_reasons", "_end_reasons"},
    "kernel/cuts/pieces.py": {"pieces", "_counted", "_anchored", "_rolling", "_rolling_both", "_bisect"},
    "kernel/cuts/runs.py": {"running_maximum", "last_rows_with_value", "changes"},
    "kernel/emit.py": {"_bounces"},
    "kernel/ordering.py": {"tied_rows", "resolve_ties"},
    "kernel/pending.py": {"split"},
    "kernel/reorder.py": {"push"},
    "kernel/session_operator.py": {"flush"},
    "kernel/reference.py": {"reference_sessions", "rule_before"},
    "kernel/sums.py": {"sums", "revenue"},
    "session/policy.py": {"longest_silence_ms", "inclusive_ms", "drops_short", "keeps", "numbers_sessions"},
    "session/gap_by.py": {"of_text"},
    "session/event_gaps.py": {"_of_numbers"},
    "kernel/open_sessions.py": {"silent_slots"},
    "engine/lateness.py": {"late"},
}
SECONDS_MAX = 240
OPPOSITE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
}  # fmt: skip
# Comparisons that decide nothing but speed or an assertion: equal results by construction.
HARMLESS = {
    ("kernel/pending.py", "self.first_ms >= watermark_ms"),  # searchsorted then finds an empty prefix
    ("kernel/pending.py", "2 * int(np.count_nonzero(settled)) >= n"),  # copied or sorted, the same rows come out
    ("kernel/sums.py", "most * longest <= _LOW_MAX"),  # the slow road gives the same
    ("kernel/sums.py", "low > _EXACT_MAX"),  # dividing at once is exact here too
    ("kernel/sums.py", "low < -_EXACT_MAX"),
    ("kernel/cuts/pieces.py", "time[last] - begin >= limit"),  # chains looked at once more
    ("kernel/cuts/runs.py", "int(group[-1]).bit_length() + bits <= _KEY_BITS"),  # the slow road gives the same
    ("session/policy.py", "self.min_duration_ms > 0"),  # a filter that keeps all
}


def mutants() -> Iterator[tuple[str, int, str, str]]:
    """(file, line, comparison, whole mutated source)."""
    for name, functions in TARGETS.items():
        source = (PACKAGE / name).read_text()
        tree = ast.parse(source)
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef) or function.name not in functions:
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.Compare) and type(node.ops[0]) in OPPOSITE:
                    text, before = ast.unparse(node), node.ops[0]
                    node.ops[0] = OPPOSITE[type(before)]()
                    if (name, text) not in HARMLESS:
                        yield name, node.lineno, f"{text}  →  {ast.unparse(node)}", ast.unparse(tree)
                    node.ops[0] = before


def survives(mutant: tuple[str, int, str, str]) -> bool:
    """Whether the tests pass with this mutant in place."""
    name, _, _, source = mutant
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder) / "sessionize"
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        (copy / name).write_text(source)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist",
                   *(f"tests/kernel/test_{name}.py" for name in ("cases", "invariant", "sums")),
                   "tests/session/test_rules_of_runs.py"]  # fmt: skip
        environ = {**os.environ, "PYTHONPATH": folder}
        try:
            run = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, timeout=SECONDS_MAX, check=False)
        except subprocess.TimeoutExpired:
            return False  # it loops for ever, which the tests would notice
        return run.returncode == 0


def main() -> int:
    """Try them all, two at a time; 0 when none survives."""
    found = list(mutants())
    survivors = []
    with ThreadPoolExecutor(2) as pool:
        for mutant, alive in zip(found, pool.map(survives, found), strict=True):
            print(f"{'SURVIVED' if alive else 'killed':9} {mutant[0]}:{mutant[1]}  {mutant[2]}", flush=True)
            if alive:
                survivors.append(mutant)
    print(f"{len(found)} mutants, {len(survivors)} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
