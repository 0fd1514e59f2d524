"""Checkpoints in a folder that is no folder of a disk: the port is all that they need."""

from collections.abc import Iterable, Mapping, Sequence

import pytest

from sessionize import Policy, Rules
from sessionize.engine.stream.checkpoints import Checkpoints
from sessionize.engine.stream.engine import LocalEngine
from sessionize.engine.stream.options import StreamOptions, StreamOutputs
from sessionize.errors import StateError, UnavailableError
from sessionize.ports import StateFolder
from sessionize.session.definition import SessionDefinition
from sessionize.testing.observers import Calls
from sessionize.testing.streams import InMemoryEpochSink, InMemoryStreamSource
from tests.engine.stream_runs import VISITS, Steps, check, run


class Objects:
    """As under a prefix of an object store: an object is put as a whole, and there are no renames."""

    def __init__(self, objects: dict[str, bytes], *, fail: int = 0) -> None:
        self.objects, self.fail, self.closed = objects, fail, False

    @property
    def place(self) -> str:
        return "memory:/state"

    def names(self) -> list[str]:
        return sorted(self.objects)

    def has(self, name: str) -> bool:
        return name in self.objects

    def read(self, name: str) -> bytes:
        return self.objects[name]

    def put(self, contents: Mapping[str, Sequence[memoryview]]) -> int:
        size = 0
        for name, parts in contents.items():
            if self.fail:
                self.fail -= 1
                raise UnavailableError("the store does not answer", detail=name)
            self.objects[name] = b"".join(parts)
            size += len(self.objects[name])
        return size

    def move_aside(self, name: str, target: str) -> None:
        self.objects[target] = self.objects.pop(name)

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            self.objects.pop(name, None)

    def sync(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("deltas_max", [1, 200])
def test_a_stream_with_its_state_elsewhere_is_exact_through_crashes_and_outages(deltas_max: int) -> None:
    objects, sink, tries = dict[str, bytes](), InMemoryEpochSink(), list[Objects]()

    def make() -> LocalEngine:
        folder: StateFolder = Objects(objects, fail=len(tries) % 3)
        assert isinstance(folder, Objects)
        tries.append(folder)
        return LocalEngine(
            InMemoryStreamSource([VISITS]),
            StreamOutputs(sinks={"kept": sink}),
            SessionDefinition(policy=Policy(), rules=Rules()),
            Checkpoints(folder, writer="w", deltas_max=deltas_max, merge_in_background=False),
            lateness_ms=0,
            options=StreamOptions(epoch_rows_max=15, poll_s=0, once=True),
            writer="w",
            observer=Calls(step=Steps(7 + len(tries))),
        )

    made = run(make, crashes=True)
    check(sink, made, [VISITS], Policy(), Rules(), 0)
    assert len(tries) > 3
    assert all(folder.closed for folder in tries)
    assert any(name.startswith("base-") for name in objects)


def test_damage_is_set_aside_and_errors_say_where() -> None:
    objects = dict[str, bytes]()
    sink = InMemoryEpochSink()

    def make() -> LocalEngine:
        return LocalEngine(
            InMemoryStreamSource([VISITS]),
            StreamOutputs(sinks={"kept": sink}),
            SessionDefinition(policy=Policy()),
            Checkpoints(Objects(objects), writer="w"),
            lateness_ms=0,
            options=StreamOptions(epoch_rows_max=15, poll_s=0, once=True),
            writer="w",
        )

    run(make)
    last = max((name for name in objects if name.startswith("delta-")), key=lambda name: int(name[6:-5]))
    objects[last] = objects[last][:-1]
    with Checkpoints(Objects(objects), writer="w") as store:
        found = store.recover()
    assert found is not None
    assert [plan.epoch for plan in found.plans] == [found.epoch + 1]
    assert f"{last}.damaged" in objects
    with pytest.raises(StateError, match=r"memory:/state/base-1\.ckpt is of 'w'"):
        Checkpoints(Objects(objects), writer="another").recover()
