"""The model against real runs: `distgan train --no-ray` with 1, 2 and 4 workers on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.table import Table

from benchmarks.report import console, machine
from benchmarks.scale.all_reduces import measure_all_reduce
from benchmarks.scale.counting import run_of
from benchmarks.scale.measure import measure
from benchmarks.scale.predict import Prediction, predict
from benchmarks.scale.stored import Stored
from distgan.config.load import load_config
from distgan.data.bricks.render import BrickSource
from distgan.data.pack import PackOptions, pack
from distgan.storage.storage import Storage

WORKERS = (1, 2, 4)
IMAGES = 2048


@dataclass(frozen=True)
class Recipe:
    """A preset made small enough for this machine, and how long it is trained."""

    preset: str
    overrides: tuple[str, ...]
    kimg: float

    def all_overrides(self, url: str) -> list[str]:
        """Two evaluations and checkpoints, none of the untrained generator."""
        quiet = ["evaluation.samples=512", "evaluation.real_samples=512", "evaluation.at_start=false"]
        budget = [f"training.kimg={self.kimg}", f"evaluation.every_kimg={self.kimg / 2}", "evaluation.patience=null"]
        return [f"data.url={url}", "scale.groups=4", "scale.threads=1", *self.overrides, *quiet, *budget]


SMALL = ("image_size=32", "channels=1", "generator.width=32", "discriminator.width=32")
RECIPES = (
    Recipe("quickstart", (), 5.12),
    Recipe("wgan-gp-faces", (*SMALL, "training.batch_size=64"), 3.84),
)


@dataclass(frozen=True)
class Measured:
    """The results of a run: images a second of training time, and of the time of all phases."""

    training_rate: float
    rate: float


@dataclass(frozen=True)
class Row:
    """A prediction beside what was measured."""

    preset: str
    workers: int
    predicted_training: float
    measured_training: float
    predicted: float
    measured: float
    shares: dict[str, float]

    @property
    def errors(self) -> tuple[float, float]:
        """Of the rate of training, and of the rate with everything: positive where too much was predicted."""
        return self.predicted_training / self.measured_training - 1, self.predicted / self.measured - 1


def check(repeats: int) -> tuple[dict[str, Any], list[Row]]:
    """Measures the machine, predicts, and only then runs."""
    rows, machines = [], {}
    gloo = {workers: measure_all_reduce(workers) for workers in WORKERS if workers > 1}
    with TemporaryDirectory() as folder:
        storage = Storage.open(str(Path(folder) / "bricks"))
        pack(BrickSource(0, IMAGES, 32, 1), storage, PackOptions(32, 1, processes=1))
        for recipe in RECIPES:
            overrides = recipe.all_overrides(storage.url)
            run = run_of(load_config(recipe.preset, overrides), recipe.preset, Stored(1.0, 0.0), data_images=IMAGES)
            here = measure(recipe.preset, overrides, run, gloo)
            machines[recipe.preset] = {str(workers): asdict(each) for workers, each in here.items()}
            predictions = {workers: predict(run, here[workers], workers) for workers in WORKERS}
            for workers in WORKERS:
                found = [train(recipe, overrides, workers, Path(folder), number) for number in range(repeats)]
                rows.append(_row(recipe, predictions[workers], found))
                console.print(line(rows[-1]))
    about = {
        "command": "python -m benchmarks.scale check",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "machines": machines,
    }
    return about, rows


def _row(recipe: Recipe, prediction: Prediction, found: Sequence[Measured]) -> Row:
    middle = sorted(found, key=lambda one: one.rate)[len(found) // 2]
    return Row(
        recipe.preset,
        prediction.workers,
        prediction.training_rate,
        middle.training_rate,
        prediction.rate,
        middle.rate,
        prediction.shares(),
    )


def train(recipe: Recipe, overrides: Sequence[str], workers: int, folder: Path, number: int) -> Measured:
    """A whole run as a user would start it without Ray; what its `summary.json` says."""
    name = f"{recipe.preset}-{workers}-{number}"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)]
    command += ["-m", "distgan", "train", recipe.preset, *overrides, "--no-ray"]
    command += ["--storage", str(folder / "runs"), "--name", name]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    summary = json.loads((folder / "runs" / name / "summary.json").read_text())
    seconds = summary["seconds"]
    phases = ("training", "evaluation", "checkpoint", "samples")
    return Measured(
        summary["images_per_second"], summary["kimg"] * 1000 / sum(seconds.get(phase, 0.0) for phase in phases)
    )


def line(row: Row) -> str:
    training, everything = row.errors
    return (
        f"{row.preset}, {row.workers} workers: training {row.predicted_training:,.0f} predicted, "
        f"{row.measured_training:,.0f} measured ({training:+.0%}); with evaluations and checkpoints "
        f"{row.predicted:,.0f}, {row.measured:,.0f} ({everything:+.0%})"
    )


def table(rows: Sequence[Row]) -> Table:
    """Images a second, predicted and measured."""
    found = Table(
        "preset", "workers", "training: predicted", "measured", "error", "all: predicted", "measured", "error"
    )
    for row in rows:
        training, everything = row.errors
        found.add_row(
            row.preset, str(row.workers),
            f"{row.predicted_training:,.0f}", f"{row.measured_training:,.0f}", f"{training:+.0%}",
            f"{row.predicted:,.0f}", f"{row.measured:,.0f}", f"{everything:+.0%}",
        )  # fmt: skip
    return found


def save(path: Path, about: dict[str, Any], rows: Sequence[Row]) -> None:
    path.write_text(json.dumps({"about": about, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def load(path: Path) -> tuple[dict[str, Any], list[Row]]:
    tree = json.loads(path.read_text())
    return tree["about"], [Row(**row) for row in tree["rows"]]
