"""Faults at drawn steps of runs, against the same run undisturbed: are they equal to the bit?

python -m benchmarks.chaos [--no-ray] [--rounds N | --no-ray --kills N] [--seed S]

Each round is a run that meets one fault; `--kills` is one run that is killed N times. Runs are on a cluster of two
nodes on this machine (`cluster/local`), or with `--no-ray` in one process, and on a local S3 server. Rows are those of
a Markdown table. All that was started ends with the command.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from benchmarks.chaos.comparison import NO_STATE, difference, state_difference
from benchmarks.chaos.faults import Fault, drawn, faults, kill, search_faults
from benchmarks.chaos.place import Place, place
from benchmarks.chaos.runs import OverdueError, Run, seconds_lost
from benchmarks.chaos.searches import Search
from benchmarks.report import console, machine, save
from distgan.errors import UserError
from distgan.launch.signals import end_on_signals

# Of a round, and of one kill.
STEPS_A_ROUND, STEPS_A_KILL = 160, 24

R = TypeVar("R", Run, Search)

_KILL = Fault("command killed", kill, by_itself=False)


@dataclass(frozen=True)
class Row:
    """A round.

    Attributes:
        step: the last one before the fault.
        recovered: by itself, or by the same command.
        seconds_lost: the longest time without a new step.
        repeated: steps that were trained twice.
        result: `equal`, or what differs.
        seconds: that the round took.
    """

    fault: str
    step: int
    recovered: str
    seconds_lost: float
    repeated: int
    result: str
    seconds: float = 0.0

    def __str__(self) -> str:
        cells = (self.fault, self.step, self.recovered, f"{self.seconds_lost:.1f}", self.repeated, self.result)
        return " | ".join(map(str, cells))


HEAD = """
| round | fault | step | goes on | seconds lost | steps repeated | result |
| --- | --- | --- | --- | --- | --- | --- |"""


def rounds(
    here: Place,
    chosen: list[Fault],
    rng: random.Random,
    limit_s: float,
    show: Callable[[Row], None],
    kind: type[R],
) -> None:
    """A run or search a fault; the rows are shown as they come."""
    calm = _calm(here, STEPS_A_ROUND, limit_s, kind)
    for number, fault in enumerate(chosen, 1):
        storage = str(here.small_disk) if fault.on_disk else here.storage
        run = kind(f"round-{number}", here, storage, STEPS_A_ROUND, fault.workers, time.monotonic() + limit_s)
        show(_round(run, calm, fault, rng))


def _round(run: R, calm: R, fault: Fault, rng: random.Random) -> Row:
    began, step, what = time.monotonic(), 0, fault.name
    # Not so late that the run ends before it meets an outage.
    at = 0 if fault.at_start else rng.randrange(11, STEPS_A_ROUND // 2)
    fault_at, result = 0.0, None
    run.start()
    try:
        run.wait_for(at)
        step = max((number for number, _ in run.logged()), default=0)
        fault_at = time.time()
        drew = fault.act(run, rng)
        what = f"{fault.name}: {drew}" if drew else fault.name
        run.finish()
        result = difference(run, calm)
        if result is None and fault.by_itself and len(run.exits) > 1:
            result = f"equal, but the command ended with {run.exits[0]}"
    except (OverdueError, AssertionError, UserError, OSError) as error:
        result = f"{type(error).__name__}: {error}"
        run.abandon()
    logged = [part.logged() for part in run.parts]
    how = "by itself" if len(run.exits) == 1 else "by the same command"
    lost = max(seconds_lost(rows, fault_at) for rows in logged)
    repeated = sum(len(rows) - len({number for number, _ in rows}) for rows in logged)
    return Row(what, step, how, lost, repeated, result or "equal", time.monotonic() - began)


def kills(here: Place, count: int, rng: random.Random, limit_s: float, show: Callable[[Row], None]) -> str | None:
    """One run that is killed `count` times; returns what differs at its end."""
    calm = _calm(here, count * STEPS_A_KILL, count * limit_s, Run)
    run = Run("killed", here, here.storage, calm.steps, "1", time.monotonic() + count * limit_s)
    waiting: list[Row] = []

    def compare(*, last: bool = False) -> None:
        """Shows the rows after which both runs have a state."""
        while waiting:
            result = state_difference(run, calm, waiting[0].step)
            if result == NO_STATE and not last:
                return
            show(replace(waiting.pop(0), result=result or "equal"))

    run.start()
    try:
        for number in range(count):
            run.wait_for(number * STEPS_A_KILL + rng.randrange(1, STEPS_A_KILL))
            waiting.append(_killed(run, rng))
            compare()
        run.finish()
    except OverdueError as error:
        run.abandon()
        return str(error)
    finally:
        compare(last=True)
    return difference(run, calm)


def _killed(run: Run, rng: random.Random) -> Row:
    """Kills the run and starts it again; without a result."""
    fault_at = time.time()
    kill(run, rng)
    before = run.logged()
    newest = max((step for step, _ in before), default=0)
    run.start()
    run.wait_for(newest + 1, after=len(before))
    after = run.logged()
    repeated = sum(step <= newest for step, _ in after[len(before) :])
    return Row(_KILL.name, newest, "by the same command", seconds_lost(after, fault_at), repeated, "")


def _calm(here: Place, steps: int, limit_s: float, kind: type[R]) -> R:
    """The undisturbed run or search, ended."""
    began = time.monotonic()
    calm = kind("undisturbed", here, here.storage, steps, "2", began + limit_s)
    calm.start()
    calm.finish()
    console.print(f"undisturbed: {steps} steps in {time.monotonic() - began:.0f} s")
    return calm


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--no-ray", action="store_true", help="one process, without Ray")
    parser.add_argument("--rounds", type=int, default=20, help="runs with a fault (default %(default)s)")
    parser.add_argument("--kills", type=int, help="kills of one run instead; with --no-ray")
    parser.add_argument("--search", action="store_true", help="searches of two trials in the place of runs")
    parser.add_argument("--only", default="", help="faults whose names contain this")
    parser.add_argument("--seed", type=int, default=0, help="of the faults and their moments")
    parser.add_argument("--longest-outage", type=float, default=20, help="seconds, from 5 on (default %(default)s)")
    parser.add_argument("--limit", type=float, default=600, help="seconds of a round, or a kill (default %(default)s)")
    parser.add_argument("--no-namespaces", action="store_true", help="nodes at loopback addresses")
    parser.add_argument("--out", type=Path, default=Path("chaos-output"), help="a new folder: servers, logs, records")
    parser.add_argument("--json", type=Path, help="the rows as JSON, written as they come")
    options = parser.parse_args()
    if options.kills is not None and not options.no_ray:
        parser.error("--kills: give --no-ray with it")
    if options.search and options.no_ray:
        parser.error("--search: trials are on Ray; leave out --no-ray")
    return options


def main() -> int:
    options, rows = _options(), list[Row]()
    end_on_signals()
    folder: Path = options.out.resolve()
    folder.mkdir(parents=True)
    rng, final = random.Random(options.seed), None
    count = options.rounds if options.kills is None else options.kills

    def show(row: Row) -> None:
        if not rows:
            console.print(HEAD)
        rows.append(row)
        console.print(f"| {len(rows)} | {row} |", highlight=False)
        if options.json is not None:
            save(options.json, {"machine": machine(), "seed": options.seed, "rows": [asdict(each) for each in rows]})

    console.print(machine())
    with place(folder, ray=not options.no_ray, namespaces=False if options.no_namespaces else None) as here:
        if options.kills is None:
            known = faults(here, options.longest_outage)
            known = [
                fault for fault in (search_faults(known) if options.search else known) if options.only in fault.name
            ]
            chosen = list(drawn(known, count, rng))
            rounds(here, chosen, rng, options.limit, show, Search if options.search else Run)
        else:
            final = kills(here, count, rng, options.limit, show)
            console.print(f"the ended run's state, metrics and samples: {final or 'equal'}")
    equal = sum(row.result == "equal" for row in rows)
    console.print(f"{equal} of {count} equal")
    return 0 if equal == count and final is None else 1


if __name__ == "__main__":
    sys.exit(main())
