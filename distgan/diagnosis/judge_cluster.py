"""What is wrong between nodes: connections, all-reduces, unlike machines."""

from __future__ import annotations

from collections.abc import Iterator

from distgan.diagnosis.facts import Diagnosis, Timing
from distgan.diagnosis.finding import Finding

_CLUSTER = "the cluster"
# Bytes a second that a link carries: gigabit Ethernet has 118 MB/s; GPUs need ten times that to be kept busy.
_SLOW = {"gloo": 100e6, "nccl": 1e9}
_SLOW_ANSWER_S = 0.02
_GRADIENT_BYTES = 16 * 2**20


def judge_cluster(found: Diagnosis) -> list[Finding]:
    """Of the cluster as a whole."""
    return [*_blocked(found), *_all_reduce(found), *_unlike_gpus(found), *_no_nodes(found)]


def _no_nodes(found: Diagnosis) -> Iterator[Finding]:
    alive = [node for node in found.nodes if node.alive]
    if not any(node.resources.get("CPU", 0) for node in alive):
        yield Finding("fail", "processors", _CLUSTER, "no node has processors for workers", "add nodes")


def _blocked(found: Diagnosis) -> Iterator[Finding]:
    for one in found.blocked:
        yield Finding(
            "fail", "connections", f"{one.source} → {one.target}", f"a worker cannot reach one there: {one.reason}",
            "open all TCP ports between the nodes, in both directions (security group, firewall, network policy): "
            "gloo, NCCL and Ray's workers take ports as the system gives them",
        )  # fmt: skip


def _all_reduce(found: Diagnosis) -> Iterator[Finding]:
    one = found.all_reduce
    if one is None:
        return
    where = " ↔ ".join(sorted(set(one.workers)))
    if one.problem is not None:
        yield Finding(
            "fail", "all-reduce", where, f"{one.backend}: {one.problem}",
            "see that TCP ports between these nodes are open, in both directions; where nodes have several networks, "
            "name the interface with placement.interface",
        )  # fmt: skip
        return
    small, large = min(one.timings, key=_size, default=None), max(one.timings, key=_size, default=None)
    if small is None or large is None:
        return
    if len(set(one.workers)) > 1 and large.bus_bytes_per_second(len(one.workers)) < _SLOW[one.backend]:
        yield Finding(
            "warn", "all-reduce", where,
            f"{large.bus_bytes_per_second(len(one.workers)) / 1e6:.0f} MB/s by {one.backend}: the gradients of a "
            f"preset's generator at 64x64 (about {_GRADIENT_BYTES / 1e6:.0f} MB) take {large.seconds * 1e3:.0f} ms",
            "a faster network between the nodes, fewer workers with more groups each, or a larger batch",
        )  # fmt: skip
    if small.seconds > _SLOW_ANSWER_S:
        yield Finding(
            "warn", "all-reduce", where, f"one of {small.bytes} bytes takes {small.seconds * 1e3:.0f} ms",
            "place the nodes near each other (one zone, a placement group); see what else keeps their processors busy",
        )  # fmt: skip


def _size(timing: Timing) -> int:
    return timing.bytes


def _unlike_gpus(found: Diagnosis) -> Iterator[Finding]:
    kinds: dict[str, list[str]] = {}
    for node in found.nodes:
        for name in sorted(set(node.machine.gpus.names)) if node.machine is not None else ():
            kinds.setdefault(name, []).append(node.address)
    if len(kinds) > 1:
        listed = "; ".join(f"{name} on {', '.join(addresses)}" for name, addresses in sorted(kinds.items()))
        yield Finding(
            "warn", "GPUs", _CLUSTER, f"of different kinds: {listed}",
            "place a run on one kind (placement.accelerator_type): each step waits for the slowest worker",
        )  # fmt: skip
