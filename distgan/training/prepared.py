"""Updates on fixed memory: compiled functions and CUDA graphs run the same operations on it at every update."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from distgan.data.stream import Group
from distgan.losses.context import Context
from distgan.training.profiling import span
from distgan.training.recording import Recording, RecordingContext, ReplayContext
from distgan.training.sums import SumsBetweenGraphs
from distgan.training.updates import TermSums

# After so many updates, at most, the pattern of lazy penalties has to repeat.
_LONGEST_PERIOD = 1000


class Part(NamedTuple):
    """A group as an update sees it, and whether it is this worker's last."""

    group: Group
    context: Context
    last: bool


# An update: runs the next group each time it is advanced, then what follows the last one, and gives the terms so far.
Body = Callable[[Iterator[Part]], Iterator[TermSums]]


class GraphBackend(Protocol):
    """Captures operations on a device, to launch them again together."""

    def warm_up(self, function: Callable[[], object]) -> None:
        """Runs what is captured later, so that libraries have their memory."""

    def capture(self, function: Callable[[], object]) -> Callable[[], object]:
        """Calls `function` once. The result repeats its operations on the same memory."""


class CudaGraphs:
    """CUDA graphs that share one pool of memory: they are replayed one after another, on one stream."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, function: Callable[[], object]) -> None:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            function()
        torch.cuda.current_stream().wait_stream(stream)

    def capture(self, function: Callable[[], object]) -> Callable[[], object]:
        graph = torch.cuda.CUDAGraph()
        # Other threads, as those of NCCL and of the data, go on.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            function()
        replay: Callable[[], object] = graph.replay
        return replay


@dataclass(frozen=True)
class _GroupMemory:
    """The fixed memory of one group."""

    group: Group
    numbers: Tensor
    recording: Recording
    context: ReplayContext

    @classmethod
    def of(cls, group: Group, context: Context, recording: Recording) -> _GroupMemory:
        numbers = torch.zeros(recording.size, device=context.device, dtype=context.dtype)
        own = (context.update, context.kimg, context.seed, context.group, context.device, context.dtype)
        due = {count: context.every(count) for count in recording.periods}
        return cls(group, numbers, recording, ReplayContext(*own, recording.views(numbers), due))

    def load(self, group: Group, context: Context, reads_images: bool) -> None:
        """Copies a group's images, labels and numbers to the device, without waiting for it."""
        if reads_images:
            self.group.images.copy_(group.images, non_blocking=True)
        self.group.labels.copy_(group.labels, non_blocking=True)
        drawn = torch.empty(len(self.numbers), pin_memory=context.device.type == "cuda")
        self.recording.fill(self.recording.views(drawn), context)
        self.numbers.copy_(drawn, non_blocking=True)

    def seed_layers(self, context: Context) -> None:
        for stream in self.recording.layer_streams:
            context.seed_layers(stream)


@dataclass
class _Pattern:
    """Updates with the same penalties.

    Attributes:
        contexts: of the first of them.
        replays: a graph for each group; None without graphs.
        end: what follows the last group's graph, where workers sum between graphs.
        terms: names and groups of the terms that the last graph leaves in `values`.
    """

    contexts: Sequence[Context]
    groups: list[_GroupMemory]
    replays: list[Callable[[], object]] | None = None
    end: Sequence[Callable[[], object]] = ()
    terms: TermSums | None = None
    values: Tensor | None = None


