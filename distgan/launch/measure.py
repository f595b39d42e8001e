"""A measurement on workers of its own: in this process, in those of torchrun, or under Ray Train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch.distributed as dist

from distgan.evaluation.progress import Stage, Told
from distgan.launch.here import check_processes
from distgan.world import World, join_torchrun

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


def measure(
    command: str, work: Work[J, R], job: J, workers: Workers, told: Told, say: Callable[[str], None]
) -> R | None:
    """What `work` returns; None on the ranks of torchrun but the first. One worker without an address needs no Ray.

    `told` hears of the progress of all workers, `say` what is being started; `command` is what the user has called.
    Leaves by SystemExit or KeyboardInterrupt after Ctrl-C and SIGTERM. Raises UserError for workers that cannot be
    had, and what a worker raised.
    """
    if not workers.no_ray and (workers.count > 1 or workers.address is not None):
        from distgan.launch.measure_on_ray import measure_on_ray  # Ray takes seconds to import

        return measure_on_ray(work, job, workers, told, say)
    check_processes(workers.count, command)
    world = join_torchrun(workers.device)

    def told_of_all(stage: Stage, images: int) -> None:
        told(stage, images * world.size)  # the workers' shares are equal

    try:
        result = work(job, world, told_of_all)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return result if world.rank == 0 else None
