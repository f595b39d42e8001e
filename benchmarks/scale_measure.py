"""What this machine does in a second, each thing by itself: a worker's step alone, all-reduces alone, and so on."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.distributed as dist

from benchmarks.scale_facts import ALONE, Miniature
from benchmarks.scale_model import Links, Machine, Run
from benchmarks.sides import Side, distgan_loop
from distgan.config.load import load_config
from distgan.config.schema import Config
from distgan.data.decode import SampleDecoder
from distgan.data.order import Order
from distgan.data.storage import Storage
from distgan.data.stream import BatchStream
from distgan.evaluation.evaluator import Evaluator
from distgan.report.grids import image_grid
from distgan.training.checkpoints import CheckpointStore
from distgan.training.fakes import GeneratedImages
from distgan.training.grid import SampleGrid
from distgan.training.process import prepare_process

_CONTEXT = multiprocessing.get_context("spawn")
_WARM_UP = 3
SIZES = (8, 2**12, 2**16, 2**18, 2**20, 2**22)


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


# (seconds of an all-reduce of nothing, bytes a second) by number of workers.
Gloo = dict[int, tuple[float, float]]


def measure(preset: str, overrides: Sequence[str], run: Run, gloo: Gloo) -> dict[int, Machine]:
    """This machine as it is for one worker of one torch thread, and for as many as all-reduces were measured with.

    `overrides` name the data.
    """
    config = load_config(preset, list(overrides))
    prepare_process(1, ALONE.device)
    alone = measure_steps(preset, overrides, run)
    flops, operator_s = fitted(run, alone.seconds)
    decode_s, gather_s = measure_data(config)
    features_s, distance_s = measure_evaluation(config)
    copy_s, write_s, grid_s = measure_saving(config)
    machine = Machine(
        name="this machine",
        source="measured",
        workers_a_node=max(1, *gloo),
        cores=len(os.sched_getaffinity(0)),
        threads=1,
        flops=flops,
        exact_flops=run.samples * (run.evaluation_flops + run.extractor_flops) / features_s,
        operator_s=operator_s,
        queued=False,
        ring=Links(0.0, 0.0, 0.0),
        tree=None,
        within=1.0,
        between=1.0,
        decode_s=decode_s,
        gather_s=gather_s,
        storage=1e9,
        copy=run.state_bytes / copy_s,
        write=run.state_bytes / write_s,
        distance_s=distance_s,
        grid_s=grid_s,
        jitter=alone.jitter,
        crowding=alone.crowding,
    )
    return {1: machine} | {
        workers: replace(machine, ring=Links(base_s, 0.0, 0.0), within=bandwidth, between=bandwidth)
        for workers, (base_s, bandwidth) in gloo.items()
    }


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


def measure_all_reduce(workers: int, repeats: int = 30) -> tuple[float, float]:
    """(seconds of an all-reduce of nothing, bytes a second of its ring) between gloo workers on loopback."""
    with TemporaryDirectory() as folder:
        pipes, processes = [], []
        for rank in range(workers):
            ours, theirs = _CONTEXT.Pipe()
            arguments = (rank, workers, str(Path(folder) / "rendezvous"), repeats, theirs)
            processes.append(_CONTEXT.Process(target=_all_reduces, args=arguments, daemon=True))
            processes[-1].start()
            theirs.close()
            pipes.append(ours)
        seconds = pipes[0].recv()
        for process in processes:
            process.join()
    # Each size weighs alike: small ones tell the base, large ones the bandwidth.
    matrix = [[1 / took, 2 * (workers - 1) / workers * size / took] for size, took in zip(SIZES, seconds, strict=True)]
    (base_s, per_byte), *_ = np.linalg.lstsq(np.array(matrix), np.ones(len(SIZES)), rcond=None)
    return float(base_s), 1 / float(per_byte)


def _all_reduces(rank: int, size: int, rendezvous: str, repeats: int, pipe: Connection) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", f"file://{rendezvous}", timedelta(seconds=120), world_size=size, rank=rank)
    medians = []
    for count in SIZES:
        tensor, seconds = torch.zeros(count // 4), []
        for _ in range(repeats):
            begin = time.perf_counter()
            dist.all_reduce(tensor)
            seconds.append(time.perf_counter() - begin)
        medians.append(statistics.median(seconds))
    pipe.send(medians)
    dist.barrier()
    dist.destroy_process_group()


def measure_data(config: Config) -> tuple[float, float]:
    """(seconds to read and decode an image for the first time, seconds to take it again) of one worker's stream."""
    decoder = SampleDecoder.open(config.data, config.image_shape)
    batch, samples = config.training.batch_size, len(decoder.index)
    epoch = samples // batch
    stream = BatchStream(
        decoder,
        Order(decoder.index, config.seed, config.data.streams, config.data.window_blocks),
        groups=range(config.scale.groups),
        num_groups=config.scale.groups,
        batch_size=batch,
        start_batch=0,
        memory_bytes=config.data.memory_mb * 2**20,
        prefetch_batches=1,
    )
    try:
        seconds = []
        for _ in range(3):
            begin = time.perf_counter()
            for _ in range(epoch):
                stream.next()
            seconds.append((time.perf_counter() - begin) / (epoch * batch))
    finally:
        stream.close()
    return max(0.0, seconds[0] - seconds[2]), seconds[2]


def measure_evaluation(config: Config) -> tuple[float, float]:
    """Seconds of one worker's evaluation: images and their features, and the distance; its second one."""
    decoder = SampleDecoder.open(config.data, config.image_shape)
    storage = Storage.open(str(config.data.url))
    evaluator = Evaluator(config.evaluation, config.data, ALONE, storage, decoder)
    generator = Miniature(config, 1).ema.network
    images = GeneratedImages(config, decoder.index.labels, ALONE.device, generator)
    evaluator.evaluate(images)
    seconds = evaluator.evaluate(images).seconds
    return seconds["features"], seconds["frechet"]


def measure_saving(config: Config) -> tuple[float, float, float]:
    """Seconds to copy a checkpoint's state, to write it, and to draw a picture of samples and store it."""
    miniature = Miniature(config, 1)
    grid = SampleGrid(config, ALONE.device)
    copies, writes, grids = [], [], []
    with TemporaryDirectory() as folder:
        store = CheckpointStore(Storage.open(folder))
        for _ in range(4):
            begin = time.perf_counter()
            miniature.state.save(store, lambda: None)
            copied = time.perf_counter()
            store.wait()
            written = time.perf_counter()
            image_grid(grid.images(miniature.ema.network), grid.columns).save(Path(folder) / "grid.png")
            copies.append(copied - begin)
            writes.append(written - copied)
            grids.append(time.perf_counter() - written)
    return statistics.median(copies), statistics.median(writes), statistics.median(grids)
