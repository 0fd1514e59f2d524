"""A run of a pipeline as a value that is planned, printed and then opened: the composition root. docs/adr/0016.

    with plan(config).open(Hooks(on_note=print)) as run:
        accounting = run.run()

Planning opens nothing and loads nothing heavy; what cannot be done is an error when the plan is opened. How a plan
becomes a run is its engine's: a second engine for streams is one more entry in ENGINES.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sessionize.app.build import INPUTS, LIVE_VIEWS, SOURCES, STREAM_SOURCES, destinations_of
from sessionize.app.config.secrets import as_shown
from sessionize.app.hooks import Hooks
from sessionize.app.streams.names import state_folder, writer_name
from sessionize.engine.accounting import Accounting, Progress, ignore
from sessionize.errors import ConfigError
from sessionize.session.durations import format_duration

if TYPE_CHECKING:
    from sessionize.app.config.pipeline import PipelineConfig
    from sessionize.app.config.server_sections import RedisSection


class Run(Protocol):
    """An opened run. Its block releases everything; an error in it leaves no output half made."""

    @property
    def size_bytes(self) -> int | None:
        """How much there is to read; None when unknown, or without end."""

    @property
    def cut_short(self) -> bool:
        """Whether it was ended before all was read, with the sessions of what was."""

    @property
    def open_sessions(self) -> int | None:
        """How many sessions go on with the next run; None where every session is final at the end."""

    @property
    def watermark_ms(self) -> int | None:
        """What ends before it is final; None where everything is, and before the first event."""

    def run(self, progress: Progress = ignore) -> Accounting:
        """Do it, to the end or until hooks.stopping is set. progress: gets how far a run has come that has an end.

        Errors: those of the engine.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """A run of a pipeline before anything is opened; equal for equal pipelines.

    engine: a name in ENGINES. input, records: what is read, and as what. rules: what a session is. session_columns: the
    columns of one's own. lateness: how far behind an event may come; None where nothing is late. outputs: name and
    destination of each, in the order of writing. state: where checkpoints are kept, None without any. beside: what else
    is done, and how often. now_ms: what counts as the present for the whole run; None: the clock, when it is opened.
    """

    pipeline: str
    engine: str
    input: str
    records: str
    rules: str
    session_columns: tuple[str, ...] = ()
    lateness: str | None
    outputs: tuple[tuple[str, str], ...]
    state: Path | None
    beside: tuple[str, ...]
    config: "PipelineConfig" = field(repr=False)
    now_ms: int | None = None

    @property
    def destination(self) -> str:
        """Where the sessions go, in words."""
        return self.config.destination()

    @property
    def can_be_stopped(self) -> bool:
        """Whether hooks.stopping ends it early with what it has done; a run over files is aborted as a whole."""
        return self.config.input.kind != "files"

    def lines(self) -> list[tuple[str, str]]:
        """The plan in words, for people: what, and its value."""
        return [(name, value) for name, value in self._lines() if value]

    def _lines(self) -> Iterator[tuple[str, str]]:
        yield "pipeline", self.pipeline
        yield "engine", self.engine
        yield "input", self.input
        yield "records", self.records
        yield "rules", self.rules
        yield "session columns", ", ".join(self.session_columns)
        yield "lateness", self.lateness or "none: files are read as a whole"
        for name, destination in self.outputs:
            yield f"output {name}", destination
        yield "state", "" if self.state is None else str(self.state)
        yield "beside it", "; ".join(self.beside)

    def open(self, hooks: Hooks | None = None) -> AbstractContextManager[Run]:
        """Open everything that the plan names.

        Errors: ConfigError for what cannot be done; MissingExtraError, InputError, OutputError, StateError,
        UnavailableError of the parts.
        """
        return ENGINES[self.engine].open(self, hooks or Hooks())

    def run(self, hooks: Hooks | None = None, progress: Progress = ignore) -> Accounting:
        """Open it, run it to its end, and close it. Errors: those of open and of Run.run."""
        with self.open(hooks) as opened:
            return opened.run(progress)


