"""Records of searches that never ran, with curves that look as if they had."""

from __future__ import annotations

import math
from random import Random
from typing import Any

from distgan.config.load import load_config
from distgan.search.plan import SearchLimits, SearchPlan
from distgan.search.record import SearchRecord, Trial
from distgan.search.space import Space

PRESET = "wgan-gp-cifar"
SPACE = {
    "optimizer.generator.lr": "loguniform(2e-5, 2e-3)",
    "optimizer.discriminator.lr": "optimizer.generator.lr * choice(0.5, 1, 2, 4)",
    "objective.critic_steps": "choice(1, 3, 5)",
    "objective.gp_weight": "loguniform(1, 100) if objective.critic_steps in (3, 5)",
    "discriminator.width": "quniform(32, 128, 32)",
}
METRIC = "fd_lite0_2k"
BUDGET = 240.0
RUNGS = (20.0, 60.0, 180.0)


def make_plan(space: dict[str, str] = SPACE, **changes: Any) -> SearchPlan:
    """A plan of ASHA on a preset at a budget of 240 kimg."""
    config = load_config(PRESET, ["training.kimg=240", "evaluation.every_kimg=20", "data.url=/data/cifar"])
    plan = SearchPlan(
        source=PRESET,
        data_hash="0" * 64,
        config=config.model_dump(mode="json"),
        space=space,
        measure="frechet",
        metric=METRIC,
        higher_is_better=False,
        sampler="random",
        scheduler="asha",
        grace_kimg=20.0,
        reduction_factor=3.0,
        interval_kimg=20.0,
    )
    return plan.model_copy(update=changes)


def make_trial(plan: SearchPlan, number: int, **changes: Any) -> Trial:
    """Draw `number` of the plan's space, waiting."""
    space = Space.parse(plan.space)
    draw = space.sample(plan.seed, number)
    trial = Trial(number=number, draw=draw, overrides=space.overrides(draw), seed=plan.config["seed"])
    return trial.model_copy(update=changes)


def make_record(trials: list[Trial], plan: SearchPlan, **changes: Any) -> SearchRecord:
    record = SearchRecord(name="rates", plan=plan, limits=SearchLimits(trials=len(trials) or 30), trials=trials)
    return record.model_copy(update=changes)


def floor_of(trial: Trial) -> float:
    """What a trial comes to in the end: by far the most by the generator's rate, best near 2e-4."""
    off = math.log10(trial.overrides["optimizer.generator.lr"] / 2e-4)
    steps = {1: 60.0, 3: 0.0, 5: 20.0}.get(trial.overrides.get("objective.critic_steps", 5), 0.0)
    return 300 + 900 * off**2 + steps


def curve_of(trial: Trial, until: float) -> list[tuple[float, float]]:
    """An evaluation every 20 kimg, with some noise."""
    rng, floor = Random(f"{trial.number}/{trial.seed}"), floor_of(trial)
    points = [20.0 * count for count in range(1, round(until / 20) + 1)]
    return [(kimg, (floor + 2400 * math.exp(-kimg / 50)) * rng.uniform(0.95, 1.05)) for kimg in points]


def finished(count: int, plan: SearchPlan | None = None) -> SearchRecord:
    """A search that has ended: of its trials ASHA stopped most; every eleventh diverged, every thirteenth failed."""
    plan = plan or make_plan()
    trials = [make_trial(plan, number) for number in range(count)]
    order = sorted(trials, key=floor_of)
    for place, trial in enumerate(order):
        share = place / max(count, 1)
        until = BUDGET if share < 0.15 else RUNGS[2] if share < 0.3 else RUNGS[1] if share < 0.55 else RUNGS[0]
        trial.state = "budget" if until == BUDGET else "stopped"
        if trial.number % 11 == 10:
            until, trial.state = min(until, 40.0), "diverged"
        if trial.number % 13 == 12:
            until, trial.state, trial.note = 0.0, "failed", "RuntimeError: out of memory"
        trial.curve = curve_of(trial, until)
        trial.seconds = 3 * until
    return make_record(trials, plan, ended="all trials ended")


def with_repetitions(record: SearchRecord, best: list[int], seeds: int) -> SearchRecord:
    """Each of the trials again with other seeds."""
    trials = list(record.trials)
    for number in best:
        for offset in range(1, seeds):
            again = record.trials[number].model_copy(
                update={"number": len(trials), "repeats": number, "seed": record.trials[number].seed + offset}
            )
            again.curve, again.state = curve_of(again, BUDGET), "budget"
            trials.append(again)
    return record.model_copy(update={"trials": trials})


def population(members: int, generations: int) -> SearchRecord:
    """Population-based training of rates: the worst member of each generation takes over the best one's state."""
    space = {"optimizer.generator.lr": "loguniform(2e-5, 2e-3)", "objective.critic_steps": "choice(1, 3, 5)"}
    plan = make_plan(space, scheduler="pbt", interval_kimg=40.0)
    trials = [make_trial(plan, number) for number in range(members)]
    for generation in range(generations):
        last = trials[-members:] if generation else []
        for member in range(members if last else 0):
            parent = last[member]
            if parent is max(last, key=lambda one: one.latest or 0.0):
                parent = min(last, key=lambda one: one.latest or 0.0)
            trial = make_trial(plan, len(trials), generation=generation, parent=parent.number)
            trial.overrides = {
                **parent.overrides,
                "optimizer.generator.lr": parent.overrides["optimizer.generator.lr"] * (0.8, 1.2)[member % 2],
            }
            trial.draw = dict(trial.overrides)
            trials.append(trial)
        for trial in trials[-members:]:
            whole = curve_of(trial, 40.0 * (generation + 1))
            before = trials[trial.parent].latest if trial.parent is not None else None
            ratio = before / curve_of(trial, 40.0 * generation)[-1][1] if before is not None else 1.0
            pull = [(kimg, value * (ratio + (1 - ratio) * 0.5)) for kimg, value in whole]
            trial.curve, trial.state = [point for point in pull if point[0] > 40.0 * generation], "budget"
    return make_record(trials, plan, ended="all trials ended")
