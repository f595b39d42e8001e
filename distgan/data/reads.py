"""What a worker reads of a data set, and what its caches spare: counts, and the metrics made of them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping


class ReadCounts:
    """Counts by name since the last `take`. Threads may share an instance.

    `bytes` come from the shards, repeated requests included. Of `blocks` that were asked of the cache folder it had
    `cached_blocks`; of the `samples` of batches memory had `kept_samples`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, **counts: int) -> None:
        with self._lock:
            self._counts.update(counts)

    def take(self) -> Counter[str]:
        """The counts since the last call."""
        with self._lock:
            found, self._counts = self._counts, Counter()
        return found


def read_metrics(counts: Mapping[str, int]) -> dict[str, float]:
    """The metrics of an interval: `data/bytes_read`, and the shares (0 to 1) `data/memory_hits`, `data/cache_hits`.

    A share is left out where nothing was asked for, as of the cache folder where there is none.
    """
    found: dict[str, float] = {"data/bytes_read": counts.get("bytes", 0)}
    for name, hits, asked in (
        ("data/memory_hits", "kept_samples", "samples"),
        ("data/cache_hits", "cached_blocks", "blocks"),
    ):
        if counts.get(asked, 0):
            found[name] = round(counts.get(hits, 0) / counts[asked], 6)
    return found
