"""What a search costs: full training curves recorded once, and Tune's schedulers replayed over many orders of them.

python -m benchmarks.search record --out FILE [--trials N]    half an hour of one core; resumes where it stopped
python -m benchmarks.search replay [--curves FILE] [--orders N] [--at-once C]
python -m benchmarks.search live --out FOLDER                 one search of the same draws on Ray, with ASHA
python -m benchmarks.search overhead [--kimg K]               what a trial costs beside its training
"""

from __future__ import annotations

import argparse
import random
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    HyperBandScheduler,
    MedianStoppingRule,
    TrialScheduler,
)
from rich.table import Table

from benchmarks import live_search
from benchmarks.curves import Curve, Plan, Recording, record
from benchmarks.replay import Outcome, Replay
from benchmarks.report import console

CURVES = Path(__file__).parent / "recorded" / "search-curves.json"
# The last is what `distgan tune` has by default.
ASHA = ("ASHA, factor 3", "ASHA, factor 4")
MOST_COST = 1 / 3
MOST_REGRET = 0.05


def schedulers(kimg: float, every_kimg: float) -> dict[str, Callable[[], TrialScheduler]]:
    """Each with what it is asked for: decisions from the first evaluation on, a budget of `kimg` a trial."""
    goal = {"metric": "best", "mode": "min"}
    in_kimg: dict[str, Any] = {"time_attr": "kimg", "grace_period": every_kimg, **goal}
    in_budget = in_kimg | {"max_t": kimg}
    # Its first milestones may lie before the first evaluation, and it would wait for ever: evaluations are its time.
    in_evaluations: dict[str, Any] = {"time_attr": "training_iteration", "max_t": round(kimg / every_kimg), **goal}
    return {
        "FIFO": FIFOScheduler,
        "ASHA, factor 3": lambda: ASHAScheduler(reduction_factor=3, **in_budget),
        "ASHA, factor 4": lambda: ASHAScheduler(reduction_factor=4, **in_budget),
        "ASHA, factor 3, 3 brackets": lambda: ASHAScheduler(reduction_factor=3, brackets=3, **in_budget),
        "HyperBand, factor 3": lambda: HyperBandScheduler(reduction_factor=3, **in_evaluations),
        "median stopping": lambda: MedianStoppingRule(**in_kimg),
    }


@dataclass(frozen=True)
class Searches:
    """A scheduler's searches over many orders of the same curves.

    Attributes:
        costs: of each, as a share of training all curves to the end.
        regrets: how much worse its best value was than the best of all curves, as a share of this.
    """

    costs: list[float]
    regrets: list[float]

    @classmethod
    def of(cls, outcomes: Sequence[Outcome], curves: Sequence[Curve]) -> Searches:
        whole = sum(curve.kimg for curve in curves)
        best = min(curve.best for curve in curves)
        return cls([one.kimg / whole for one in outcomes], [one.best / best - 1 for one in outcomes])

    @property
    def within(self) -> float:
        """The share of searches whose winner is as good as it should be."""
        return float(np.mean([regret <= MOST_REGRET for regret in self.regrets]))

    @property
    def median_cost(self) -> float:
        return float(np.median(self.costs))

    @property
    def median_regret(self) -> float:
        return float(np.median(self.regrets))

    @property
    def is_good(self) -> bool:
        """Whether the median search is cheap and its winner is good."""
        return self.median_cost <= MOST_COST and self.median_regret <= MOST_REGRET


def orders_of(curves: Sequence[Curve], count: int, seed: int = 0) -> list[list[Curve]]:
    """So many orders, drawn by seed."""
    rng = random.Random(seed)
    return [rng.sample(list(curves), len(curves)) for _ in range(count)]


def replay_all(recording: Recording, orders: int, at_once: int) -> dict[str, Searches]:
    """Every scheduler over the same orders."""
    curves = recording.curves
    drawn = orders_of(curves, orders)
    np.random.seed(0)  # from which Tune draws brackets
    return {
        name: Searches.of([Replay(make(), order, at_once).run() for order in drawn], curves)
        for name, make in schedulers(recording.about["kimg"], recording.about["every_kimg"]).items()
    }


