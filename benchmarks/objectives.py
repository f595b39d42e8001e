"""Every objective on equal networks and equal kimg, three seeds each: distances, precision, recall and modes found.

    python -m benchmarks.objectives --out FOLDER

Each data set is one search of `distgan tune`, a grid of objectives whose runs are all repeated with further seeds. The
command resumes where it was stopped. `--rates` searches the rates instead, on bricks: one run of each objective at
each rate, from which the rates of RECIPE were chosen.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from benchmarks.report import console, machine, save
from benchmarks.stacked import ModeCounter
from benchmarks.yardstick import read_images
from distgan.search.ranking import leaderboard
from distgan.search.record import Trial, require_record
from distgan.training.starting_point import find_checkpoint

OBJECTIVES = ("bce", "hinge", "wgan", "wgan_gp", "rpgan")

FASHION = Path("/usr/share/datasets/fashion-mnist")

# A discriminator without batch statistics, which the gradient penalties ask for; one step of each network at a time.
RECIPE = (
    "generator={network: dcgan, width: 24}",
    "discriminator={network: wgan_gp, width: 24, dropout: 0, init: glorot}",
    "objective={name: bce, updates: sequential}",
    "optimizer.generator={lr: 1e-3, beta1: 0.5, beta2: 0.99}",
    "optimizer.discriminator={lr: 1e-3, beta1: 0.5, beta2: 0.99}",
    "training.batch_size=16",
    "training.log_every=200",
    "evaluation.at_start=false",
    "evaluation.metrics=[precision, recall]",
    "evaluation.samples=2048",
    "evaluation.real_samples=4096",
    "evaluation.patience=null",
    "health.stop=false",
    "scale.groups=1",
    "scale.threads=1",
    "tracking=[samples]",
)
SPACE = (
    f"objective.name=choice({', '.join(OBJECTIVES)})",
    "objective.label_noise=0 if objective.name == bce",
    "objective.gamma=0.2 if objective.name == rpgan",
    "objective.clip_value=0.05 if objective.name == wgan",
)
RATES = (5e-4, 1e-3, 2e-3)
RATE_SPACE = (
    f"optimizer.generator.lr=choice({', '.join(map(str, RATES))})",
    "optimizer.discriminator.lr=optimizer.generator.lr * 1",
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for data, searches and the table")
    parser.add_argument("--fashion-mnist", type=Path, default=FASHION, help="folder of its IDX files")
    parser.add_argument("--kimg", type=float, default=60.0, help="of each run")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each objective")
    parser.add_argument("--mode-samples", type=int, default=25_600, help="images in which modes are counted")
    parser.add_argument("--rates", action="store_true", help="search the rates on bricks instead")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of all runs")
    given = parser.parse_args(arguments)
    data = make_data(given.out / "data", given.fashion_mnist)
    recipe = [*RECIPE, f"training.kimg={given.kimg}", f"evaluation.every_kimg={given.kimg / 3}", *given.overrides]
    if given.rates:
        print_rates(search(given.out, "rates", data["bricks"], recipe, 1, RATE_SPACE))
        return
    figures: dict[str, Any] = {"machine": machine(), "kimg": given.kimg, "data": {}}
    for name, url in data.items():
        channels = "channels=3" if name == "stacked" else "channels=1"
        folder = search(given.out, name, url, [*recipe, channels], given.seeds)
        counter = ModeCounter(str(data["fashion"])) if name == "stacked" else None
        figures["data"][name] = rows(folder, counter, given.mode_samples)
        save(given.out / "objectives.json", figures)
        print_table(name, figures["data"][name])
        if counter is not None:
            real = counter.of_images(real_images(url, given.mode_samples))
            figures["real"] = {"modes": real.modes, "KL": real.divergence}
            save(given.out / "objectives.json", figures)
            console.print(f"real images: {real.modes} modes, KL {real.divergence:.3g}")
    console.print(machine())


def make_data(folder: Path, fashion_mnist: Path) -> dict[str, Path]:
    """The three data sets, made where they are not yet."""
    commands = {
        "bricks": ["render", "bricks", "--samples", "16384"],
        "fashion": ["pack", str(fashion_mnist), "--format", "idx", "--channels", "1"],
        "stacked": ["pack", str(fashion_mnist), "--format", "benchmarks.stacked:StackedSource"],
    }
    for name, words in commands.items():
        if not (folder / name / "index.json").exists():
            _distgan("data", *words, "--size", "32", "--out", str(folder / name))
    return {name: folder / name for name in commands}


def search(folder: Path, name: str, data: Path, recipe: Sequence[str], seeds: int, space: Sequence[str] = ()) -> Path:
    """Runs or resumes the search of one data set; returns its folder."""
    entries = [word for entry in (*SPACE, *space) for word in ("--space", entry)]
    repeats = ["--seeds", str(seeds), "--top", str(len(OBJECTIVES))] if seeds > 1 else []
    grid = ["--search", "grid", "--scheduler", "none", *repeats]
    _distgan(
        "tune", "quickstart", f"data.url={data}", *recipe, *entries, *grid, "--storage", str(folder), "--name", name
    )
    return folder / name


def rows(folder: Path, counter: ModeCounter | None, mode_samples: int) -> list[dict[str, Any]]:
    """Of each objective, the best first: mean and deviation of its runs' figures at their best distance."""
    record = require_record(str(folder))
    found = []
    for ranked in leaderboard(record.plan, record.trials):
        runs = [one for one in record.trials if one.curve and ranked.trial.number in (one.number, one.repeats)]
        figures = [run_figures(folder / "trials" / trial.name, trial, counter, mode_samples) for trial in runs]
        spread = {key: _spread([one[key] for one in figures]) for key in figures[0]}
        found.append({"objective": ranked.trial.overrides["objective.name"], "runs": len(runs)} | spread)
    return found


