"""How many images a second a training makes: arithmetic on what a run does and what a machine does in a second.

What a run does comes from its own code (`scale_facts`), what a machine does from a data sheet (`scale_machines`) or
from a measurement (`scale_measure`). docs/scale.md has the formulas and what they assume.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import accumulate
from statistics import NormalDist

# Of an update's time, the part in which its gradients appear: a backward costs about two forwards.
BACKWARD = 2 / 3
# Steps between two meetings of the workers for the run's health (`health.watch.WINDOW`; a test holds it).
HEALTH_EVERY = 50
# What a step's time goes into.
PARTS = ("compute", "stragglers", "all_reduce", "data", "meeting", "evaluation", "saving")


@dataclass(frozen=True)
class Update:
    """An update of one network, or of both together, and what its workers add up.

    Attributes:
        name: whose: `critic`, `generator` or `both`.
        count: of such updates in a step.
        flops: floating-point operations for each image of the batch.
        operators: that a worker dispatches for each of its groups.
        fixed_operators: that it dispatches once.
        buckets: bytes of gradients of each all-reduce, in the order in which they are complete, between processors.
        gpu_buckets: the same between GPUs, where the first one is small.
        statistics: bytes of the all-reduce of batch statistics; 0 where there is none.
    """

    name: str
    count: int
    flops: float
    operators: float
    fixed_operators: float
    buckets: tuple[int, ...]
    gpu_buckets: tuple[int, ...]
    statistics: int

    def all_reduces(self, gpu: bool = False) -> tuple[int, ...]:
        """Bytes of each all-reduce of one such update, in their order."""
        return ((self.statistics,) if self.statistics else ()) + (self.gpu_buckets if gpu else self.buckets)


@dataclass(frozen=True)
class Run:
    """What a run does, whatever it runs on.

    Attributes:
        batch: images of a global batch. groups, streams: parts of it, and of the data.
        real_images: of the batches that a step takes from the data. counted_images: that it counts as kimg.
        updates: of a step. step_operators: dispatched once a step, beside those of the updates.
        terms: numbers of a step that the workers bring together; log_every: steps between two rows of metrics.
        budget: images of the whole run. data_images: different ones in the data set.
        image_bytes: of a packed image, with its part of the shard's frame. pixel_bytes: decoded. block_bytes: of a
            range that is read at once. memory_bytes: of decoded images that a worker keeps.
        state_bytes: of a checkpoint.
        every_images: between two evaluations. samples: of one. chunk: images of it that a worker takes at a time.
        evaluation_flops, extractor_flops: for each sample, of the generator and of the extractor.
        chunk_operators: dispatched for each chunk. sums_bytes: of an evaluation's all-reduce.
    """

    name: str
    batch: int
    groups: int
    streams: int
    real_images: int
    counted_images: int
    updates: tuple[Update, ...]
    step_operators: float
    terms: int
    log_every: int
    budget: float
    data_images: int
    image_bytes: float
    pixel_bytes: int
    block_bytes: int
    memory_bytes: int
    state_bytes: int
    every_images: float
    samples: int
    chunk: int
    evaluation_flops: float
    extractor_flops: float
    chunk_operators: float
    sums_bytes: int

    def all_reduces(self, gpu: bool = False) -> tuple[int, ...]:
        """Bytes of each all-reduce of a step, in their order."""
        return tuple(size for update in self.updates for _ in range(update.count) for size in update.all_reduces(gpu))

    @property
    def flops(self) -> float:
        """Of a step, for each image of the batch."""
        return sum(update.count * update.flops for update in self.updates)

    @property
    def operators(self) -> float:
        """Of a step with one group."""
        updates = sum(update.count * (update.operators + update.fixed_operators) for update in self.updates)
        return self.step_operators + updates


@dataclass(frozen=True)
class Links:
    """What one algorithm's all-reduce costs: seconds before anything moves, and of a hop within and between nodes."""

    base_s: float
    within_s: float
    between_s: float


