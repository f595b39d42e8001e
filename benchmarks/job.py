"""The whole job under Ray Train, streaming from an S3 server: its speed, start-up and memory.

python -m benchmarks.job speed      one worker, and two, against the loop alone on ready tensors
python -m benchmarks.job startup    seconds from the command to the first step, by phase; peak memory
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.table import Table

from benchmarks.memory import PeakMemory
from benchmarks.report import console, machine, print_rates, print_ratio
from benchmarks.sides import Side, ratio, running
from distgan.storage.s3_server import server
from distgan.storage.storage import Storage

PRESET = "dcgan-bricks"
RECIPE = ("generator.width=32", "discriminator.width=32", "scale.groups=2", "scale.threads=1")
# One short evaluation at the end, which does not count as training.
QUIET = ("evaluation.at_start=false", "evaluation.samples=64", "evaluation.real_samples=64", "training.log_every=5")
SAMPLES = 4096


@dataclass(frozen=True)
class Phase:
    """What the command was about when it printed a line, and how long after its start."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """The results of a run of the command: images a second, its phases, its peak memory."""

    images_per_second: float
    phases: list[Phase]
    peak_mb: float
    processes: int


@contextmanager
def data_in_a_bucket(folder: Path) -> Iterator[str]:
    """Inside, an S3 server runs on loopback; yields the URL of bricks at 64x64 in it."""
    store = folder / "store"
    distgan("store", "up", "--dir", str(store), "--bucket", "bench")
    try:
        handle = server.status(store)
        assert handle is not None
        os.environ.update(handle.environment())
        url = "s3://bench/64"
        distgan("data", "render", "bricks", "--out", url, "--samples", str(SAMPLES), "--size", "64")
        yield url
    finally:
        distgan("store", "down", "--dir", str(store))


def distgan(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "distgan", *arguments], check=True, stdout=subprocess.DEVNULL)


def train(url: str, workers: int, kimg: float, name: str) -> Outcome:
    """`distgan train` as a user would call it; its lines are read as they come."""
    command = [sys.executable, "-m", "distgan", "train", PRESET, f"data.url={url}", *RECIPE, *QUIET]
    command += [f"training.kimg={kimg}", "--workers", str(workers), "--storage", "s3://bench/runs", "--name", name]
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        memory = PeakMemory(process.pid)
        assert process.stdout is not None
        lines = [(time.perf_counter() - begin, line) for line in process.stdout]
        memory.stop()
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return Outcome(_rate(name), _phases(lines, time.perf_counter() - begin), memory.peak_mb, memory.processes)


def speed(url: str, kimg: float, repeats: int) -> None:
    """The job on one worker and on two, in turn with the loop alone."""
    loop, one, two = "loop alone, 1 thread", "job, 1 worker of 1 thread", "job, 2 workers of 1 thread"
    rates: dict[str, list[float]] = {loop: [], one: [], two: []}
    side = Side(PRESET, RECIPE)
    steps = round(kimg * 1000 / side.config().training.batch_size)
    with running(side) as run:
        run(2)
        for turn in range(repeats):
            rates[loop].append(run(steps))
            for name, workers in ((one, 1), (two, 2)):
                rates[name].append(train(url, workers, kimg * workers, f"speed-{turn}-{workers}").images_per_second)
                console.print(f"turn {turn + 1}: {name}: {rates[name][-1]:,.1f} images/s")
    print_rates(f"{PRESET} {' '.join(RECIPE)}, Ray Train, S3", rates)
    print_ratio("job with one worker / loop alone", ratio(rates, one, loop), 0.95)
    print_ratio("job with two workers / job with one", ratio(rates, two, one), 1.7)


def startup(url: str, repeats: int) -> None:
    """Where the time before the first step goes, and the most memory that the whole tree of processes takes."""
    outcomes = [train(url, 2, 2.56, f"startup-{turn}") for turn in range(repeats)]
    table = Table("phase", "seconds (median)", title="from the command to its end", title_justify="left")
    for position, phase in enumerate(outcomes[0].phases):
        table.add_row(phase.name, f"{statistics.median(o.phases[position].seconds for o in outcomes):.1f}")
    console.print(table)
    most = max(outcomes, key=lambda outcome: outcome.peak_mb)
    console.print(f"peak memory of the tree: {most.peak_mb:,.0f} MiB in {most.processes} processes")


def _rate(name: str) -> float:
    """Images a second from the second row of metrics on: without the first steps."""
    metrics = Storage.open(f"s3://bench/runs/{name}").read_bytes("metrics.jsonl")
    rows = [json.loads(line) for line in metrics.decode().splitlines()]
    rates = [row["images_per_second"] for row in rows if row["event"] == "step"]
    if len(rates) < 2:
        sys.exit(f"{name}: too few steps to tell a speed; raise --kimg")
    return float(statistics.harmonic_mean(rates[1:]))


MARKS = (
    ("distgan, its arguments and the data's index", "starting Ray"),
    ("Ray", "starting "),
    ("workers, their imports, networks and the statistics of the real images", ": started at"),
    ("the first five steps", " images/s"),
    ("the other steps, evaluation, checkpoint", ": ended at"),
)


def _phases(lines: Sequence[tuple[float, str]], total: float) -> list[Phase]:
    """Seconds of each phase: from the mark before it to the line that ends it."""
    phases, before, rest = [], 0.0, list(lines)
    for name, mark in MARKS:
        position = next(number for number, (_, line) in enumerate(rest) if mark in line)
        seconds = rest[position][0]
        phases.append(Phase(name, seconds - before))
        before, rest = seconds, rest[position + 1 :]
    return [*phases, Phase("end of Ray and of the command", total - before), Phase("in all", total)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "startup"))
    parser.add_argument("--kimg", type=float, default=5.12, help="of one turn, a worker")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    console.print(machine())
    with TemporaryDirectory() as folder, data_in_a_bucket(Path(folder)) as url:
        if arguments.what == "speed":
            speed(url, arguments.kimg, arguments.repeats)
        else:
            startup(url, arguments.repeats)


if __name__ == "__main__":
    main()
