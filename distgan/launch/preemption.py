"""Notices of preemptions, as reasons to save a run's state at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import ray

from distgan.storage.retry import duration

# A second checkpoint comes so long before the node goes, if the notice came twice as early.
_LAST_SAVE_S = 30.0


@dataclass(frozen=True)
class Preemption:
    """A notice of Ray.

    Attributes:
        deadline: when the first node goes, in seconds since 1970; None if the cloud has not said.
        ranks: the workers on each node, by the node's id.
    """

    deadline: float | None
    ranks: Mapping[str, tuple[int, ...]]

    def places(self) -> str:
        """`node 10.0.0.2 (worker 1)`."""
        nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}  # type: ignore[no-untyped-call]
        return ", ".join(
            f"node {nodes.get(node, node)} (worker{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))})"
            for node, ranks in sorted(self.ranks.items())
        )


class PreemptionSaves:
    """When to save because of notices: at once for each node, and again shortly before it goes.

    Args:
        read: the notice that this worker has received, which covers all nodes so far; None without one.
        now: seconds since 1970.
    """

    def __init__(self, read: Callable[[], Preemption | None], now: Callable[[], float] = time.time) -> None:
        self._read, self._now = read, now
        self._known: set[str] = set()
        self._again: float | None = None

    def take(self) -> str | None:
        """Why to save now; None where there is no new reason."""
        notice = self._read()
        if notice is None:
            return None
        if notice.ranks.keys() <= self._known:
            if self._again is None or self._now() < self._again:
                return None
            self._again = None
        else:
            self._known |= notice.ranks.keys()
            early = notice.deadline is not None and notice.deadline - self._now() >= 2 * _LAST_SAVE_S
            self._again = notice.deadline - _LAST_SAVE_S if early and notice.deadline is not None else None
        left = "" if notice.deadline is None else f" in {duration(max(0.0, notice.deadline - self._now()))}"
        return f"{notice.places()} will be preempted{left}"