@dataclass(frozen=True)
class Machine:
    """What nodes of one kind do. A worker has a GPU, or `threads` processor cores where there is none.

    Attributes:
        workers_a_node: GPUs of a node, or as many workers as one wants. cores: of a node.
        flops: floating-point operations a second of a worker in training, as reached, not the peak.
        exact_flops: the same in the extractor, which uses float32 proper; without a queue, in a whole evaluation.
        operator_s: seconds of the host to dispatch an operator.
        queued: whether the host runs ahead of the device, so that the slower of both counts; else they add up.
        ring, tree: latencies of an all-reduce; no tree for gloo.
        within, between: bytes a second of a worker's all-reduce (its bus bandwidth) in a node and between nodes.
        decode_s, gather_s: to decode an image, and to copy a decoded one into a batch.
        storage: bytes a second that a node reads from object storage.
        copy: bytes a second from the device into a snapshot. write: of a checkpoint, beside the training.
        distance_s: an evaluation's Fréchet distance. grid_s: a picture of samples, drawn and stored by rank 0.
        jitter: standard deviation of an update's time, as a share of it.
        crowding: how much slower a worker is with all cores of its node at work.
    """

    name: str
    source: str
    workers_a_node: int
    cores: int
    threads: int
    flops: float
    exact_flops: float
    operator_s: float
    queued: bool
    ring: Links
    tree: Links | None
    within: float
    between: float
    decode_s: float
    gather_s: float
    storage: float
    copy: float
    write: float
    distance_s: float
    grid_s: float
    jitter: float
    crowding: float = 1.0

    def nodes(self, workers: int) -> int:
        return -(-workers // self.workers_a_node)

    def busy(self, workers: int) -> bool:
        """Whether no core of a node is left for what runs beside the training."""
        return min(workers, self.workers_a_node) * self.threads >= self.cores

    def slowdown(self, workers: int) -> float:
        """How much longer a worker computes than it would alone on its node."""
        if not self.busy(workers):
            return 1.0
        return self.crowding * max(1.0, min(workers, self.workers_a_node) * self.threads / self.cores)

    def compute_s(self, flops: float, operators: float, workers: int) -> float:
        """Seconds of a worker for so many operations, its node's other workers doing the same."""
        device, host = flops / self.flops, operators * self.operator_s
        return self.slowdown(workers) * (max(device, host) if self.queued else device + host)

    def all_reduce_s(self, size: float, workers: int) -> float:
        """Seconds of one all-reduce of `size` bytes: by a ring, or by trees where these are sooner done."""
        if workers == 1:
            return 0.0
        nodes = self.nodes(workers)
        local = min(workers, self.workers_a_node)
        bandwidth = self.within if nodes == 1 else min(self.within, self.between)
        steps, crossings = 2 * (workers - 1), 2 * (nodes - 1)
        ring = (
            self.ring.base_s
            + (steps - crossings) * self.ring.within_s
            + crossings * self.ring.between_s
            + 2 * (workers - 1) / workers * size / bandwidth
        )
        if self.tree is None:
            return ring
        hops = (local - 1) * self.tree.within_s + math.log2(nodes) * self.tree.between_s
        return min(ring, self.tree.base_s + 2 * hops + 2 * size / bandwidth)


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


def in_memory(run: Run) -> Run:
    """With `data.memory_mb` so large that a worker keeps all decoded images: they are read in the first epoch only."""
    return replace(run, memory_bytes=max(run.memory_bytes, run.data_images * run.pixel_bytes))


def strong(run: Run, workers: int) -> Run:
    """The same batch on more workers: as many groups and streams as they need.

    Raises ValueError where a batch has not as many images.
    """
    if workers > run.batch:
        raise ValueError(f"{run.name}: {workers} workers, and a batch of {run.batch} images")
    return replace(run, groups=max(run.groups, workers), streams=max(run.streams, workers))


def weak(run: Run, workers: int) -> Run:
    """The preset's whole batch, in its groups, on each worker: `workers` times as many images a step.

    Evaluations stay as many images apart, and so come after fewer steps.
    """
    return replace(
        run,
        batch=run.batch * workers,
        groups=run.groups * workers,
        streams=max(run.streams, run.groups * workers),
        real_images=run.real_images * workers,
        counted_images=run.counted_images * workers,
    )


def weak_by_steps(run: Run, workers: int) -> Run:
    """As `weak`, with as many steps between two evaluations as one worker has: `every_kimg` grows with the workers."""
    return replace(weak(run, workers), every_images=run.every_images * workers)


SCALINGS = {"strong": strong, "weak": weak, "weak-by-steps": weak_by_steps}


@dataclass(frozen=True)
class Limit:
    """How far a run scales by doublings of its workers.

    Attributes:
        workers: the most that each still make half of what one alone makes.
        why: the part that costs most with twice as many; `batch` where there is no image left for them, `1,024` where
            nothing stops it up to there.
    """

    workers: int
    why: str


def limit(run: Run, machine: Machine, scaling: str, most: int = 1024) -> Limit:
    """Where a run's efficiency falls below a half."""
    one, workers = predict(run, machine, 1), 1
    while workers < most:
        if scaling == "strong" and 2 * workers > run.batch:
            return Limit(workers, "batch")
        more = predict(SCALINGS[scaling](run, 2 * workers), machine, 2 * workers)
        if more.efficiency(one) < 0.5:
            losses = more.losses(one)
            return Limit(workers, max(losses, key=lambda part: losses[part]))
        workers *= 2
    return Limit(workers, f"{most:,}")
