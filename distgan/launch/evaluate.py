"""An evaluation on workers of its own: in this process, in those of torchrun, or under Ray Train."""

from __future__ import annotations

from collections.abc import Callable

import torch.distributed as dist

from distgan.distributed import join_torchrun
from distgan.evaluation.image_source import OnProgress, Stage
from distgan.launch.local import J, R, Work, Workers, check_processes, choose_interface


def measure(
    command: str,
    work: Work[J, R],
    job: J,
    workers: Workers,
    told: OnProgress,
    say: Callable[[str], None],
    *,
    on_all_ranks: bool = False,
) -> R | None:
    """What `work` returns; under torchrun on rank 0, or on all ranks. One worker without an address needs no Ray.

    `told` hears of the progress of all workers, `say` what is being started; `command` is what the user has called.
    Raises KeyboardInterrupt after Ctrl-C, Interrupted after any signal where Ray runs the workers, UserError for
    workers that cannot be had, and what a worker raised.
    """
    if not workers.no_ray and (workers.count > 1 or workers.address is not None):
        from distgan.launch.evaluate_on_ray import evaluate_on_ray  # Ray takes seconds to import

        return evaluate_on_ray(work, job, workers, told, say)
    check_processes(workers.count, command)
    choose_interface()
    distributed = join_torchrun(workers.device)

    def told_of_all(stage: Stage, images: int) -> None:
        told(stage, images * distributed.size)  # the workers' shares are equal

    try:
        result = work(job, distributed, told_of_all)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return result if on_all_ranks or distributed.rank == 0 else None
