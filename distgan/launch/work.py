"""Work to be done on workers, and where they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from distgan.evaluation.progress import Told
from distgan.world import World

J = TypeVar("J")
R = TypeVar("R")
# Done on every rank alike, a function at the top of a module.
Work = Callable[[J, World, Told], R]


@dataclass(frozen=True)
class Workers:
    """Where a measurement is made.

    Attributes:
        count: how many.
        address: of a Ray cluster; by default RAY_ADDRESS, or one that is started on this machine.
        no_ray: in this process, or in those that torchrun has started.
        device: `auto` takes GPUs where there is one for each worker.
        sources: files and folders of Python modules that workers must be able to import.
    """

    count: int = 1
    address: str | None = None
    no_ray: bool = False
    device: Literal["auto", "cpu"] = "auto"
    sources: Sequence[str] = ()
