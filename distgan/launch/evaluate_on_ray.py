"""A measurement under Ray Train: workers on a cluster's nodes, one bar on the driver."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic

import ray
from ray.train import RunConfig
from ray.train.torch import TorchTrainer

from distgan.config.placement import PlacementConfig
from distgan.config.schema import EvaluationConfig, ScaleConfig
from distgan.distributed import asked_threads
from distgan.errors import Interrupted, UserError
from distgan.evaluation.image_source import OnProgress, Stage
from distgan.launch.cluster import ray_cluster
from distgan.launch.local import J, R, Work, Workers, cluster_address
from distgan.launch.mailbox import Background, create_mailbox
from distgan.launch.placement.process_group import InterfaceConfig
from distgan.launch.placement.resources import Resources, plan_resources
from distgan.launch.placement.waiting import waiting
from distgan.launch.ray_errors import lost_processes_as_one_line
from distgan.launch.signals import StopWish, stop_on_signals
from distgan.launch.train import worker_world
from distgan.tracking import formatting

_POLL_S = 0.3


@dataclass(frozen=True)
class _Result(Generic[R]):
    """What rank 0 puts on the board at the end."""

    value: R


def evaluate_on_ray(work: Work[J, R], job: J, workers: Workers, told: OnProgress, say: Callable[[str], None]) -> R:
    """See `launch.measure.measure`."""
    with stop_on_signals() as wish:
        say(formatting.connecting(cluster_address(workers.address)))
        with (
            tempfile.TemporaryDirectory(prefix="distgan-") as notes,
            ray_cluster(workers.address, workers.sources),
            lost_processes_as_one_line("the measurement", "measures it anew"),
        ):
            say(f"starting {formatting.plural(workers.count, 'worker')}")
            board = create_mailbox()
            scale = ScaleConfig(workers=workers.count, device=workers.device)
            resources = plan_resources(scale, EvaluationConfig(), PlacementConfig())
            for note in waiting(resources):
                say(note)
            fit = Background(_trainer(work, job, workers, board, notes, resources).fit)
            result: _Result[R] | None = _follow(board, fit, told, wish)
    if result is None:
        raise Interrupted(wish.exit_code)
    return result.value


def worker_main(arguments: dict[str, Any]) -> None:
    """What Ray Train runs on every worker."""
    board = arguments["board"]
    if ray.get(board.mistake.remote()) is not None:
        return  # the workers have not met
    distributed = worker_world(threads=arguments["threads"])

    def told(stage: Stage, images: int) -> None:
        board.put.remote((stage, images))

    try:
        result = arguments["work"](arguments["job"], distributed, told)
        if distributed.rank == 0:
            ray.get(board.put.remote(_Result(result)))
    except UserError as error:
        ray.get(board.put_mistake.remote(error))
        raise


def _trainer(work: Work[J, R], job: J, workers: Workers, board: Any, notes: str, resources: Resources) -> TorchTrainer:
    """`notes`: a folder of this machine. Nothing is reported, so no other one looks for it."""
    return TorchTrainer(
        worker_main,
        train_loop_config={"work": work, "job": job, "board": board, "threads": asked_threads()},
        torch_config=InterfaceConfig(resources.backend, board=board),
        scaling_config=resources.scaling(workers.count),
        run_config=RunConfig(name="measurement", storage_path=notes),
    )


def _follow(board: Any, fit: Background, told: OnProgress, wish: StopWish) -> _Result[Any] | None:
    """Hands on what the workers tell until they have ended; None where that is wished before.

    Raises UserError for a worker's.
    """
    result: _Result[Any] | None = None
    while not wish.wished:
        ended = fit.ended(_POLL_S)
        events, mistake = ray.get(board.take.remote())
        for event in events:
            if isinstance(event, _Result):
                result = event
            else:
                told(*event)
        if mistake is not None:
            raise mistake
        if ended:
            fit.raise_error()
            assert result is not None, "the workers ended without a result"
            return result
    return None
