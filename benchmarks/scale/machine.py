"""What a machine does in a second."""

from __future__ import annotations

import math
from dataclasses import dataclass


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