def run_figures(run: Path, trial: Trial, counter: ModeCounter | None, mode_samples: int) -> dict[str, float]:
    """The figures of one run at its best distance."""
    kimg, distance = min(trial.curve, key=lambda point: point[1])
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    best = next(line for line in lines if line.get("event") == "evaluation" and abs(line["kimg"] - kimg) < 1e-6)
    named = {key.partition("_")[0]: value for key, value in best.items()}
    figures = {"fd_lite0": distance, "precision": named["precision"], "recall": named["recall"]}
    if counter is not None:
        coverage = counter.of_checkpoint(find_checkpoint(str(run), "best"), mode_samples)
        figures |= {"modes": coverage.modes, "KL": coverage.divergence}
    return figures | {"best at kimg": kimg, "minutes": trial.seconds / 60}


def real_images(data: Path, count: int) -> Tensor:
    """The first `count` images of a data set, uint8 (N, C, H, W)."""
    images = read_images(str(data), np.arange(count))
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def print_table(title: str, found: Sequence[Mapping[str, Any]]) -> None:
    """A row an objective: mean ± deviation."""
    table = Table(title=f"{title}, {found[0]['runs']} seeds", title_justify="left")
    keys = [key for key in found[0] if key not in ("objective", "runs")]
    for key in ("objective", *keys):
        table.add_column(key, justify="left" if key == "objective" else "right")
    for row in found:
        table.add_row(row["objective"], *(f"{row[key][0]:.4g} ± {row[key][1]:.2g}" for key in keys))
    console.print(table)


def print_rates(folder: Path) -> None:
    """The distance of each objective at each rate."""
    record = require_record(str(folder))
    table = Table(title="fd_lite0 at each rate of the generator", title_justify="left")
    for heading in ("objective", *map(str, RATES)):
        table.add_column(heading)
    for name in OBJECTIVES:
        trials = [trial for trial in record.trials if trial.curve and trial.overrides["objective.name"] == name]
        best = {trial.overrides["optimizer.generator.lr"]: min(value for _, value in trial.curve) for trial in trials}
        table.add_row(name, *(f"{best[rate]:,.0f}" if rate in best else "" for rate in RATES))
    console.print(table)


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _distgan(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "distgan", *words], check=True)


if __name__ == "__main__":
    main()
