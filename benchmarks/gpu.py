"""Everything that a first hour on a GPU should bring home, in the order of what matters most.

python -m benchmarks.gpu --out DIR [--device cuda|cpu] [--minutes M] [--only PART,...] [--quick]

Each part runs in a process of its own and writes its file into DIR as it goes; one that fails or takes longer than its
share of the time leaves its error there, and the next one begins. `DIR/summary.md` is written again after each part.
`--quick` is for tests: tiny networks, few steps, nothing compiled.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import distgan
from benchmarks import step
from benchmarks.gpu_summary import write_summary
from benchmarks.report import about, console, save
from benchmarks.roofline import measured_peaks, roofline
from distgan.config.load import load_config
from distgan.data.bricks.render import BrickSource
from distgan.data.pack import PackOptions, pack
from distgan.distributed import choose_device
from distgan.errors import UserError
from distgan.storage.storage import Storage
from distgan.training.process import prepare_process
from distgan.training.starting_point import find_checkpoint

# What forks of a server of processes find imported.
_PRELOADED = [
    "benchmarks.step",
    "benchmarks.roofline",
    "distgan.api",
    "distgan.launch.local",
    "distgan.evaluation.extractors.extractor",
]

QUICK_KEYS = (
    "image_size=16",
    "generator.width=4",
    "discriminator.width=4",
    "training.batch_size=8",
    "data.streams=4",
    "scale.groups=1",
)

# What else makes a preset small.
QUICK_KEYS_OF = {
    "sagan-faces128": ("discriminator.width=8", "generator.attention_at=8", "discriminator.attention_at=8"),
    "r3gan-cifar": ("generator.group_size=8", "discriminator.group_size=8"),
}

QUICK_OPTIONS = ("contiguous", "tf32", "cuda_graphs")

RESUMED = (
    (),
    ("training.cuda_graphs=on",),
    ("training.cuda_graphs=on", "objective.updates=sequential"),
    ("training.compile=on", "training.cuda_graphs=on"),
)

ROOFLINES = ("dcgan-bricks", "sagan-faces128")


@dataclass(frozen=True)
class Run:
    """What all parts are given. `until` is the `time.time()` at which this part must be over.

    Attributes:
        work: a folder for data and runs, which is removed at the end.
    """

    out: Path
    work: Path
    device: str
    quick: bool
    until: float

    @property
    def left(self) -> float:
        """Seconds."""
        return self.until - time.time()

    def keys(self, preset: str) -> list[str]:
        """The keys that make a preset small where this is quick."""
        return [*QUICK_KEYS, *QUICK_KEYS_OF.get(preset, ())] if self.quick else []

    def settings(self) -> step.Settings:
        if self.quick:
            return replace(step.QUICK, threads=1)
        # Of a fifth of the time nothing new is begun: a compilation may take as long.
        return step.Settings(seconds=0.5 if self.device == "cuda" else 2.0, until=self.until - 0.2 * self.left)


def gpu_tests(run: Run) -> None:
    """The tests that only a GPU can run, without the suite's own fixtures, which need more packages."""
    options = ["-v", "-rs", "-p", "no:cacheprovider", "--noconftest"]
    command = [sys.executable, "-m", "pytest", "tests/training/test_gpu.py", *options]
    file = run.out / "tests.txt"
    with file.open("w") as text:
        try:
            done = subprocess.run(command, stdout=text, stderr=subprocess.STDOUT, timeout=run.left - 5, check=False)
            code, result = done.returncode, file.read_text().splitlines()[-1].strip("= ")
        except subprocess.TimeoutExpired:
            words = file.read_text().split()
            code, result = None, f"out of time after {words.count('PASSED')} passed, {words.count('FAILED')} failed"
    save(run.out / "tests.json", {"exit": code, "result": result})
    if code != 0:
        raise UserError(result)


def table(preset: str, keys: Sequence[str], run: Run) -> dict[str, Any]:
    """The table of `benchmarks.step`."""
    device, options = choose_device(run.device, 0), QUICK_OPTIONS if run.quick else step.DEFAULT.split(",")
    file = run.out / f"step-{preset}.json"
    return step.measure(preset, [*run.keys(preset), *keys], options, device, run.settings(), file)


