"""An evaluation without a training run: in this process, in those of torchrun, or under Ray Train."""

from __future__ import annotations

from collections.abc import Callable

import torch.distributed as dist

from distgan.distributed import join_torchrun
from distgan.evaluation.image_source import OnProgress, Stage
from distgan.launch.local import J, R, Task, Workers, check_processes, choose_interface


def run_task(
    command: str,
    task: Task[J, R],
    job: J,
    workers: Workers,
    on_progress: OnProgress,
    log: Callable[[str], None],
    *,
    on_all_ranks: bool = False,
) -> R | None:
    """Runs a task on all workers and returns its result; under torchrun on rank 0, or on all ranks.

    Args:
        command: the command that the user has called, for errors.
        task: a collective function at the top of a module; its argument is `job`.
        workers: one without an address needs no Ray.
        on_progress: receives the progress of all workers together.
        log: receives a line for each thing that is started.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
        Interrupted: after any signal, where Ray runs the workers.
        UserError: for workers that are not available. Errors of a worker pass unchanged.
    """
    if not workers.no_ray and (workers.count > 1 or workers.address is not None):
        from distgan.launch.evaluate_on_ray import run_task_on_ray  # Ray takes seconds to import

        return run_task_on_ray(task, job, workers, on_progress, log)
    check_processes(workers.count, command)
    choose_interface()
    distributed = join_torchrun(workers.device)

    def report_all(stage: Stage, images: int) -> None:
        on_progress(stage, images * distributed.size)  # the workers' shares are equal

    try:
        result = task(job, distributed, report_all)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return result if on_all_ranks or distributed.rank == 0 else None
