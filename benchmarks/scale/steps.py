"""A worker's steps by themselves, measured alone and in a crowd, and what explains their seconds."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from benchmarks.scale.run import Run
from benchmarks.sides import Side, distgan_loop

_CONTEXT = multiprocessing.get_context("spawn")
_WARM_UP = 3


@dataclass(frozen=True)
class Alone:
    """A worker's steps by themselves, on ready images.

    Attributes:
        seconds: of a step, by (groups, images a group).
        crowding: how much longer a step takes with all cores at the same work.
        jitter: standard deviation of an update's time in such a crowd, as a share of it.
    """

    seconds: dict[tuple[int, int], float]
    crowding: float
    jitter: float


def measure_steps(preset: str, overrides: Sequence[str], run: Run, turns: int = 12) -> Alone:
    """Steps of one worker with as many groups and images as one of 1, 2, ... workers has; then of a crowd."""
    images = run.batch // run.groups
    sides = [(groups, images) for groups in (1, 2, 4) if groups <= run.groups] + [(1, 2 * images), (1, 4 * images)]
    with looping() as loop:
        seconds = {
            (groups, each): statistics.median(loop(side_of(preset, overrides, groups, each), turns))
            for groups, each in sides
        }
    cores = len(os.sched_getaffinity(0))
    groups = max(1, run.groups // cores)
    crowd = np.array(_crowd(side_of(preset, overrides, groups, images), cores, turns * 2))
    updates = sum(update.count for update in run.updates)
    early, typical, late = np.quantile(crowd, (0.16, 0.5, 0.84))
    return Alone(
        seconds,
        crowding=max(1.0, float(typical) / seconds[groups, images]),
        jitter=float((late - early) / 2 / typical) * updates**0.5,
    )


def side_of(preset: str, overrides: Sequence[str], groups: int, images: int) -> Side:
    batch = (f"scale.groups={groups}", f"data.streams={groups}", f"training.batch_size={groups * images}")
    return Side(preset, (*overrides, *batch))


def fitted(run: Run, seconds: dict[tuple[int, int], float]) -> tuple[float, float]:
    """(operations a second, seconds an operator) that explain steps of one worker best, each weighing alike."""
    rows, ones = [], []
    for (groups, images), took in seconds.items():
        flops = run.flops * groups * images
        operators = run.step_operators + sum(
            update.count * (update.operators * groups + update.fixed_operators) for update in run.updates
        )
        rows.append([flops / took, operators / took])
        ones.append(1.0)
    (per_flop, per_operator), *_ = np.linalg.lstsq(np.array(rows), np.array(ones), rcond=None)
    if per_operator <= 0:
        matrix = np.array(rows)[:, :1]
        (per_flop,), *_ = np.linalg.lstsq(matrix, np.array(ones), rcond=None)
    return 1 / float(per_flop), max(0.0, float(per_operator))


@contextmanager
def looping() -> Iterator[Callable[[Side, int], list[float]]]:
    """Inside, the function given runs so many steps of a side in another process and returns the seconds of each."""
    ours, theirs = _CONTEXT.Pipe()
    process = _CONTEXT.Process(target=_loop, args=(theirs,), daemon=True)
    process.start()
    theirs.close()

    def run(side: Side, steps: int) -> list[float]:
        ours.send((side, steps))
        return list(ours.recv())

    try:
        yield run
    finally:
        ours.send(None)
        process.join()


def _loop(pipe: Connection) -> None:
    while (asked := pipe.recv()) is not None:
        side, steps = asked
        step, seconds = distgan_loop(side, 0), []
        for _ in range(_WARM_UP + steps):
            begin = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - begin)
        pipe.send(seconds[_WARM_UP:])


def _crowd(side: Side, processes: int, steps: int) -> list[float]:
    """Seconds of each step of so many processes that know nothing of each other; the last ones run less crowded."""
    found: list[list[float]] = [[] for _ in range(processes)]

    def one(number: int, ready: threading.Barrier) -> None:
        with looping() as loop:
            loop(side, 1)
            ready.wait()
            found[number] = loop(side, steps)

    ready = threading.Barrier(processes)
    threads = [threading.Thread(target=one, args=(number, ready)) for number in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [seconds for each in found for seconds in each[: max(1, steps * 3 // 4)]]
