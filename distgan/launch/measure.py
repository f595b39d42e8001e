"""A measurement on workers of its own: in this process, in those of torchrun, or under Ray Train."""

from __future__ import annotations

from collections.abc import Callable

import torch.distributed as dist

from distgan.evaluation.progress import Stage, Told
from distgan.launch.here import check_processes, choose_interface
from distgan.launch.work import J, R, Work, Workers
from distgan.world import join_torchrun


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
    choose_interface()
    world = join_torchrun(workers.device)

    def told_of_all(stage: Stage, images: int) -> None:
        told(stage, images * world.size)  # the workers' shares are equal

    try:
        result = work(job, world, told_of_all)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return result if world.rank == 0 else None
