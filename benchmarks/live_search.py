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


# Trials in Tune's actors, and as runs of Ray Train.
_ACTORS, _TRAIN = "distgan", "benchmarks.ray_train_trials"


def overhead(recording: Recording, folder: Path, kimg: float) -> None:
    """Prints what `distgan train` and searches take for runs of so many kimg, one after another.

    A search has its trials in Tune's actors; another one, for comparison, has them as runs of Ray Train.
    """
    about, data = recording.about, _rendered(recording, folder)
    recipe = [PRESET, f"data.url={data}", *about["overrides"], f"training.kimg={kimg}"]
    recipe += ["--storage", str(folder)]
    once = [*recipe, f"evaluation.every_kimg={kimg}"]
    _timed(_ACTORS, "train", *once, "--name", "statistics", "--no-ray")  # the real statistics are then there
    alone = _timed(_ACTORS, "train", *once, "--name", "alone", "--no-ray")
    on_ray = _timed(_ACTORS, "train", *once, "--name", "on-ray")
    print_seconds("distgan train --no-ray", alone)
    print_seconds("distgan train, its Ray cluster included", on_ray)
    for module, where in ((_TRAIN, "on Ray Train"), (_ACTORS, "in actors")):
        name = module.rpartition(".")[2]
        single = _timed(module, "tune", *once, *_grid("8e-4"), "--name", f"{name}-one")
        several = _timed(module, "tune", *once, *_grid("7e-4, 8e-4, 9e-4"), "--name", f"{name}-three")
        each = (several - single) / 2
        print_seconds(f"distgan tune, 1 trial {where}", single)
        print_seconds(f"distgan tune, 3 trials one after another {where}", several)
        print_seconds(f"a further trial {where}", each)
        print_seconds("  beside its loop", _beside(folder / f"{name}-three", 2))
        members = [*recipe, f"evaluation.every_kimg={kimg / 4}", f"training.kimg={kimg / 2}"]
        population = [*_GENERATIONS, "--interval-kimg", str(kimg / 4)]
        two = _timed(module, "tune", *members, *population, "--name", f"{name}-population")
        print_seconds(f"distgan tune, 2 generations of 2 members, one at a time, {where}", two)
        print_seconds("  a stretch of a member beside its loop", _beside(folder / f"{name}-population", 3))


_GENERATIONS = ["--space", "optimizer.generator.lr=loguniform(7e-4, 9e-4)", "--scheduler", "pbt", "--trials", "2",
                "--concurrent", "1"]  # fmt: skip


def _grid(rates: str) -> list[str]:
    space = f"optimizer.generator.lr=choice({rates})"
    return ["--space", space, "--search", "grid", "--scheduler", "none", "--concurrent", "1"]


def _rendered(recording: Recording, folder: Path) -> Path:
    """The recording's data."""
    data = folder / "data"
    if not (data / "index.json").exists():
        images = str(recording.about["images"])
        _run("data", "render", "bricks", "--out", str(data), "--samples", images, "--size", "16")
    return data


def print_seconds(label: str, seconds: float) -> None:
    console.print(f"{label:<70} {seconds:6.1f} s", highlight=False)


def _beside(search: Path, trial: int) -> float:
    """Seconds from the end of the trial before to that of this one, without those of its loop."""
    before, this = (search / "trials" / f"{number:04d}" / "summary.json" for number in (trial - 1, trial))
    loop = float(json.loads(this.read_text())["seconds"]["total"])
    return this.stat().st_mtime - before.stat().st_mtime - loop


def _timed(module: str, *words: str) -> float:
    begin = time.perf_counter()
    _run(*words, module=module)
    return time.perf_counter() - begin


def _run(*words: str, module: str = "distgan") -> None:
    command: Sequence[str] = [sys.executable, "-m", module, *words]
    subprocess.run(command, check=True)
