"""What a search would cost, from a few steps and an evaluation's images measured in this process."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from distgan.config.schema import Config
from distgan.data.stream import Group
from distgan.distributed import Distributed, choose_device, requested_threads
from distgan.evaluation.evaluator import configured_extractor
from distgan.evaluation.image_source import CHUNK
from distgan.search.plan import SearchPlan
from distgan.search.planning import SearchSpec
from distgan.search.samplers import generation_count
from distgan.text import plural
from distgan.tracking import formatting
from distgan.training.ema import ExponentialMovingAverage
from distgan.training.fakes import GeneratedImages
from distgan.training.networks import build_networks, build_objective
from distgan.training.optimizers import build_optimizers
from distgan.training.process import choose_threads, prepare_process
from distgan.training.progress import Progress
from distgan.training.step import Step

# Measured until so many seconds have passed, at least once, after warming up.
_MEASURED_S = 2.0

_WARM_UP = 2

# Values that `asha_kimg` draws.
_ORDERS = 2000


@dataclass(frozen=True)
class Pace:
    """Seconds of one worker on this machine.

    Attributes:
        kimg_s: of training steps, for a thousand real images.
        evaluation_s: of an evaluation's images and their features.
    """

    device: str
    threads: int
    kimg_s: float
    evaluation_s: float


@dataclass(frozen=True)
class SearchCost:
    """What a search would cost.

    Attributes:
        trials: with repetitions; in a population a member counts once a generation.
        most_kimg: of all trials to their ends.
        likely_kimg: where ASHA stops trials whose values come in any order; None for other schedulers.
    """

    spec: SearchSpec
    trials: int
    most_kimg: float
    likely_kimg: float | None
    pace: Pace

    def seconds(self, kimg: float) -> float:
        """Of so much training with its evaluations, one trial of one worker at a time."""
        return kimg * (self.pace.kimg_s + self.pace.evaluation_s / self.spec.config.evaluation.every_kimg)


def estimate_cost(spec: SearchSpec) -> SearchCost:
    """Measures the pace of the shared configuration. Raises UserError where it cannot be trained or evaluated here."""
    plan, limits = spec.record.plan, spec.record.limits
    pace = measure_pace(spec.config)
    if plan.is_population:
        most = limits.trials * plan.kimg
        return SearchCost(spec, limits.trials * generation_count(plan), _limited(most, spec), None, pace)
    repeated = (limits.seeds - 1) * min(limits.top, limits.trials)
    most = (limits.trials + repeated) * plan.kimg
    likely = None
    if plan.scheduler == "asha":
        likely = _limited(asha_kimg(plan, limits.trials) + repeated * plan.kimg, spec)
    return SearchCost(spec, limits.trials + repeated, _limited(most, spec), likely, pace)


def _limited(kimg: float, spec: SearchSpec) -> float:
    budget = spec.record.limits.budget_kimg
    return kimg if budget is None else min(kimg, budget)


def asha_kimg(plan: SearchPlan, trials: int) -> float:
    """The mean kimg of trials that ASHA judges one after another, over random orders of their values.

    A trial keeps its rank at all rungs. It passes one if it is not below the quantile of those that were there before.
    """
    rng, orders = np.random.default_rng(0), max(1, _ORDERS // trials)
    rungs = [plan.grace_kimg]
    while rungs[-1] * plan.reduction_factor < plan.kimg:
        rungs.append(rungs[-1] * plan.reduction_factor)
    quantile, total = 1 - 1 / plan.reduction_factor, 0.0
    for _ in range(orders):
        known: list[list[float]] = [[] for _ in rungs]
        for value in rng.random(trials).tolist():
            total += plan.kimg
            for rung, before in zip(rungs, known, strict=True):
                passes = not before or value >= float(np.quantile(before, quantile))
                before.append(value)
                if not passes:
                    total -= plan.kimg - rung
                    break
    return total / orders


def measure_pace(config: Config) -> Pace:
    """Measures steps on images of noise, and one chunk of an evaluation."""
    distributed = Distributed(0, 1, choose_device(config.scale.device, 0), threads=requested_threads())
    threads = choose_threads(config.scale.threads, distributed, None)
    prepare_process(threads, distributed.device, config.training.precision)
    networks = build_networks(config, distributed.device)
    optimizers = build_optimizers(config.optimizer, networks.generator, networks.discriminator)
    step, progress = Step(config, networks, build_objective(config), optimizers, distributed), Progress()
    step.warm_up()
    ema = ExponentialMovingAverage(networks.generator, config.ema)
    batch = [_noise(config, config.training.batch_size // config.scale.groups) for _ in step.groups.local]

    def train() -> None:
        step.run(lambda: batch, progress.discriminator_updates, progress.step)
        ema.update(networks.generator, progress.images, progress.advance(config, step.batches_per_step))

    step_s = _seconds(train, distributed.device, _WARM_UP)
    extractor = configured_extractor(config.evaluation, distributed)
    images = GeneratedImages(config, np.zeros(1, np.int64), distributed.device, ema.network)
    chunk_s = _seconds(lambda: extractor(images.chunk(0).to(distributed.device)), distributed.device, 1)
    chunks = math.ceil(config.evaluation.samples / CHUNK)
    kimg = config.objective.critic_steps * config.training.batch_size / 1000
    return Pace(str(distributed.device.type), threads, step_s / kimg, chunk_s * chunks)


def _noise(config: Config, count: int) -> Group:
    images = torch.randint(0, 256, (count, *config.image_shape), dtype=torch.uint8)
    return Group(images, torch.zeros(count, dtype=torch.int64))


def _seconds(call: Callable[[], object], device: torch.device, warm_up: int) -> float:
    """Seconds of a call: the mean of as many as fit into `_MEASURED_S`."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    for _ in range(warm_up):
        call()
    wait()
    begin, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - begin < _MEASURED_S:
        call()
        wait()
        count += 1
    return (time.perf_counter() - begin) / count


def cost_lines(cost: SearchCost) -> Iterator[tuple[str, str]]:
    """Headings and texts: what a search trains, and how long that takes."""
    plan, config, pace = cost.spec.record.plan, cost.spec.config, cost.pace
    population = f" ({plural(cost.spec.record.limits.trials, 'member')})" if plan.is_population else ""
    yield "search", cost.spec.search.url
    yield "trials", f"{cost.trials:,}{population}, drawn by {plan.sampler}, stopped by {plan.scheduler}"
    likely = "" if cost.likely_kimg is None else f", about {formatting.kimg_count(cost.likely_kimg)} with asha"
    yield "kimg", f"at most {formatting.kimg_count(cost.most_kimg)}{likely}"
    threads = plural(pace.threads, "thread")
    yield "step", f"{formatting.number(pace.kimg_s)} s a kimg: 1 worker on {pace.device}, {threads}, measured here"
    every = f"{config.evaluation.every_kimg:g}"
    yield "evaluation", f"{formatting.number(pace.evaluation_s)} s each {every} kimg, measured on {pace.device}"
    most = formatting.duration(cost.seconds(cost.most_kimg))
    about = "" if cost.likely_kimg is None else f", about {formatting.duration(cost.seconds(cost.likely_kimg))}"
    yield "time", f"at most {most}{about}, one trial at a time, without its starts"
