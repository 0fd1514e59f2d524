"""Another version of sessionize beside this one: taken out of git into a folder, with what it takes to run it.

Where both are locked to the same packages they share this environment, and only the source differs; otherwise the
other one gets an environment of its own.
"""

import compileall
import io
import os
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = "requirements.lock"
THIS = "this"


@dataclass(frozen=True, slots=True)
class Version:
    """A version that can be run. described: its commit; python: what runs scripts with its source."""

    name: str
    described: str
    python: tuple[str, ...]
    entry_point: str

    @property
    def command(self) -> tuple[str, ...]:
        """The command `sessionize`; the one of an environment may belong to the other version."""
        module, _, function = self.entry_point.partition(":")
        return (*self.python, "-c", f"import sys\nfrom {module} import {function}\nsys.exit({function}())")


def git(*arguments: str) -> str:
    """What git says about this repository. Errors: SystemExit with what it complains about."""
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def this_version() -> Version:
    """The files as they are here, committed or not."""
    changed = " with changes" if git("status", "--porcelain", "--", "src") else ""
    return _version(THIS, git("log", "-1", "--format=%h%x20%s") + changed, ROOT, Path(sys.executable))


def other_version(revision: str, folder: Path) -> Version:
    """A revision, its files in an empty folder. Errors: SystemExit when there is none, or it cannot be set up."""
    commit = git("rev-parse", "--verify", "--short", f"{revision}^{{commit}}")
    packed = subprocess.run(["git", "-C", str(ROOT), "archive", commit], stdout=subprocess.PIPE, check=True)
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as files:
        files.extractall(folder, filter="data")
    python = Path(sys.executable)
    if (folder / LOCK).read_bytes() != (ROOT / LOCK).read_bytes():
        subprocess.run([str(folder / "scripts" / "setup")], check=True)
        python = folder / ".venv" / "bin" / "python"
    return _version(revision, git("log", "-1", "--format=%h%x20%s", commit), folder, python)


def _version(name: str, described: str, folder: Path, python: Path) -> Version:
    source = folder / "src"
    compileall.compile_dir(source, quiet=1)  # so that no run of either does it
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    interpreter = ("env", f"PYTHONPATH={source}", os.path.abspath(python))
    return Version(name, described, interpreter, project["scripts"]["sessionize"])
