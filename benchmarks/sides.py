"""The sides of a comparison: each in processes of its own, run in turn, so that a slow minute hits all of them."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist

from benchmarks.batches import DistganLoop, ready_batches
from benchmarks.plain_loop import PlainLoop
from distgan.config.load import load_config
from distgan.config.schema import Config
from distgan.distributed import Distributed
from distgan.training.process import prepare_process

_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Side:
    """A loop to be timed: a preset with changes, on so many workers of so many threads.

    Attributes:
        plain: the loop that a PyTorch user would write, in place of distgan's.
    """

    preset: str
    overrides: tuple[str, ...] = ()
    workers: int = 1
    threads: int = 1
    plain: bool = False

    def config(self) -> Config:
        return load_config(self.preset, list(self.overrides))


@contextmanager
def running(side: Side) -> Iterator[Callable[[int], float]]:
    """Inside, the function given runs so many steps and returns images a second, all workers together."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        pipes = []
        for rank in range(side.workers):
            ours, theirs = _CONTEXT.Pipe()
            process = _CONTEXT.Process(target=_serve, args=(side, rank, folder, theirs), daemon=True)
            process.start()
            theirs.close()
            stack.callback(process.join)
            pipes.append(ours)
        for pipe in pipes:
            stack.callback(pipe.send, 0)  # called before the joins
        batch = side.config().training.batch_size

        def run(steps: int) -> float:
            for pipe in pipes:
                pipe.send(steps)
            return float(steps * batch / max(pipe.recv() for pipe in pipes))

        yield run


def compare(sides: Mapping[str, Side], seconds: float, repeats: int) -> dict[str, list[float]]:
    """Images a second of each side: `repeats` turns of about so many seconds each, interleaved."""
    with ExitStack() as stack:
        runs = {name: stack.enter_context(running(side)) for name, side in sides.items()}
        steps = {}
        for name, run in runs.items():
            run(2)
            rate = run(4)
            steps[name] = max(4, round(seconds * rate / sides[name].config().training.batch_size))
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(repeats):
            for name, run in runs.items():
                rates[name].append(run(steps[name]))
        return rates


def ratio(rates: Mapping[str, list[float]], one: str, other: str) -> float:
    """The median, over the turns, of one side's speed in units of another's."""
    return statistics.median(a / b for a, b in zip(rates[one], rates[other], strict=True))


def _serve(side: Side, rank: int, folder: str, pipe: Connection) -> None:
    torch.set_num_threads(side.threads)
    if side.workers > 1:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        address = f"file://{Path(folder) / 'rendezvous'}"
        dist.init_process_group("gloo", address, timedelta(seconds=120), world_size=side.workers, rank=rank)
    config, device = side.config(), torch.device("cpu")
    plain = PlainLoop(config, device, ready_batches(config, 1, device)) if side.plain else None
    step = distgan_loop(side, rank) if plain is None else plain.step
    while steps := pipe.recv():
        if side.workers > 1:
            dist.barrier()
        begin = time.perf_counter()
        for _ in range(steps):
            step()
        pipe.send(time.perf_counter() - begin)
    if side.workers > 1:
        dist.destroy_process_group()


def distgan_loop(side: Side, rank: int) -> Callable[[], object]:
    """distgan's step on the CPU, on one batch that is ready in memory."""
    config, device = side.config(), torch.device("cpu")
    prepare_process(side.threads, device)
    distributed = Distributed(rank, side.workers, device, side.workers)
    return DistganLoop(config, distributed, ready_batches(config, 1, device)).step
