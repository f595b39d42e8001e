"""What a run does, whatever it runs on: its updates, its images, its bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace


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


def in_memory(run: Run) -> Run:
    """With `data.memory_mb` so large that a worker keeps all decoded images: they are read in the first epoch only."""
    return replace(run, memory_bytes=max(run.memory_bytes, run.data_images * run.pixel_bytes))
