"""Which nodes of a cluster hold a run's workers, and what is said where they do not: tables of nodes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from distgan.config.load import load_config
from distgan.config.placement import PlacementConfig, parse_labels, parse_resources, parse_selector
from distgan.config.resume_rules import training_differences
from distgan.config.scale import ScaleConfig
from distgan.config.schema import EvaluationConfig
from distgan.errors import UserError
from distgan.launch.placement.capacity import Bundle, Node, NodeCapacity, on_demand_labels
from distgan.launch.placement.resources import Resources, share_nodes
from distgan.search.ray.trial_resources import ResourceRequest
from distgan.search.ray.trial_resources import share_nodes as share_for_trials

pytestmark = pytest.mark.timeout(60)

STAYS, SPOT = {"ray.io/market-type": "on-demand"}, {"ray.io/market-type": "spot"}


def node(cpus: float, gpus: float = 0, kind: str = "", labels: dict[str, str] | None = None, **more: float) -> Node:
    """As Ray tells of one: what it has not is not there."""
    resources = {"CPU": cpus, "GPU": gpus, "memory": 8e9, **more}
    accelerator = {f"accelerator_type:{kind}": 1.0} if kind else {}
    found = {name: float(amount) for name, amount in resources.items() if amount}
    return Node(f"10.0.0.{int(cpus)}", found | accelerator, labels or {})


def share(nodes: list[Node], workers: int = 1, device: Any = "auto", extra: int = 0, **placement: Any) -> Resources:
    evaluation = EvaluationConfig(asynchronous=extra > 0, processors=max(1, extra))
    scale = ScaleConfig(workers=workers, device=device)
    return share_nodes(nodes, scale, evaluation, PlacementConfig(**placement))


def refusal(nodes: list[Node], workers: int = 1, **more: Any) -> str:
    with pytest.raises(UserError) as caught:
        share(nodes, workers, **more)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("the Ray cluster has no place for ")
    assert "add nodes" in message
    return message


@pytest.mark.parametrize(
    ("nodes", "more", "cpus", "gpus"),
    [
        ([node(2)], {}, 1, 0),
        ([node(2)], {"workers": 4}, 0.5, 0),
        ([node(2)], {"workers": 3}, 0.66, 0),
        # A share is of one node: 3 / 5 of a processor would not fit twice on the first one.
        ([node(1), node(2)], {"workers": 5}, 0.5, 0),
        ([node(8), node(8)], {"workers": 2, "strategy": "strict_spread"}, 1, 0),
        ([node(1), node(8)], {"workers": 4, "strategy": "strict_pack"}, 1, 0),
        ([node(1), node(2)], {"workers": 4, "strategy": "strict_pack"}, 0.5, 0),
        ([node(4, 2)], {"workers": 2}, 1, 1),
        ([node(4, 2)], {"workers": 3}, 1, 0),
        ([node(4, 2)], {"workers": 2, "device": "cpu"}, 1, 0),
        ([node(4, 2)], {"workers": 2, "gpus_per_worker": 0}, 1, 0),
        ([node(4, 1)], {"workers": 2, "gpus_per_worker": 0.5}, 1, 0.5),
        ([node(4, 4)], {"workers": 2, "gpus_per_worker": 2, "cpus_per_worker": 2}, 2, 2),
        ([node(4), node(8, 2, "A10G")], {"workers": 2, "accelerator_type": "A10G"}, 1, 1),
        # GPUs that the labels leave out are not counted.
        ([node(4, labels=STAYS), node(8, 8, labels=SPOT)], {"labels": ["ray.io/market-type=on-demand"]}, 1, 0),
        ([node(4, labels=STAYS), node(8, 8, labels=SPOT)], {"labels": ["ray.io/market-type=in(spot, x)"]}, 1, 1),
        ([node(2), node(4, labels=SPOT)], {"workers": 4, "labels": ["ray.io/market-type=!spot"]}, 0.5, 0),
        ([node(4, fpga=2)], {"workers": 2, "resources_per_worker": ["fpga=1"]}, 1, 0),
        ([node(4), node(5)], {"workers": 2, "memory_gb_per_worker": 8}, 1, 0),
    ],
)  # fmt: skip
def test_what_workers_get(nodes: list[Node], more: dict[str, Any], cpus: float, gpus: float) -> None:
    found = share(nodes, **more)
    assert (found.worker_cpus, found.worker_gpus) == (cpus, gpus)
    assert not found.shortage
    assert NodeCapacity(nodes).take_group(found.bundle, more.get("workers", 1), found.strategy)


@pytest.mark.parametrize(
    ("nodes", "workers", "more", "message"),
    [
        ([], 2, {}, r"for 2 workers with 1 CPU each: it has no nodes"),
        ([node(2)], 1, {"device": "cuda"}, r"1 worker with 1 CPU and 1 GPU: no node has 1 GPU; none has any; ask"),
        ([node(2, 1)], 2, {"device": "cuda"}, r"there is room for 1 of 2 workers: 1 on 10\.0\.0\.2; ask for less"),
        ([node(2)], 1, {"cpus_per_worker": 4}, r"no node has 4 CPUs; the most is 2 CPUs"),
        ([node(2), node(3)], 6, {"cpus_per_worker": 1}, r"room for 5 of 6 workers: 2 on 10\.0\.0\.2, 3 on 10\.0\.0\.3"),
        ([node(2)], 1, {"memory_gb_per_worker": 16}, r"no node has 16 GB of memory; the most is 8 GB"),
        ([node(2)], 1, {"resources_per_worker": ["fpga=1"]}, r"no node has 1 fpga; none has any"),
        ([node(2, 1, "T4"), node(3, 1, "A10G")], 1, {"accelerator_type": "H100"},
         r"no node has accelerator H100; there are A10G, T4"),
        ([node(2, 1)], 1, {"accelerator_type": "H100"}, r"no node has accelerator H100; there is none"),
        ([node(2, labels=STAYS), node(3)], 1, {"labels": ["ray.io/market-type=spot", "zone=a"]},
         r"labels ray\.io/market-type=spot, zone=a; the nodes have: 10\.0\.0\.2 ray\.io/market-type=on-demand, "
         r"10\.0\.0\.3 no labels"),
        ([node(8, 1), node(2, labels=SPOT)], 1, {"device": "cuda", "labels": ["ray.io/market-type=spot"]},
         r"none of the nodes with the labels has 1 GPU; none has any"),
        ([node(8), node(9)], 3, {"strategy": "strict_spread"}, r"strict_spread wants 3 nodes, and 2 of 2 have room"),
        ([node(8), node(0.5, fpga=1)], 2, {"strategy": "strict_spread", "cpus_per_worker": 1}, r"and 1 of 2 has room"),
        ([node(2), node(3)], 4, {"strategy": "strict_pack", "cpus_per_worker": 1},
         r"strict_pack wants all on one node, and there is room for 2 on 10\.0\.0\.2, 3 on 10\.0\.0\.3"),
        # Enough of each, on different nodes.
        ([node(4), node(1, 2)], 1, {"device": "cuda", "cpus_per_worker": 2},
         r"no node has all of it; the nodes have: 10\.0\.0\.4 4 CPUs and 0 GPUs, 10\.0\.0\.1 1 CPU and 2 GPUs"),
        ([node(2)], 2, {"extra": 1, "cpus_per_worker": 1}, "1 CPU left for the asynchronous evaluation"),
        ([node(8)] * 9, 80, {"cpus_per_worker": 1}, r"room for 72 of 80 workers: (8 on 10\.0\.0\.8, ){4}.* and 4 more"),
    ],
)  # fmt: skip
def test_what_is_missing_where(nodes: list[Node], workers: int, more: dict[str, Any], message: str) -> None:
    found = refusal(nodes, workers, **more)
    assert re.search(message, found), found


def test_workers_wait_for_nodes_where_they_may_come() -> None:
    found = share([node(2)], 2, device="cuda", wait=True)
    assert (found.worker_cpus, found.worker_gpus) == (1, 1)
    assert found.shortage.endswith("2 workers with 1 CPU and 1 GPU each: no node has 1 GPU; none has any")
    managed = node(2, labels={"ray.io/node-group": "head"})
    assert share([managed], device="cuda").shortage, "an autoscaler's cluster may scale from 0"
    assert "with placement.wait=true wait for them" in refusal([managed], device="cuda", wait=False)
    assert not share([managed], wait=True).shortage
    found = share_for_trials([managed], ResourceRequest(device="cuda", concurrent=3)).resources
    assert "for 3 trials at once of 1 worker with 1 CPU and 1 GPU: no node has 1 GPU" in found.shortage


def test_a_worker_is_placed_as_ray_is_asked() -> None:
    keys: dict[str, Any] = {"labels": ["zone=a"], "resources_per_worker": ["fpga=2"], "memory_gb_per_worker": 4}
    nodes = [node(8, 2, "A10G", labels={"zone": "a"}, fpga=4)]
    found = share(nodes, 2, accelerator_type="A10G", strategy="strict_pack", **keys)
    scaling = found.scaling(ScaleConfig(workers=2))
    assert scaling._resources_per_worker_not_none == found.bundle.resources
    assert found.per_worker == {"CPU": 1, "GPU": 1, "memory": 4e9, "fpga": 2}
    assert scaling.placement_strategy == "STRICT_PACK"
    assert scaling.label_selector == {"zone": "a"}  # type: ignore[attr-defined]
    assert scaling.num_workers == 2
    plain = share([node(2)], 2).scaling(ScaleConfig(workers=2))
    assert (plain.label_selector, plain.accelerator_type, plain.use_gpu) == (None, None, False)  # type: ignore[attr-defined]


def test_an_elastic_run_needs_room_for_its_fewest_workers_and_gives_each_as_much() -> None:
    scale = ScaleConfig(workers=4, min_workers=1, resize_seconds=5)
    found = share_nodes([node(1), node(1)], scale, EvaluationConfig(), PlacementConfig())
    assert found.per_worker == {"CPU": 1}
    scaling: Any = found.scaling(scale)
    assert (scaling.num_workers, scaling.elastic_resize_monitor_interval_s) == ((1, 4), 5)
    with pytest.raises(UserError, match=r"no place for 1 worker with"):
        share_nodes([node(0)], scale, EvaluationConfig(), PlacementConfig())


def test_workers_that_share_a_gpu_do_not_talk_through_nccl() -> None:
    assert share([node(4, 2)], 2).backend == "nccl"
    assert share([node(4, 2)], 2, gpus_per_worker=0.5).backend == "gloo"
    assert share([node(4)], 2).backend == "gloo"


def test_trials_have_their_workers_placement_and_stay_themselves() -> None:
    nodes = [node(2, labels=STAYS), node(4, labels=SPOT), node(4, labels=SPOT)]
    on_spot = PlacementConfig(labels=["ray.io/market-type=spot"], cpus_per_worker=1)
    found = share_for_trials(nodes, ResourceRequest(most=100, placement=on_spot))
    assert found.concurrent == 8
    assert found.actor_labels == {"ray.io/market-type": "!spot"}
    apart = PlacementConfig(strategy="strict_spread", cpus_per_worker=1)
    assert share_for_trials(nodes, ResourceRequest(workers=3, most=100, placement=apart)).concurrent == 1
    assert (
        share_for_trials([node(0.9), *nodes[1:]], ResourceRequest(workers=2, most=100, placement=apart)).concurrent == 4
    )
    with pytest.raises(UserError, match=r"for 1 trial of 4 workers .*strict_spread wants 4 nodes, and 3 of 3 have"):
        share_for_trials(nodes, ResourceRequest(workers=4, placement=apart))
    together = PlacementConfig(strategy="strict_pack", cpus_per_worker=1)
    assert share_for_trials(nodes, ResourceRequest(workers=3, most=100, placement=together)).concurrent == 2


@pytest.mark.parametrize(
    ("nodes", "selectors"),
    [
        ([node(2), node(4)], {}),
        ([node(2), node(4, labels=SPOT)], {"ray.io/market-type": "!spot"}),
        ([node(2, labels=SPOT), node(4, labels=SPOT)], {}),
        # A head without processors for others, as on Kubernetes.
        ([node(0, labels=STAYS), node(4, labels=SPOT)], {}),
    ],
)
def test_where_long_lived_processes_go(nodes: list[Node], selectors: dict[str, str]) -> None:
    assert on_demand_labels(nodes) == selectors


@pytest.mark.parametrize(
    ("selector", "value", "takes"),
    [
        ("spot", "spot", True), ("spot", "on-demand", False), ("spot", None, False),
        ("!spot", "spot", False), ("!spot", "on-demand", True), ("!spot", None, True),
        ("in(a,b)", "b", True), ("in(a, b)", "b", True), ("in(a,b)", None, False),
        ("!in(a,b)", "b", False), ("!in(a,b)", "c", True), ("!in(a,b)", None, True),
    ],
)  # fmt: skip
def test_selectors(selector: str, value: str | None, takes: bool) -> None:
    assert parse_selector(selector).accepts(value) is takes


@pytest.mark.parametrize("text", ["", "!", "!!a", "a b", "in()", "in(a", "in(a,)", "a,b", "-a", "a" * 64])
def test_no_selectors(text: str) -> None:
    with pytest.raises(ValueError, match="no selector"):
        parse_selector(text)


def test_pairs() -> None:
    assert parse_labels(["ray.io/market-type=!spot", " zone = in(a, b)"]) == {
        "ray.io/market-type": "!spot",
        "zone": "in(a, b)",
    }
    assert parse_resources(["fpga=1", "slot = 0.5"]) == {"fpga": 1, "slot": 0.5}


def test_a_run_goes_on_elsewhere() -> None:
    """Where a run computes is no part of what it is."""
    placements = ["strategy=spread", "labels=[zone=a]", "gpus_per_worker=0.5", "interface=eth0", "wait=true"]
    config = load_config("quickstart")
    moved = load_config("quickstart", [f"placement.{one}" for one in placements])
    assert training_differences(config, moved) == {}


def test_large_clusters_are_planned_quickly() -> None:
    found = share([node(64, 8)] * 512, 4096)
    assert (found.worker_cpus, found.worker_gpus) == (1, 1)
    assert NodeCapacity([node(64, 8)]).holds(0, Bundle({"GPU": 0.25})) == 32