def resume(run: Run) -> None:
    """Trains a run as a whole, and another one in two sessions; both must end with the same bits."""
    steps = 2 if run.quick else 20
    found: list[dict[str, Any]] = []
    for keys in RESUMED[:2] if run.quick else RESUMED:
        row: dict[str, Any] = {"keys": keys, "steps": steps, "reason": None, "same_bits": None}
        found.append(row)
        try:
            row["same_bits"] = _resumes(run, keys, steps, f"resume-{len(found)}")
        except UserError as error:
            row["reason"] = str(error)
        except Exception as error:  # noqa: BLE001 - torch's own, whichever; the other rows are measured
            row["reason"] = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        save(run.out / "resume.json", {"rows": found})


def _resumes(run: Run, keys: Sequence[str], steps: int, name: str) -> bool:
    evaluation = ["evaluation.at_start=false", "evaluation.samples=64", "evaluation.real_samples=64"]
    base = [*run.keys("dcgan-bricks"), *evaluation, f"data.url={bricks(run)}", f"scale.device={run.device}", *keys]
    images = load_config("dcgan-bricks", base).training.batch_size
    ends = {}
    for kind, budgets in (("whole", [steps]), ("stopped", [steps // 2, steps])):
        for budget in budgets:
            config = load_config("dcgan-bricks", [*base, f"training.kimg={budget * images / 1000}"])
            done = distgan.train(config, name=f"{name}-{kind}", storage=run.work, ray=False)
        ends[kind] = find_checkpoint(done.url, "last").tensors
    whole, stopped = (
        [each for each in tree_leaves(ends[kind]) if isinstance(each, Tensor)] for kind in ("whole", "stopped")
    )
    return all(torch.equal(a, b) for a, b in zip(whole, stopped, strict=True))


def rooflines(run: Run) -> None:
    """Operations and bytes of a step, the device's peaks, and how much of the limit the tables reach."""
    device, threads = choose_device(run.device, 0), run.settings().threads
    peaks = measured_peaks(device, threads, run.quick)
    prepare_process(threads, device)
    tree: dict[str, Any] = {"about": about(device)}
    for preset in ROOFLINES:
        config = load_config(preset, ["scale.groups=1", *run.keys(preset)])
        file = run.out / f"step-{preset}.json"
        tree[preset] = roofline(config, device, peaks, json.loads(file.read_text()) if file.exists() else None)
        save(run.out / "roofline.json", tree)


def train(run: Run) -> None:
    """Trains dcgan-bricks for three minutes; leaves its curves, its last samples, its metrics and its summary."""
    keys = [*run.keys("dcgan-bricks"), f"data.url={bricks(run)}", f"scale.device={run.device}"]
    if run.quick:
        keys += ["evaluation.samples=16", "evaluation.real_samples=64", "training.kimg=0.032", "training.log_every=1"]
    else:
        keys += ["evaluation.samples=2048", "evaluation.real_samples=10000", "training.kimg=1e6"]
        keys += [f"training.max_minutes={max(0.1, min(3.0, (run.left - 40) / 60))}"]
        keys += ["training.compile=auto", "training.cuda_graphs=auto"]
    distgan.train(load_config("dcgan-bricks", keys), name="train", storage=run.work, ray=False)
    folder = run.work / "train"
    for name in ("curves.png", "metrics.jsonl", "config.yaml"):
        shutil.copy(folder / name, run.out / f"train-{name}")
    shutil.copy(max((folder / "samples").glob("*.png")), run.out / "train-samples.png")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    speeds = [row["images_per_second"] for row in rows if row["event"] == "step"]
    scores = [{key: row[key] for key in ("kimg", "metric", "value")} for row in rows if row["event"] == "evaluation"]
    summary = json.loads((folder / "summary.json").read_text())
    shown = [key for key in keys if not key.startswith("data.url=")]
    save(
        run.out / "train.json",
        {"keys": shown, "images_per_s": statistics.median(speeds), "evaluations": scores, "summary": summary},
    )


def bricks(run: Run) -> str:
    """The URL of rendered bricks, which are rendered where they are not there yet."""
    folder = Storage.open(str(run.work / "bricks"))
    if not (run.work / "bricks" / "index.json").exists():
        samples, size = (128, 16) if run.quick else (40_000 if run.device == "cuda" else 4_000, 64)
        pack(BrickSource(0, samples, size, 1), folder, PackOptions(size, 1, processes=1 if run.quick else None))
    return folder.url


def tables() -> list[tuple[str, tuple[str, ...]]]:
    """The presets of the tables with further keys."""
    return [
        *((preset, ()) for preset in ("dcgan-bricks", "wgan-gp-faces", "sagan-faces128", "cgan-fashion")),
        ("r3gan-cifar", ("training.augment=[]",)),  # the plain loop has no augmentation
    ]


def parts() -> dict[str, tuple[Callable[[Run], object], float]]:
    """What each part does, and its share of the time; what one does not use, the later ones have."""
    shares = (0.09, 0.2, 0.14, 0.08, 0.08)
    steps: dict[str, tuple[Callable[[Run], object], float]] = {
        f"step-{preset}": (partial(table, preset, keys), share)
        for (preset, keys), share in zip(tables(), shares, strict=True)
    }
    others = {"resume": (resume, 0.09), "roofline": (rooflines, 0.03), "train": (train, 0.26)}
    return {"tests": (gpu_tests, 0.12), **steps, **others}


def run_parts(run: Run, names: Sequence[str]) -> int:
    """Runs parts one after the other, all of them until `run.until`; returns how many failed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    shares = {name: parts()[name][1] for name in names}
    file = run.out / "parts.json"
    done: dict[str, dict[str, Any]] = json.loads(file.read_text())["parts"] if file.exists() else {}
    for number, name in enumerate(names):
        begin, rest = time.time(), sum(shares[each] for each in names[number:])
        limit = max(0.0, run.left) * shares[name] / rest
        error = _run_part(context, name, replace(run, until=begin + limit))
        done[name] = {"seconds": time.time() - begin, "error": error}
        console.print(f"{name}: {error or 'done'}, {done[name]['seconds']:.0f} s")
        save(file, {"parts": done, "device": run.device, "quick": run.quick})
        write_summary(run.out)
    return sum(done[name]["error"] is not None for name in names)


def _run_part(context: Any, name: str, run: Run) -> str | None:
    """Runs a part in another process, until its time is over; returns its error, which its file has, too."""
    process = context.Process(target=_serve, args=(name, run))
    process.start()
    try:
        process.join(max(1.0, run.left))
        over = process.is_alive()
    finally:
        _kill(process)
    file = run.out / f"{name}.json"
    tree = json.loads(file.read_text()) if file.exists() else {}
    if over:
        tree["error"] = "stopped: its share of the time was over"
    elif process.exitcode and "error" not in tree:
        tree["error"] = f"its process ended with {process.exitcode}"
    if "error" in tree:
        save(file, tree)
    return tree.get("error")


def _serve(name: str, run: Run) -> None:
    """A part in a session of its own, with its output in a log."""
    os.setsid()
    log = os.open(run.out / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    file = run.out / f"{name}.json"
    file.unlink(missing_ok=True)
    try:
        parts()[name][0](run)
    except Exception as error:  # noqa: BLE001 - whichever; the next part begins
        traceback.print_exc()
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        save(file, (json.loads(file.read_text()) if file.exists() else {}) | {"error": text})


def _kill(process: Any) -> None:
    """Ends a part and what it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()
    process.join()


def main(arguments: Sequence[str] | None = None) -> None:
    names = list(parts())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=13.0, help="for all parts together")
    parser.add_argument("--only", default=",".join(names), metavar="PART,...", help=f"of {', '.join(names)}")
    parser.add_argument("--quick", action="store_true", help="for tests: tiny networks, few steps")
    given = parser.parse_args(arguments)
    wanted = given.only.split(",")
    try:
        choose_device(given.device, 0)
        unknown = [name for name in wanted if name not in names]
        if unknown:
            raise UserError(f"--only {unknown[0]}: no such part; there are {', '.join(names)}")
    except UserError as error:
        console.print(f"error: {error}", style="red")
        sys.exit(2)
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="distgan-gpu-") as work:
        run = Run(given.out.resolve(), Path(work), given.device, given.quick, time.time() + 60 * given.minutes)
        failed = run_parts(run, wanted)
    console.print(f"{failed} of {len(wanted)} parts failed; {given.out / 'summary.md'} has the tables")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
