"""Training in this process, or under torchrun, without Ray."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from ipaddress import ip_address

import torch.distributed as dist

from distgan.errors import UserError
from distgan.launch.outcome import Outcome
from distgan.launch.placement.interfaces import own_address_towards, use_interface
from distgan.launch.signals import stop_on_signals
from distgan.report.display import Display
from distgan.report.reporter import RunReporter
from distgan.training.events import Event
from distgan.training.job import Job
from distgan.training.loop import train
from distgan.world import check_torchrun, join_torchrun


def check_processes(workers: int, command: str = "train") -> None:
    """Raises UserError, naming the `command`, where more workers are asked for than there are processes without Ray.

    Also for an environment that torchrun would not make.
    """
    check_torchrun()
    processes = os.environ.get("WORLD_SIZE", "1")
    if workers > 1 and processes != str(workers):
        where = "in this process alone" if processes == "1" else f"in the {processes} processes of torchrun"
        raise UserError(
            f"--no-ray works {where}, not on {workers} workers: start `torchrun --nproc-per-node {workers} "
            f"-m distgan {command} ...`, or leave out --no-ray, or ask for 1 worker"
        )


def choose_interface(wanted: str | None = None) -> None:
    """Has the processes of torchrun meet through an interface.

    By default loopback where all are on this machine, else the one with the way to the first of them.

    Raises UserError for an interface that this machine has not.
    """
    master = os.environ.get("MASTER_ADDR")
    if wanted is None and (master is None or os.environ.get("WORLD_SIZE", "1") == "1"):
        return
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE"):
        address: str | None = "127.0.0.1"
    else:
        address = None if master is None else own_address_towards(master, 1)
        if address is not None and ip_address(address).is_loopback:
            address = None  # a host's own name often leads there; the other hosts do not
    use_interface(wanted, address)


def train_here(job: Job, lost: Callable[[], bool]) -> Outcome:
    """Runs the job's loop on this process's rank of torchrun's world, or alone.

    `lost` says whether another process has taken over the run: it then ends at its next write.
    """
    with stop_on_signals() as wish:
        choose_interface(job.config.placement.interface)
        world = join_torchrun(job.config.scale.device)
        with Display() as display:

            def show(event: Event) -> None:
                display.event(event)

            try:
                with closing(RunReporter(job.run, show, lambda: wish.wished or lost())) as reporter:
                    summary = train(job, world, reporter)
            finally:
                if dist.is_initialized():
                    dist.destroy_process_group()
        return Outcome(summary if world.rank == 0 else None, wish.exit_code, display.finished, display.sessions)
