"""What this machine does in a second, each thing by itself: a worker's step alone, all-reduces alone, and so on."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.scale.all_reduces import Gloo
from benchmarks.scale.machine import Links, Machine
from benchmarks.scale.miniature import ALONE, Miniature
from benchmarks.scale.run import Run
from benchmarks.scale.steps import fitted, measure_steps
from distgan.config.load import load_config
from distgan.config.schema import Config
from distgan.data.dataset import Dataset
from distgan.data.order import Order
from distgan.data.stream import BatchStream
from distgan.evaluation.evaluator import build_evaluator
from distgan.storage.storage import Storage
from distgan.tracking.grids import image_grid
from distgan.training.checkpoints import CheckpointStore
from distgan.training.fakes import GeneratedImages, SampleGrid
from distgan.training.process import prepare_process


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


def measure_data(config: Config) -> tuple[float, float]:
    """(seconds to read and decode an image for the first time, seconds to take it again) of one worker's stream."""
    dataset = Dataset.open(config.data, config.image_shape)
    batch, samples = config.training.batch_size, len(dataset.index)
    epoch = samples // batch
    stream = BatchStream(
        dataset,
        Order(dataset.index, config.seed, config.data.streams, config.data.window_blocks),
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
    dataset = Dataset.open(config.data, config.image_shape)
    evaluator = build_evaluator(config.evaluation, config.data, ALONE, dataset)
    generator = Miniature(config, 1).ema.network
    images = GeneratedImages(config, dataset.index.labels, ALONE.device, generator)
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
