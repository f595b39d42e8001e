"""What the losses of an update ask of their context, noted once, so that the answers can lie ready in fixed memory.

A compiled function or a CUDA graph runs the same operations on the same memory at every update. Random numbers and
the values of schedules are therefore drawn before it, and copied to where it reads them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distgan.config.schedule import Schedule, Variable
from distgan.losses.context import Context

_UNIFORM, _NORMAL = "uniform", "normal"


@dataclass
class Recording:
    """The requests of one group of one update, in the order of their first time.

    Attributes:
        shapes: of random numbers, by distribution and name of the stream.
        schedules: those, and variables, whose values were asked for.
        periods: the counts that `Context.every` was asked for.
        layer_streams: names of the streams that layers such as dropout drew from.
        obstacle: why the update cannot run on fixed memory; None where it can.
    """

    shapes: dict[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)
    schedules: dict[str, Schedule | Variable] = field(default_factory=dict)
    periods: set[int] = field(default_factory=set)
    layer_streams: list[str] = field(default_factory=list)
    obstacle: str | None = None

    @property
    def size(self) -> int:
        """How many numbers an update needs."""
        return sum(math.prod(shape) for shape in self.shapes.values()) + len(self.schedules)

    def views(self, numbers: Tensor) -> dict[str, Tensor]:
        """The parts of a vector (`size`,) by the keys with which `ReplayContext` finds them."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        *parts, values = torch.split(numbers, [*sizes, len(self.schedules)])
        found = {
            _key(*request): part.view(shape) for (request, shape), part in zip(self.shapes.items(), parts, strict=True)
        }
        return found | dict(zip(self.schedules, values.unbind() if self.schedules else (), strict=True))

    def fill(self, views: dict[str, Tensor], context: Context) -> None:
        """Writes the numbers of one update into views of a vector on the CPU."""
        for (distribution, name), shape in self.shapes.items():
            draw = torch.rand if distribution == _UNIFORM else torch.randn
            draw(shape, generator=context.rng(name), out=views[_key(distribution, name)])
        for key, schedule in self.schedules.items():
            views[key].fill_(context.value(schedule))


class RecordingContext(Context):
    """Answers as the context that it is given, and notes what it is asked."""

    def __init__(self, context: Context, recording: Recording) -> None:
        object.__setattr__(self, "_context", context)
        object.__setattr__(self, "_recording", recording)
        object.__setattr__(self, "_stream", None)
        object.__setattr__(self, "_states", list(self._layer_states()))

    _context: Context
    _recording: Recording
    _stream: str | None
    _states: list[Tensor]

    @property
    def device(self) -> torch.device:
        return self._context.device

    @property
    def dtype(self) -> torch.dtype:
        return self._context.dtype

    @property
    def update(self) -> int:
        self._note_obstacle("reads context.update")
        return self._context.update

    @property
    def kimg(self) -> float:
        self._note_obstacle("reads context.kimg")
        return self._context.kimg

    @property
    def seed(self) -> int:
        self._note_obstacle("reads context.seed")
        return self._context.seed

    @property
    def group(self) -> int:
        self._note_obstacle("reads context.group")
        return self._context.group

    def value(self, number: float | Schedule | Variable) -> float:
        if isinstance(number, Schedule | Variable):
            self._recording.schedules[_schedule_key(number)] = number
        return self._context.value(number)

    def every(self, count: int) -> bool:
        self._recording.periods.add(count)
        return self._context.every(count)

    def rng(self, name: str) -> torch.Generator:
        self._note_obstacle(f"draws from context.rng({name!r})")
        return self._context.rng(name)

    def uniform(self, name: str, *shape: int) -> Tensor:
        self._note(_UNIFORM, name, shape)
        return self._context.uniform(name, *shape)

    def normal(self, name: str, *shape: int) -> Tensor:
        self._note(_NORMAL, name, shape)
        return self._context.normal(name, *shape)

    def seed_layers(self, name: str) -> None:
        self.note_layers()
        self._context.seed_layers(name)
        object.__setattr__(self, "_stream", name)
        object.__setattr__(self, "_states", list(self._layer_states()))

    def note_layers(self) -> None:
        """Notes whether layers have drawn from torch's global generators since they were last seeded.

        Called once more at the end of the group.
        """
        if all(map(torch.equal, self._states, self._layer_states())):
            return
        streams = self._recording.layer_streams
        if self._stream is None:
            self._note_obstacle("draws from torch's global generator, which has no seed there")
        elif self._stream not in streams:
            streams.append(self._stream)
        if len(streams) > 1:
            self._note_obstacle(f"draws random numbers in layers of several passes: {', '.join(streams)}")

    def _layer_states(self) -> Iterator[Tensor]:
        yield torch.default_generator.get_state()
        if self.device.type == "cuda":
            yield torch.cuda.get_rng_state(self.device)

    def _note(self, distribution: str, name: str, shape: tuple[int, ...]) -> None:
        if self._recording.shapes.setdefault((distribution, name), shape) != shape:
            self._note_obstacle(f"draws two shapes from the stream {name!r}")

    def _note_obstacle(self, text: str) -> None:
        self._recording.obstacle = self._recording.obstacle or text


@dataclass(frozen=True, eq=False)
class ReplayContext(Context):
    """Answers from fixed memory.

    Attributes:
        numbers: random numbers and values of schedules, by key.
        due: the answers of `every`.
    """

    numbers: dict[str, Tensor] = field(default_factory=dict)
    due: dict[int, bool] = field(default_factory=dict)

    def value(self, number: float | Schedule | Variable) -> float:
        """A number, or the value of a schedule or variable at this update as a tensor without dimensions."""
        if not isinstance(number, Schedule | Variable):
            return number
        return self.numbers[_schedule_key(number)]  # type: ignore[return-value]

    def every(self, count: int) -> bool:
        return self.due[count]

    def uniform(self, name: str, *shape: int) -> Tensor:
        return self.numbers[_key(_UNIFORM, name)]

    def normal(self, name: str, *shape: int) -> Tensor:
        return self.numbers[_key(_NORMAL, name)]

    def seed_layers(self, name: str) -> None:
        """Nothing: layers are seeded before the update."""


def _key(distribution: str, name: str) -> str:
    return f"{distribution} {name}"


def _schedule_key(schedule: Schedule | Variable) -> str:
    if isinstance(schedule, Variable):
        return schedule.name
    return f"{schedule.from_} {schedule.to} {schedule.from_kimg} {schedule.until_kimg} {schedule.shape}"