class PreparedUpdate:
    """One kind of update on fixed memory.

    Attributes:
        obstacle: why it cannot run on fixed memory; None where it can.
        sums: of several workers, which run between the graphs.
    """

    def __init__(
        self,
        body: Body,
        contexts: Callable[[int], Sequence[Context]],
        blank: Sequence[Group],
        *,
        reads_images: bool,
    ) -> None:
        """Runs `body` on blank groups, to note what it asks of its contexts: those of an update, by its number."""
        self._body, self._reads_images = body, reads_images
        self._periods: set[int] = set()
        self._patterns: dict[tuple[int, ...], _Pattern] = {}
        self.obstacle: str | None = None
        self.sums: SumsBetweenGraphs | None = None
        self._find_patterns(contexts, blank)

    def run(self, batch: Sequence[Group], contexts: Sequence[Context]) -> TermSums:
        """Runs an update: this worker's groups with their contexts."""
        pattern = self._patterns[self._key(contexts)]
        with span("draws"):
            for memory, group, context in zip(pattern.groups, batch, contexts, strict=True):
                memory.load(group, context, self._reads_images)
        if pattern.replays is None:
            return self._run_body(pattern, contexts)
        for memory, context, replay in zip(pattern.groups, contexts, pattern.replays, strict=True):
            memory.seed_layers(context)
            replay()
        for run in pattern.end:
            run()
        assert pattern.terms is not None
        assert pattern.values is not None
        # The next replay overwrites the values.
        values = dict(zip(pattern.terms.values, pattern.values.clone().unbind(), strict=True))
        return TermSums(values, dict(pattern.terms.groups))

    def try_out(self) -> None:
        """Runs every pattern on blank images."""
        for pattern in self._patterns.values():
            self._run_body(pattern, pattern.contexts)

    def capture(self, backend: GraphBackend) -> None:
        """Captures every pattern, on blank images."""
        for pattern in self._patterns.values():
            pattern.replays, pattern.end = self._capture(pattern, backend)

    def drop_graphs(self) -> None:
        """Runs the update without graphs from now on."""
        self.sums = None
        for pattern in self._patterns.values():
            pattern.replays = None

    def _run_body(self, pattern: _Pattern, contexts: Sequence[Context]) -> TermSums:
        body = self._body(_parts(pattern.groups))
        for memory, context in zip(pattern.groups, contexts, strict=True):
            memory.seed_layers(context)
            next(body)
        if self.sums is not None:
            self.sums.take()()
        return next(body)

    def _capture(
        self, pattern: _Pattern, backend: GraphBackend
    ) -> tuple[list[Callable[[], object]], Sequence[Callable[[], object]]]:
        body = self._body(_parts(pattern.groups))

        def run_group() -> None:
            next(body)

        def finish() -> None:
            pattern.terms = next(body)
            pattern.values = torch.stack(list(pattern.terms.values.values()))

        def run_last() -> None:
            run_group()
            finish()

        replays = [backend.capture(run_group) for _ in pattern.groups[1:]]
        if self.sums is None:
            return [*replays, backend.capture(run_last)], ()
        replays.append(backend.capture(run_group))
        return replays, (self.sums.take(), backend.capture(finish))

    def _key(self, contexts: Sequence[Context]) -> tuple[int, ...]:
        return tuple(count for count in sorted(self._periods) if contexts[0].every(count))

    def _find_patterns(self, contexts_of: Callable[[int], Sequence[Context]], blank: Sequence[Group]) -> None:
        update = 0
        while update < math.lcm(*self._periods) and self.obstacle is None:
            contexts = contexts_of(update)
            if self._key(contexts) not in self._patterns:
                recordings = self._record(contexts, blank)
                periods = self._periods.union(*(recording.periods for recording in recordings))
                if periods != self._periods:  # begin again, with more patterns
                    self._periods, update = periods, 0
                    self._patterns.clear()
                    continue
                triples = zip(_on_device(blank, contexts), contexts, recordings, strict=True)
                self._patterns[self._key(contexts)] = _Pattern(
                    contexts, [_GroupMemory.of(*triple) for triple in triples]
                )
            update += 1

    def _record(self, contexts: Sequence[Context], blank: Sequence[Group]) -> list[Recording]:
        recordings = [Recording() for _ in contexts]

        def parts() -> Iterator[Part]:
            for group, context, recording in zip(_on_device(blank, contexts), contexts, recordings, strict=True):
                asked = RecordingContext(context, recording)
                yield Part(group, asked, context is contexts[-1])
                asked.note_layers()

        for _ in self._body(parts()):
            pass
        for recording in recordings:
            self.obstacle = self.obstacle or recording.obstacle
            if math.lcm(*recording.periods) > _LONGEST_PERIOD:
                self.obstacle = f"has penalties whose pattern repeats after more than {_LONGEST_PERIOD} updates"
        return recordings


def _parts(groups: Sequence[_GroupMemory]) -> Iterator[Part]:
    for each in groups:
        yield Part(each.group, each.context, each is groups[-1])


def _on_device(groups: Sequence[Group], contexts: Sequence[Context]) -> list[Group]:
    """Copies of groups on the device."""
    device = contexts[0].device
    return [Group(group.images.to(device, copy=True), group.labels.to(device, copy=True)) for group in groups]
