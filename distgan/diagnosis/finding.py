"""A finding: what is wrong in a cluster, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# fail: a run does not work, or does the wrong thing; warn: it works worse than it could, or will not for long.
Level = Literal["fail", "warn"]


@dataclass(frozen=True)
class Finding:
    """`check` is its kind, `where` a node's address, a pair of them or "the cluster"."""

    level: Level
    check: str
    where: str
    what: str
    remedy: str