@dataclass(frozen=True, slots=True)
class Engine:
    """What runs plans. inputs: the kinds of input that it reads; the first engine that reads one is taken."""

    inputs: frozenset[str]
    open: Callable[[RunPlan, Hooks], AbstractContextManager[Run]]


def _open_batch(planned: RunPlan, hooks: Hooks) -> AbstractContextManager[Run]:
    from sessionize.app.batch import open_batch

    return open_batch(planned.config, hooks, now_ms=planned.now_ms)


def _open_local(planned: RunPlan, hooks: Hooks) -> AbstractContextManager[Run]:
    from sessionize.app.streams.run import open_stream

    return open_stream(
        planned.config, stopping=hooks.stopping, observer=hooks.observer, live=hooks.live, clock=hooks.clock
    )


ENGINES: Mapping[str, Engine] = {
    "batch": Engine(frozenset(SOURCES), _open_batch),
    "local": Engine(frozenset(STREAM_SOURCES), _open_local),
}


def plan(config: "PipelineConfig", *, now_ms: int | None = None) -> RunPlan:
    """What a run of a pipeline comes to. now_ms: what counts as the present; None: the clock, when it is opened."""
    kind, rules = config.input.kind, config.rules
    stream = config.input.is_stream
    return RunPlan(
        pipeline=config.name,
        engine=next(name for name, engine in ENGINES.items() if kind in engine.inputs),
        input=INPUTS[kind](config.input),
        records=config.dialect().name,
        rules=_rules(config),
        session_columns=tuple(each.shown for each in config.own_columns().columns),
        lateness=None if kind == "files" else f"{rules.lateness} (watermark {rules.watermark})",
        outputs=_outputs(config),
        state=state_folder(config, _writer(config)) if stream else None,
        beside=tuple(_beside(config)) if stream else (),
        config=config,
        now_ms=now_ms,
    )


def _rules(config: "PipelineConfig") -> str:
    lists = config.rules
    named = {
        "starts": lists.start_events,
        "ends": lists.end_events,
        "excluded": lists.excluded_events,
        "split on change": lists.split_on_change,
        "ignoring": lists.split_ignore,
        "boundary": (lists.boundary,) if lists.boundary else (),
    }
    return "; ".join([config.policy().describe(), *(f"{name}: {', '.join(its)}" for name, its in named.items() if its)])


def _outputs(config: "PipelineConfig") -> tuple[tuple[str, str], ...]:
    from sessionize.app.batch import rejects_beside

    output = config.output
    if config.input.is_stream:
        live = [(f"{name} (open sessions)", str(as_shown("url", its.url))) for name, its in _live(config)]
        return (*destinations_of(config), *live)
    if output.kind == "iceberg":
        return tuple(each for each in destinations_of(config) if each[0] == "iceberg")
    path = Path(output.path or "")
    rejected = (("rejected records", str(rejects_beside(path))),) if output.rejected else ()
    return ((output.kind, str(path)), *rejected)


def _live(config: "PipelineConfig") -> "Iterator[tuple[str, RedisSection]]":
    for name in LIVE_VIEWS:
        if (section := getattr(config.output, name)) is not None:
            yield name, section


def _writer(config: "PipelineConfig") -> str:
    """The writer's name, as far as it is known here: on another host a process may have another number."""
    try:
        return writer_name(config)
    except ConfigError:
        return f"{config.name}-N"


def _beside(config: "PipelineConfig") -> Iterator[str]:
    reconcile_s, maintain_s = config.reconcile_s, config.stream.maintain_s
    if reconcile_s is not None:
        every = "once, at the end" if config.run.once else f"every {format_duration(round(reconcile_s * 1000))}"
        yield f"late events are reconciled {every}"
    if maintain_s is not None and not config.run.once and config.output.kind == "iceberg":
        yield f"the tables are maintained every {format_duration(round(maintain_s * 1000))}"