def print_curves(recording: Recording) -> None:
    """Where the curves end up."""
    curves = recording.curves
    best = sorted(curve.best for curve in curves)
    ended = sum(curve.diverged is not None for curve in curves)
    table = Table("best value of a curve", "", title=f"{len(curves)} curves", title_justify="left")
    for name, share in (("best", 0), ("quartile", 25), ("median", 50), ("quartile", 75), ("worst", 100)):
        table.add_row(name, f"{np.percentile(best, share, method='nearest'):,.0f}")
    near = sum(value <= (1 + MOST_REGRET) * best[0] for value in best)
    console.print(table)
    console.print(f"within {MOST_REGRET:.0%} of the best: {near}; diverged: {ended}")


def print_searches(searches: Mapping[str, Searches], orders: int, at_once: int) -> None:
    """A row a scheduler."""
    title = f"{orders} orders, {at_once} trials at once; medians; cost as a share of training all"
    columns = ("cost", "5 %", "95 %", "regret", "95 %", f"within {MOST_REGRET:.0%}")
    table = Table("scheduler", *columns, title=title, title_justify="left")
    for name, found in searches.items():
        costs, regrets = np.percentile(found.costs, (50, 5, 95)), np.percentile(found.regrets, (50, 95))
        table.add_row(name, *[f"{value:.1%}" for value in (*costs, *regrets, found.within)])
    console.print(table)


def replay(path: Path, orders: int, at_once: int) -> None:
    """All schedulers over the curves of a file; the last lines are the ratios."""
    recorded = Recording.load(path)
    console.print(f"{path.name}: {recorded.about['command']} ({recorded.about['date']})")
    print_curves(recorded)
    searches = replay_all(recorded, orders, at_once)
    print_searches(searches, orders, at_once)
    for name in ASHA:
        print_ratio_of(name, searches[name])


def live(folder: Path) -> None:
    """One search by the command line; the last line says what it cost and how good its winner is."""
    recorded = Recording.load(CURVES)
    record = live_search.search(recorded, folder, "--trials", str(len(recorded.curves)))
    found = live_search.compare(recorded, record)
    console.print(
        f"{found.same} of {found.compared} evaluations are the recorded ones; live ASHA / all to the end: "
        f"{found.cost:.3f} (target: at most {MOST_COST:.3f}), the winner {found.regret:.1%} from the best (target: at "
        f"most {MOST_REGRET:.0%})"
    )


def print_ratio_of(name: str, found: Searches) -> None:
    """The line that says whether a scheduler keeps the promise."""
    console.print(
        f"{name} / all to the end: {found.median_cost:.3f} (target: at most {MOST_COST:.3f}), the winner "
        f"{found.median_regret:.1%} from the best (target: at most {MOST_REGRET:.0%}): "
        f"{'met' if found.is_good else 'NOT met'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("--out", type=Path, required=True)
    recording.add_argument("--trials", type=int, default=30)
    recording.add_argument("--kimg", type=float, default=36)
    recording.add_argument("--every-kimg", type=float, default=4)
    recording.add_argument("--images", type=int, default=4096)
    recording.add_argument("--seed", type=int, default=0)
    replaying = commands.add_parser("replay")
    replaying.add_argument("--curves", type=Path, default=CURVES)
    replaying.add_argument("--orders", type=int, default=200)
    replaying.add_argument("--at-once", type=int, default=4)
    searching = commands.add_parser("live")
    searching.add_argument("--out", type=Path, required=True)
    costing = commands.add_parser("overhead")
    costing.add_argument("--kimg", type=float, default=4)
    arguments = parser.parse_args()
    if arguments.what == "record":
        command = shlex.join(["python", "-m", "benchmarks.search", *sys.argv[1:]])
        given = (arguments.trials, arguments.kimg, arguments.every_kimg, arguments.images, arguments.seed)
        record(Plan(*given, command), arguments.out)
    elif arguments.what == "live":
        live(arguments.out)
    elif arguments.what == "overhead":
        with tempfile.TemporaryDirectory() as folder:
            live_search.overhead(Recording.load(CURVES), Path(folder), arguments.kimg)
    else:
        replay(arguments.curves, arguments.orders, arguments.at_once)


if __name__ == "__main__":
    main()
