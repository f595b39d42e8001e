"""A driver on a Ray cluster, for test_placement_on_ray.py: prints where workers of several placements run, as JSON."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ray
import ray.util
import torch
import torch.distributed as dist
from ray.train import RunConfig
from ray.train.torch import TorchTrainer
from ray.util.placement_group import placement_group_table

from distgan.config.placement import PlacementConfig
from distgan.config.scale import ScaleConfig
from distgan.config.schema import EvaluationConfig
from distgan.launch.cluster import ray_cluster
from distgan.launch.mailbox import create_mailbox
from distgan.launch.placement.process_group import InterfaceConfig
from distgan.launch.placement.resources import plan_resources
from distgan.search.ray.trial_resources import ResourceRequest, share_cluster
from distgan.search.ray.tuner import trial_actor

PLACEMENTS: dict[str, dict[str, Any]] = {
    "spot": {"labels": ["ray.io/market-type=spot"]},
    "not spot": {"labels": ["ray.io/market-type=!spot"]},
    "no such label": {"labels": ["zone=!a"], "strategy": "strict_spread"},
    "custom": {"resources_per_worker": ["brick=1"], "accelerator_type": "H100", "gpus_per_worker": 0},
}
# Each on nodes of its own.
AT_ONCE = [("spot", "not spot"), ("custom",), ("no such label",)]


def work(arguments: dict[str, Any]) -> None:
    total = torch.ones(1)
    dist.all_reduce(total)
    found = {
        "address": ray.util.get_node_ip_address(),
        "interface": os.environ["GLOO_SOCKET_IFNAME"],
        "sum": float(total),
    }
    Path(arguments["out"], str(dist.get_rank())).write_text(json.dumps(found))


def begin_nothing(arguments: dict[str, Any]) -> None:
    assert not dist.is_initialized()


def placed(placement: PlacementConfig) -> list[dict[str, Any]]:
    """What each of two workers found."""
    resources = plan_resources(ScaleConfig(workers=2), EvaluationConfig(), placement)
    with tempfile.TemporaryDirectory() as out, tempfile.TemporaryDirectory() as notes:
        TorchTrainer(
            work,
            train_loop_config={"out": out},
            torch_config=InterfaceConfig(resources.backend, mailbox=create_mailbox()),
            scaling_config=resources.scaling(ScaleConfig(workers=2)),
            run_config=RunConfig(name="placed", storage_path=notes),
        ).fit()
        return [json.loads(path.read_text()) for path in sorted(Path(out).iterdir())]


def refused_interface() -> str:
    mailbox = create_mailbox()
    resources = plan_resources(ScaleConfig(workers=2), EvaluationConfig(), PlacementConfig())
    with tempfile.TemporaryDirectory() as notes:
        TorchTrainer(
            begin_nothing,
            train_loop_config={},
            torch_config=InterfaceConfig(resources.backend, interface="nic9", mailbox=mailbox),
            scaling_config=resources.scaling(ScaleConfig(workers=2)),
            run_config=RunConfig(name="refused", storage_path=notes),
        ).fit()
    return str(ray.get(mailbox.error.remote()))


def nodes_of_trials() -> list[str]:
    """Addresses of the nodes that the processes beside the workers of ten trials are given."""
    spot = PlacementConfig(labels=["ray.io/market-type=spot"])
    actor = trial_actor(share_cluster(ResourceRequest(workers=2, placement=spot)))
    addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
    groups = [actor.to_placement_group() for _ in range(10)]
    for group in groups:
        assert group.wait(30)
    return [addresses[node] for group in groups for node in placement_group_table(group)["bundles_to_node_id"].values()]


if __name__ == "__main__":
    with ray_cluster(sys.argv[1]), ThreadPoolExecutor() as pool:
        found = {}
        for at_once in AT_ONCE:
            runs = {name: pool.submit(placed, PlacementConfig(**PLACEMENTS[name])) for name in at_once}
            found |= {name: run.result() for name, run in runs.items()}
        answer = {"workers": found, "trials": nodes_of_trials(), "refused": refused_interface()}
    print("ANSWER", json.dumps(answer))
