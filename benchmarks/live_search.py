"""Searches by the command line: the recorded one again with ASHA, and what a trial costs beside its training."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.curves import PRESET, Recording
from benchmarks.report import console
from distgan.search.ranking import leaderboard
from distgan.search.record import SearchRecord, kimg_of, require_record

# Of evaluations that are recorded with a digit after the point.
_ROUNDING = 0.06


@dataclass(frozen=True)
class Live:
    """A search that has run.

    Attributes:
        cost: kimg trained, in shares of all trials to the end.
        regret: of the winner's value, against the best of the recorded curves and the search's own.
        same, compared: evaluations that are those of the recording, of all that have a counterpart there.
    """

    cost: float
    regret: float
    same: int
    compared: int


def search(recording: Recording, folder: Path, *options: str) -> SearchRecord:
    """Runs `distgan tune` over the recorded recipe; its storage is `folder`, and its data are made there."""
    about, data = recording.about, _rendered(recording, folder)
    space = [word for key, entry in about["space"].items() for word in ("--space", f"{key}={entry}")]
    recipe = [f"data.url={data}", *about["overrides"], f"training.kimg={about['kimg']}"]
    every = f"evaluation.every_kimg={about['every_kimg']}"
    _run("tune", PRESET, *recipe, every, *space, "--storage", str(folder), "--name", "live", *options)
    return require_record(str(folder / "live"))


def compare(recording: Recording, record: SearchRecord) -> Live:
    """The search against the curves of the same draws, trained to the end."""
    recorded = {curve.number: curve for curve in recording.curves}
    same = compared = 0
    for trial in record.trials:
        curve = recorded.get(trial.number)
        if curve is None or curve.overrides != trial.overrides:
            continue
        known = dict(curve.rows)
        for kimg, value in trial.curve:
            if round(kimg, 3) in known:
                compared += 1
                same += abs(known[round(kimg, 3)] - value) < _ROUNDING
    winner = leaderboard(record.plan, record.trials)[0].value
    best = min([winner, *(curve.best for curve in recording.curves)])
    cost = kimg_of(record.trials) / (record.plan.kimg * len(record.trials))
    return Live(cost, winner / best - 1, same, compared)


def overhead(recording: Recording, folder: Path, kimg: float) -> None:
    """Prints what `distgan train` and a search take for runs of so many kimg, one after another."""
    about, data = recording.about, _rendered(recording, folder)
    recipe = [PRESET, f"data.url={data}", *about["overrides"], f"training.kimg={kimg}", f"evaluation.every_kimg={kimg}"]
    space = ["--space", "optimizer.generator.lr=choice(7e-4, 8e-4, 9e-4)", "--search", "grid", "--scheduler", "none"]
    place = ["--storage", str(folder)]
    alone = _timed("train", *recipe, *place, "--name", "alone", "--no-ray")
    on_ray = _timed("train", *recipe, *place, "--name", "on-ray")
    one = ["--space", "optimizer.generator.lr=choice(8e-4)", "--search", "grid", "--scheduler", "none"]
    single = _timed("tune", *recipe, *place, *one, "--name", "one", "--concurrent", "1")
    several = _timed("tune", *recipe, *place, *space, "--name", "three", "--concurrent", "1")
    each = (several - single) / 2
    rows = [
        ("distgan train --no-ray", alone),
        ("distgan train, its Ray cluster included", on_ray),
        ("distgan tune, 1 trial, its Ray cluster included", single),
        ("distgan tune, 3 trials one after another", several),
        ("a further trial of a search", each),
    ]
    for label, seconds in rows:
        console.print(f"{label:<50} {seconds:6.1f} s", highlight=False)
    console.print(
        f"a further trial / distgan train on Ray: {each / on_ray:.2f}; beside the training: "
        f"{each - _trained_seconds(folder):.1f} s",
        highlight=False,
    )


def _rendered(recording: Recording, folder: Path) -> Path:
    """The recording's data."""
    data = folder / "data"
    if not (data / "index.json").exists():
        images = str(recording.about["images"])
        _run("data", "render", "bricks", "--out", str(data), "--samples", images, "--size", "16")
    return data


def _trained_seconds(folder: Path) -> float:
    """Of the loop of a trial, from its summary."""
    summary = json.loads((folder / "three" / "trials" / "0002" / "summary.json").read_text())
    return float(summary["seconds"]["total"])


def _timed(*words: str) -> float:
    begin = time.perf_counter()
    _run(*words)
    return time.perf_counter() - begin


def _run(*words: str) -> None:
    command: Sequence[str] = [sys.executable, "-m", "distgan", *words]
    subprocess.run(command, check=True)
