"""How many images a second a training makes: arithmetic on what a run does and what a machine does in a second.

What a run does comes from its own code (`counting`), what a machine does from a data sheet (`machines`) or
from a measurement (`measure`). docs/project/scale.md has the formulas and what they assume.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import accumulate
from statistics import NormalDist

from benchmarks.scale.machine import Machine
from benchmarks.scale.run import Run, Update

# Of an update's time, the part in which its gradients appear: a backward costs about two forwards.
BACKWARD = 2 / 3
# Steps between two meetings of the workers for the run's health (`health.watch.WINDOW`; a test holds it).
HEALTH_EVERY = 50
# What a step's time goes into.
PARTS = ("compute", "stragglers", "all_reduce", "data", "meeting", "evaluation", "saving")


@dataclass(frozen=True)
class Prediction:
    """Seconds of a step by what they go into, on so many workers; evaluations and the like as a step's share."""

    workers: int
    counted_images: int
    compute: float
    stragglers: float
    all_reduce: float
    data: float
    meeting: float
    evaluation: float
    saving: float

    @property
    def training_s(self) -> float:
        """What a run reports as time of training, its workers' meetings apart."""
        return self.compute + self.stragglers + self.all_reduce + self.data

    @property
    def step_s(self) -> float:
        return self.training_s + self.meeting + self.evaluation + self.saving

    @property
    def training_rate(self) -> float:
        """Images a second while it trains."""
        return self.counted_images / self.training_s

    @property
    def rate(self) -> float:
        """Images a second with everything."""
        return self.counted_images / self.step_s

    def shares(self) -> dict[str, float]:
        """Of a step's time."""
        return {part: getattr(self, part) / self.step_s for part in PARTS}

    def efficiency(self, one: Prediction) -> float:
        """Images a second of a worker, in units of what the one worker of a run alone makes."""
        return self.rate / (one.rate * self.workers)

    def losses(self, one: Prediction) -> dict[str, float]:
        """What keeps a step from an equal share of one worker's time: the seconds of each part above that share."""
        work = self.counted_images / (one.counted_images * self.workers)
        return {part: getattr(self, part) - getattr(one, part) * work for part in PARTS}


def predict(run: Run, machine: Machine, workers: int) -> Prediction:
    """What a run makes of so many workers, which are at most its groups."""
    if workers > run.groups:
        raise ValueError(f"{workers} workers need as many groups, and {run.name} has {run.groups}")
    groups = -(-run.groups // workers)  # of the worker that has most
    images = run.batch / run.groups * groups
    compute = machine.compute_s(0.0, run.step_operators, workers)
    exposed = 0.0
    for update in run.updates:
        operators = update.operators * groups + update.fixed_operators
        seconds = machine.compute_s(update.flops * images, operators, workers)
        compute += update.count * seconds
        exposed += update.count * exposed_s(update, seconds / groups, machine, workers)
    stragglers = compute * machine.jitter * latest_of(workers)
    own = compute + stragglers + exposed
    reading = data_s(run, machine, workers)
    data = reading * machine.slowdown(workers) if machine.busy(workers) else max(0.0, reading - own)
    step = Prediction(workers, run.counted_images, compute, stragglers, exposed, data, 0.0, 0.0, 0.0)
    evaluations = min(1.0, run.counted_images / run.every_images)
    return replace(
        step,
        meeting=meeting_s(run, machine, workers),
        evaluation=evaluations * evaluation_s(run, machine, workers),
        saving=evaluations * saving_s(run, machine, workers, step.training_s / evaluations),
    )


def exposed_s(update: Update, group_s: float, machine: Machine, workers: int) -> float:
    """Seconds that an update waits for its all-reduces, which go one after another.

    They begin when what they add up is there: batch statistics after the last group's forward, gradients by and by in
    its backward. Where all cores are at work already nothing is hidden.
    """
    costs = [machine.all_reduce_s(size, workers) for size in update.all_reduces(machine.queued)]
    if machine.busy(workers):
        return sum(costs)
    window = group_s * BACKWARD
    buckets = update.gpu_buckets if machine.queued else update.buckets
    ready = [0.0] if update.statistics else []
    ready += [window * done / sum(buckets) for done in accumulate(buckets)]
    end = 0.0
    for begin, cost in zip(ready, costs, strict=True):
        end = max(end, begin) + cost
    return max(0.0, end - window) if workers > 1 else 0.0


def latest_of(workers: int) -> float:
    """How many standard deviations the latest of so many lies behind the mean, after Blom (1958)."""
    return NormalDist().inv_cdf((workers - 0.375) / (workers + 0.25)) if workers > 1 else 0.0


def data_s(run: Run, machine: Machine, workers: int) -> float:
    """Seconds that a worker reads for a step's images, decoded by one thread; mean over the whole run."""
    images = run.real_images / run.groups * -(-run.groups // workers)
    fresh = fresh_share(run, workers)
    decoding = images * (fresh * machine.decode_s + machine.gather_s)
    readers = min(workers, machine.workers_a_node)
    loading = images * readers * fresh * run.image_bytes * amplification(run) / machine.storage
    return max(decoding, loading)


def fresh_share(run: Run, workers: int) -> float:
    """The part of the images that have to be read and decoded: those of the first epoch where all can be kept."""
    if run.data_images / workers * run.pixel_bytes > run.memory_bytes:
        return 1.0
    return min(1.0, run.data_images / run.budget)


def amplification(run: Run) -> float:
    """How often a byte is read in an epoch: two streams that meet within a block both read it."""
    blocks = max(1.0, run.data_images * run.image_bytes / run.block_bytes)
    return 1 + (run.streams - 1) / blocks


def meeting_s(run: Run, machine: Machine, workers: int) -> float:
    """Seconds of a step's share of meetings: losses are added up in the order of ranks, then rank 0 decides."""
    meetings = 1 / HEALTH_EVERY + 1 / run.log_every
    rows = workers * (run.terms / meetings + 1) * 4
    adding = workers * machine.operator_s if workers > 1 else 0.0
    # A decision is two broadcasts, of an object's length and the object; each as long as an all-reduce of nothing.
    return meetings * (machine.all_reduce_s(rows, workers) + adding + 2 * machine.all_reduce_s(8, workers))


def evaluation_s(run: Run, machine: Machine, workers: int) -> float:
    """Seconds of one evaluation by all workers: chunks, their sums' all-reduce, and the distance on rank 0."""
    chunks = math.ceil(math.ceil(run.samples / run.chunk) / workers)
    samples = min(run.samples, chunks * run.chunk)
    if machine.queued:
        device = samples * (run.evaluation_flops / machine.flops + run.extractor_flops / machine.exact_flops)
        own = max(device, chunks * run.chunk_operators * machine.operator_s)
    else:
        own = samples * (run.evaluation_flops + run.extractor_flops) / machine.exact_flops
    return own * machine.slowdown(workers) + machine.all_reduce_s(run.sums_bytes, workers) + machine.distance_s


def saving_s(run: Run, machine: Machine, workers: int, between_s: float) -> float:
    """Seconds that a checkpoint and a picture hold all workers up, with so many seconds of training between two.

    The state is copied, then written beside the training; the next checkpoint waits for the write.
    """
    writing = run.state_bytes / machine.write
    waiting = writing if machine.busy(workers) else max(0.0, writing - between_s)
    return run.state_bytes / machine.copy + machine.grid_s + waiting
