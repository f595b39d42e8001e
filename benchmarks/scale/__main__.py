"""Throughput on paper, from 1 to 1,024 workers, and the model's check against real runs: docs/project/scale.md.

python -m benchmarks.scale predict [PRESET ...] [--machine M] [--scaling strong|weak|weak-by-steps] [assumptions]
python -m benchmarks.scale facts     counts what the presets do, in their code; two minutes
python -m benchmarks.scale check     measures this machine, predicts runs with 1, 2 and 4 workers, then makes them
python -m benchmarks.scale page      writes the tables and the picture of docs/project/scale.md
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.report import machine
from benchmarks.scale import check, page
from benchmarks.scale.counting import data_images_of, run_of
from benchmarks.scale.facts import Facts, save
from benchmarks.scale.machine import Machine
from benchmarks.scale.machines import FRACTION, JITTER, MACHINES, OPERATOR_S, scaled
from benchmarks.scale.predict import PARTS, predict
from benchmarks.scale.run import Run
from benchmarks.scale.scaling import SCALINGS, limit
from benchmarks.scale.stored import measure_stored
from distgan.config.load import load_config, preset_names

DATA = Path(__file__).parent / "data"
FACTS, CHECK = DATA / "presets.json", DATA / "check.json"
DOCS = Path(__file__).parent.parent.parent / "docs"
console = Console(width=132, soft_wrap=True)
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def count(path: Path) -> None:
    """Counts what every preset does, and writes it down."""
    torch.set_num_threads(1)
    runs, decode_s = [], {}
    for name in preset_names():
        config = load_config(name)
        stored = measure_stored(config, bricks=config.channels == 1 and config.num_classes is None)
        runs.append(run_of(config, name, stored, data_images_of(name)))
        decode_s[name] = stored.decode_s
        console.print(
            f"{name}: {runs[-1].flops / 1e9:.2f} GFLOP an image, {sum(runs[-1].all_reduces()):,} bytes a step"
        )
    command = "python -m benchmarks.scale facts"
    about = {"command": command, "date": datetime.now(UTC).date().isoformat(), "machine": machine()}
    save(path, about, runs, decode_s)


def print_predictions(run: Run, on: Machine, scaling: str) -> None:
    """A table of one preset: a row a number of workers."""
    heads = (
        "workers",
        "images each",
        "images/s",
        "speed-up",
        "efficient",
        "step ms",
        *(part.replace("_", "-") for part in PARTS),
    )
    table = Table(*heads, title=f"{run.name}, {scaling} scaling, {on.name}", title_justify="left")
    one = predict(run, on, 1)
    for workers in WORKERS:
        if scaling == "strong" and workers > run.batch:
            break
        scaled_run = SCALINGS[scaling](run, workers)
        found = predict(scaled_run, on, workers)
        table.add_row(
            f"{workers:,}",
            f"{scaled_run.batch / workers:g}",
            f"{found.rate:,.0f}",
            f"{found.rate / one.rate:,.1f}",
            f"{found.efficiency(one):.0%}",
            f"{found.step_s * 1000:,.2f}",
            *(f"{share:.1%}" for share in found.shares().values()),
        )
    console.print(table)
    reached = limit(run, on, scaling)
    console.print(
        f"at least half of one worker's speed each: up to {reached.workers:,} workers; then: {reached.reason}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    predicting = commands.add_parser("predict", help="tables of presets on a machine")
    predicting.add_argument("presets", nargs="*", metavar="PRESET", default=["dcgan-bricks"])
    predicting.add_argument("--machine", choices=sorted(MACHINES), default="h100")
    predicting.add_argument("--scaling", choices=sorted(SCALINGS), default="strong")
    predicting.add_argument("--fraction", type=_positive, default=FRACTION, help="of the peak that is reached")
    predicting.add_argument("--operator-us", type=_positive, default=OPERATOR_S * 1e6, help="host time of an operator")
    predicting.add_argument("--jitter", type=_positive, default=JITTER, help="deviation of an update's time")
    predicting.add_argument("--network-gbits", type=_positive, help="of a node, in place of the machine's own")
    predicting.add_argument("--every-kimg", type=_positive, help="between two evaluations, in place of the preset's")
    predicting.add_argument("--memory-mb", type=_positive, help="data.memory_mb; by default what the data need")
    commands.add_parser("facts", help="count what the presets do")
    checking = commands.add_parser("check", help="the model against real runs")
    checking.add_argument("--repeats", type=int, default=1)
    commands.add_parser("page", help="write the tables and the picture of docs/project/scale.md")
    given = parser.parse_args(arguments)
    if given.command == "facts":
        count(FACTS)
    elif given.command == "check":
        about, rows = check.check(given.repeats)
        check.save(CHECK, about, rows)
        console.print(check.table(rows))
    elif given.command == "page":
        page.write(DOCS, Facts.load(FACTS), check.load(CHECK))
    else:
        facts = Facts.load(FACTS)
        unknown = [name for name in given.presets if name not in facts.runs]
        if unknown:
            parser.error(f"{unknown[0]!r} is not counted; choose of {', '.join(facts.runs)}, or run `facts` again")
        network = None if given.network_gbits is None else given.network_gbits * 1e9 / 8
        on = scaled(MACHINES[given.machine], given.fraction, given.operator_us / 1e6, given.jitter, network)
        console.print(f"{on.source}\nOn paper: no GPU was measured (docs/project/scale.md says what is assumed).")
        for name in given.presets:
            run = facts.in_memory()[name]
            if given.memory_mb is not None:
                run = replace(run, memory_bytes=round(given.memory_mb * 2**20))
            if given.every_kimg is not None:
                run = replace(run, every_images=given.every_kimg * 1000)
            print_predictions(run, replace(on, decode_s=facts.decode_s[name]), given.scaling)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


if __name__ == "__main__":
    main()
