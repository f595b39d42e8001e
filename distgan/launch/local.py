"""Training in this process or under torchrun, without Ray, and code that all launchers share."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Literal, TypeVar

import torch
import torch.distributed as dist

from distgan.config.scale import ScaleConfig
from distgan.distributed import Distributed, check_torchrun, choose_device, join_torchrun
from distgan.errors import UserError
from distgan.evaluation.image_source import OnProgress
from distgan.launch.placement.network import own_address_towards, use_interface
from distgan.launch.signals import stop_on_signals
from distgan.tracking.console import Display
from distgan.tracking.record import recorded_failure
from distgan.tracking.run_folder import RunReporter
from distgan.training.events import Event, Summary
from distgan.training.run_spec import RunSpec
from distgan.training.train import train


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        summary: None on processes that have none, and after an interrupt before the first step.
        exit_code: of the command line.
        finished: `time.monotonic()` when the summary came.
        sessions: more than 1 where workers were lost.
    """

    summary: Summary | None
    exit_code: int
    finished: float = 0.0
    sessions: int = 1

    def timed(self, began: float, now: float) -> Summary | None:
        """The summary with the times of the whole command, which began at `began` and ends `now`.

        Time outside the session counts as `start` and `end`.
        """
        if self.summary is None:
            return None
        seconds, run_seconds = dict(self.summary.seconds), self.summary.run_seconds
        beside = max(0.0, now - began - seconds["total"])
        end = min(beside, now - self.finished)
        start = seconds.pop("start", 0.0) + beside - end
        seconds["start" if self.sessions == 1 else "start and lost sessions"] = round(start, 2)
        seconds |= {"end": round(end, 2), "total": round(seconds["total"] + beside, 2)}
        run_seconds = None if run_seconds is None else run_seconds + beside
        summary = replace(self.summary, seconds=seconds, run_seconds=run_seconds)
        return summary.with_goodput(summary.step_seconds, seconds["total"])


J = TypeVar("J")

R = TypeVar("R")

# A collective function at the top of a module.
Task = Callable[[J, Distributed, OnProgress], R]


@dataclass(frozen=True)
class Workers:
    """Where an evaluation runs.

    Attributes:
        count: number of workers.
        address: of a Ray cluster; by default RAY_ADDRESS, or a cluster started on this machine.
        no_ray: run in this process, or in those of torchrun.
        device: `auto` takes GPUs where there is one for each worker.
        sources: files and folders of Python modules that workers must be able to import.
    """

    count: int = 1
    address: str | None = None
    no_ray: bool = False
    device: Literal["auto", "cpu"] = "auto"
    sources: Sequence[str] = ()


def cluster_address(address: str | None) -> str | None:
    """The address of the Ray cluster: `address` or RAY_ADDRESS; None for a cluster started on this machine."""
    address = address or os.environ.get("RAY_ADDRESS") or None
    return None if address == "local" else address


def check_device(device: str, workers: int, address: str | None, *, no_ray: bool) -> str:
    """The device of the workers, as text; what another machine's cluster has is not known yet.

    Raises UserError where `cuda` is asked for on this machine, and it has too few GPUs.
    """
    cluster = None if no_ray else cluster_address(address)
    if device == "cpu":
        return "cpu"
    if cluster is not None:
        asked = "cuda" if device == "cuda" else "cuda or cpu"
        return f"{asked}: whether Ray at {cluster} has a GPU for each worker is known at the start only"
    chosen = choose_device(device, 0).type
    gpus = torch.cuda.device_count()
    if no_ray or chosen == "cpu" or gpus >= workers:
        return chosen
    if device == "cuda":
        raise UserError(
            f"scale.device=cuda with {workers} workers: this machine has {gpus} GPUs, and each worker needs one; "
            f"ask for fewer workers, or use scale.device=auto"
        )
    return "cpu"


def check_fixed(scale: ScaleConfig) -> None:
    """Raises UserError where a run without Ray is to have a changing number of workers."""
    if scale.min_workers is not None:
        raise UserError(
            f"--no-ray works on a fixed number of workers, not on {scale.range_text} (scale.min_workers): leave out "
            f"--no-ray, or give --workers one number"
        )


def check_processes(workers: int, command: str = "train") -> None:
    """Raises UserError where `--no-ray` of a `command` asks for more workers than there are processes.

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
    """Chooses the network interface that connects the processes of torchrun.

    By default loopback where all are on this machine, else the interface that routes to the first of them. Raises
    UserError for an interface that this machine does not have.
    """
    master = os.environ.get("MASTER_ADDR")
    if wanted is None and (master is None or os.environ.get("WORLD_SIZE", "1") == "1"):
        return
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE"):
        address: str | None = "127.0.0.1"
    else:
        address = None if master is None else own_address_towards(master, 1)
        if address is not None and ip_address(address).is_loopback:
            address = None  # a host often resolves its own name to loopback; other hosts cannot reach it there
    use_interface(wanted, address)


def train_local(spec: RunSpec, claim_lost: Callable[[], bool]) -> Outcome:
    """Trains on this process's rank under torchrun, or alone.

    `claim_lost` says whether another process has taken over the run. It then ends at its next write.
    """
    with stop_on_signals() as stop:
        choose_interface(spec.config.placement.interface)
        distributed = join_torchrun(spec.config.scale.device, patience_s=spec.patience_s)
        with Display() as display:

            def show(event: Event) -> None:
                display.event(event)

            try:
                trackers = spec.config.tracking
                with (
                    recorded_failure(spec.run) if distributed.rank == 0 else nullcontext(),
                    closing(
                        RunReporter(spec.run, show, lambda: stop.requested or claim_lost(), trackers, spec.patience_s)
                    ) as reporter,
                ):
                    summary = train(spec, distributed, reporter)
            finally:
                if dist.is_initialized():
                    dist.destroy_process_group()
        return Outcome(summary, stop.exit_code, display.finished, display.sessions)
