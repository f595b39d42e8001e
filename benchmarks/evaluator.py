"""A whole evaluation: on two workers against one, beside the training against within it, and its memory.

python -m benchmarks.evaluator workers    two gloo workers of one thread against one, with fd_lite0
python -m benchmarks.evaluator async      how long the training loop stands still for an evaluation, on Ray
python -m benchmarks.evaluator memory     peak memory for few and for many images of 2,048 features
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from benchmarks.report import console, machine, print_ratio
from distgan.config.load import load_config
from distgan.config.schema import Config
from distgan.data.dataset import Dataset
from distgan.distributed import Distributed
from distgan.evaluation.evaluator import build_evaluator
from distgan.evaluation.extractors.inception import FEATURES
from distgan.evaluation.image_source import CHUNK
from distgan.training.fakes import GeneratedImages
from distgan.training.networks import build_networks
from distgan.training.process import prepare_process

_CONTEXT = multiprocessing.get_context("spawn")
_BRICKS = 4096


class Projection:
    """As many features as the published FID's, at next to no cost."""

    name = "projection"
    dimension = FEATURES

    def __init__(self, device: torch.device) -> None:
        self._weights = torch.randn(64, FEATURES, generator=torch.Generator().manual_seed(0)).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        small = functional.adaptive_avg_pool2d(images.float().mean(1, keepdim=True) / 255, 8)
        return small.flatten(1).to(self._weights) @ self._weights


class Noise:
    """So many random images."""

    def __init__(self, count: int) -> None:
        self.count = count

    def chunk(self, number: int) -> Tensor:
        count = min(CHUNK, self.count - number * CHUNK)
        random = torch.Generator().manual_seed(number)
        return torch.randint(0, 256, (count, 1, 32, 32), dtype=torch.uint8, generator=random)


def workers(data: str, samples: int, repeats: int) -> None:
    """Images a second of one process and of two, in turn."""
    config = load_config("quickstart", [f"data.url={data}", f"evaluation.samples={samples}"])
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with TemporaryDirectory() as folder, ExitStack() as stack:
        runs = {size: _processes(config, size, Path(folder), stack) for size in seconds}
        for run in runs.values():
            run()
        for _ in range(repeats):
            for size, run in runs.items():
                seconds[size].append(run())
    table = Table("workers", "seconds", "images a second", title=f"{samples:,} images, fd_lite0", title_justify="left")
    for size, found in seconds.items():
        table.add_row(str(size), f"{statistics.median(found):.1f}", f"{samples / statistics.median(found):.1f}")
    console.print(table)
    pairs = zip(seconds[1], seconds[2], strict=True)
    print_ratio("two workers / one", statistics.median(one / two for one, two in pairs), 1.8)


def _processes(config: Config, size: int, folder: Path, stack: ExitStack) -> Callable[[], float]:
    """What runs one evaluation on that many processes and returns its seconds."""
    pipes = []
    for rank in range(size):
        ours, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_serve, args=(config, rank, size, folder / str(size), theirs), daemon=True)
        process.start()
        theirs.close()
        stack.callback(process.join)
        pipes.append(ours)
    for pipe in pipes:
        stack.callback(pipe.send, False)

    def run() -> float:
        for pipe in pipes:
            pipe.send(True)
        return float(max(pipe.recv() for pipe in pipes))

    return run


def _serve(config: Config, rank: int, size: int, rendezvous: Path, pipe: Connection) -> None:
    distributed = Distributed(rank, size, torch.device("cpu"), size)
    prepare_process(1, distributed.device)
    if size > 1:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        dist.init_process_group("gloo", f"file://{rendezvous}", timedelta(seconds=300), world_size=size, rank=rank)
    dataset = Dataset.open(config.data, config.image_shape)
    evaluator = build_evaluator(config.evaluation, config.data, distributed, dataset)
    generator = build_networks(config, distributed.device).generator.eval()
    images = GeneratedImages(config, dataset.index.labels, distributed.device, generator)
    while pipe.recv():
        if size > 1:
            dist.barrier()
        begin = time.perf_counter()
        evaluator.evaluate(images)
        pipe.send(time.perf_counter() - begin)
    if size > 1:
        dist.destroy_process_group()


def asynchronous(data: str, kimg: float, every_kimg: float) -> None:
    """Two runs of the quickstart on Ray, one worker, which evaluate within and beside the training."""
    table = Table("evaluations", "training s", "pauses s", "evaluations waited out", "pause of an interval")
    with TemporaryDirectory() as folder:
        for name, value in (("within", "false"), ("beside", "true")):
            command = [sys.executable, "-m", "distgan", "train", "quickstart", f"data.url={data}", "--workers", "1"]
            command += [f"training.kimg={kimg}", f"evaluation.every_kimg={every_kimg}", "evaluation.patience=null"]
            command += [f"evaluation.asynchronous={value}", "--storage", folder, "--name", name]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            training, pauses, count = _pauses(Path(folder) / name)
            share = pauses / (training + pauses)
            table.add_row(name, f"{training:.1f}", f"{pauses:.2f}", str(count), f"{share:.2%}")
    console.print(table)
    console.print(f"pause of an interval, evaluated beside the training: {share:.2%} (target: under 1 %)")


def _pauses(run: Path) -> tuple[float, float, int]:
    """Seconds of training; what evaluations and checkpoints before the last one held it up; how many those were."""
    seconds = json.loads((run / "summary.json").read_text())["seconds"]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    evaluations = [row for row in rows if row["event"] == "evaluation"]
    stood = seconds["evaluation"] + seconds["checkpoint"] + seconds["samples"] - evaluations[-1]["seconds"]
    return seconds["training"], stood, len(evaluations) - 1


def memory(data: str) -> None:
    """Each count in a process of its own."""
    table = Table("images", "peak memory, MiB")
    for count in (1_000, 10_000, 100_000):
        ours, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_peak, args=(data, count, theirs))
        process.start()
        table.add_row(f"{count:,}", f"{ours.recv():,.0f}")
        process.join()
    console.print(table)


def _peak(data: str, count: int, pipe: Connection) -> None:
    given = [f"data.url={data}", "evaluation.extractor=benchmarks.evaluator:Projection", f"evaluation.samples={count}"]
    config, distributed = load_config("quickstart", given), Distributed(0, 1, torch.device("cpu"))
    prepare_process(1, distributed.device)
    dataset = Dataset.open(config.data, config.image_shape)
    build_evaluator(config.evaluation, config.data, distributed, dataset).evaluate(Noise(count))
    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("workers", "async", "memory"))
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--kimg", type=float, default=60)
    parser.add_argument("--every-kimg", type=float, default=20)
    arguments = parser.parse_args()
    console.print(machine())
    with TemporaryDirectory() as folder:
        data = f"{folder}/bricks"
        render = ["data", "render", "bricks", "--out", data, "--samples", str(_BRICKS), "--size", "32"]
        subprocess.run([sys.executable, "-m", "distgan", *render], check=True, stdout=subprocess.DEVNULL)
        if arguments.what == "workers":
            workers(data, arguments.samples, arguments.repeats)
        elif arguments.what == "async":
            asynchronous(data, arguments.kimg, arguments.every_kimg)
        else:
            memory(data)


if __name__ == "__main__":
    main()
