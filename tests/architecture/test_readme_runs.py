"""The commands of the README do what they say, in its order, for somebody who has nothing but a checkout."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent
# Those of a section that begins with this sentence need the broker that `make kafka` starts.
KAFKA = "With a Kafka topic;"


def blocks() -> list[tuple[str, list[str]]]:
    """(the text before it, its commands) of each block with commands."""
    found = re.finditer(r"(.*?)```\n(\$ .*?)```", README, re.DOTALL)
    return [(block[1], [line[2:] for line in block[2].splitlines() if line.startswith("$ ")]) for block in found]


def needs(before: str, command: str) -> str:
    """What a command needs beside the package: "make", "shell", "kafka" or nothing."""
    if command.startswith("make "):
        return "make"
    if command.startswith(". "):
        return "shell"
    return "kafka" if KAFKA in before.rpartition("```")[2] else ""


def commands(kind: str) -> list[str]:
    return [command for before, block in blocks() for command in block if needs(before, command) == kind]


def run(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SESSIONIZE_")}
    environ = {**clean, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "80"}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environ, capture_output=True, text=True, timeout=300, check=False
    )


def test_every_command_without_a_server_runs_in_the_order_of_the_readme(tmp_path: Path) -> None:
    plain = commands("")
    assert len(plain) >= 20
    for command in plain:
        done = run(command, tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        assert "warning: " not in done.stderr, f"{command}\n{done.stderr}"


def test_every_target_of_make_is_there() -> None:
    targets = {word for command in commands("make") for word in shlex.split(command, comments=True)[1:]}
    mentioned = set(re.findall(r"`make ([a-z-]+)", README))
    there = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"setup", "demo", "demo-stream", "kafka"} <= targets | mentioned
    assert (targets | mentioned) - there == set()


def test_the_activation_script_is_where_the_readme_says() -> None:
    (command,) = commands("shell")
    assert shlex.split(command, comments=True) == [".", ".venv/bin/activate"]
    assert (BIN / "activate").is_file()


def test_the_extras_are_those_of_the_package() -> None:
    import tomllib

    there = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"`\[([a-z]+)\]`", README)) == set(there)


def test_what_needs_a_broker_runs_with_the_one_of_make_kafka(tmp_path: Path) -> None:
    from sessionize.testing.services.java_parts import ServiceMissing, java, server_jars
    from sessionize.testing.services.process import free_port

    try:
        server_jars("kafka")
        java()
    except ServiceMissing as missing:
        pytest.skip(str(missing))
    port = free_port()
    broker = [sys.executable, "-m", "sessionize.testing.services.broker", "--port", str(port)]
    with subprocess.Popen(broker, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stderr is not None
            told = ""
            while "Ctrl-C stops it" not in told:
                line = running.stderr.readline()
                assert line, told
                told += line
            for command in commands("kafka"):
                done = run(_ending(command, port), tmp_path)
                assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
                assert "Traceback" not in done.stderr
            count = run("sessionize query --home try --json 'SELECT count(*) AS n FROM user_sessions'", tmp_path).stdout
            assert int(count.partition(":")[2].strip(" }\n")) > 0
            running.terminate()
            assert running.wait(timeout=60) == 0
        finally:
            running.kill()


def _ending(command: str, port: int) -> str:
    """The command with the broker's address, ended by itself where a reader would press Ctrl-C."""
    words = command.partition("#")[0].strip().replace("127.0.0.1:9092", f"127.0.0.1:{port}")
    if words.startswith("sessionize produce"):
        return words.replace("--rate 50", "--events 2000")
    if words.startswith("sessionize run"):
        return f"{words} --once --kafka-servers 127.0.0.1:{port}"
    return words
