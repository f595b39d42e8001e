"""How many trials a cluster holds at once, on tables of nodes."""

from __future__ import annotations

import re
from typing import Any

import pytest

from distgan.config.placement import PlacementConfig
from distgan.errors import UserError
from distgan.launch.placement.capacity import Node
from distgan.search.ray.trial_resources import TRIAL_CPUS, ResourceRequest, TrialResources, share_nodes

pytestmark = pytest.mark.timeout(30)


def node(cpus: float, gpus: float = 0.0, **labels: str) -> Node:
    """As Ray tells of one: without GPUs there is no such entry."""
    resources = {"memory": 1e9, **({"CPU": cpus} if cpus else {}), **({"GPU": gpus} if gpus else {})}
    return Node("10.0.0.1", resources, labels)


def share(nodes: list[Node], **asked: Any) -> TrialResources:
    keys = {"cpus": "cpus_per_worker", "gpus": "gpus_per_worker"}
    placement = {keys[key]: asked.pop(key) for key in keys.keys() & asked.keys()} | asked.pop("placement", {})
    return share_nodes(nodes, ResourceRequest(**{"most": 100, **asked}, placement=PlacementConfig(**placement)))


def refusal(nodes: list[Node], **asked: Any) -> str:
    with pytest.raises(UserError) as caught:
        share(nodes, **asked)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def total(found: TrialResources, workers: int) -> float:
    """Processors of all trials together."""
    own = found.resources
    beside = TRIAL_CPUS if workers > 1 else 0.0
    return found.concurrent * (workers * own.worker_cpus + own.evaluation_cpus + beside)


@pytest.mark.parametrize(
    ("nodes", "asked", "concurrent", "cpus", "gpus"),
    [
        ([node(2)], {}, 2, 1, 0),
        ([node(1)], {}, 1, 1, 0),
        ([node(2)], {"workers": 2}, 1, 0.99, 0),
        ([node(2)], {"workers": 4}, 1, 0.49, 0),
        ([node(2)], {"most": 1}, 1, 1, 0),
        ([node(8)], {"most": 3}, 3, 1, 0),
        ([node(2), node(2)], {"workers": 2}, 2, 0.99, 0),
        ([node(2)], {"concurrent": 4}, 4, 0.5, 0),
        ([node(4)], {"cpus": 1}, 4, 1, 0),
        ([node(4)], {"cpus": 0.5}, 8, 0.5, 0),
        ([node(4)], {"cpus": 2}, 2, 2, 0),
        ([node(4)], {"cpus": 1, "workers": 2}, 1, 1, 0),
        ([node(16, 4)], {"workers": 2}, 2, 1, 1),
        ([node(16, 4)], {"workers": 1}, 4, 1, 1),
        ([node(16, 4)], {"workers": 3}, 1, 1, 1),
        ([node(16, 1)], {"gpus": 0.5}, 2, 1, 0.5),
        ([node(16, 2)], {"gpus": 0.5, "workers": 2}, 2, 1, 0.5),
        ([node(16, 4)], {"gpus": 0}, 16, 1, 0),
        ([node(16, 4)], {"device": "cpu"}, 16, 1, 0),
        ([node(2, 4)], {"workers": 2}, 2, 0.49, 1),
        ([node(8), node(4, 2)], {"device": "cuda"}, 2, 1, 1),
        # Fewer GPUs than a trial has workers: on processors, unless they are asked for.
        ([node(4, 1)], {"workers": 2}, 2, 0.99, 0),
    ],
)  # fmt: skip
def test_as_many_as_fit(nodes: list[Node], asked: Any, concurrent: int, cpus: float, gpus: float) -> None:
    found = share(nodes, **asked)
    assert found.concurrent == concurrent
    assert (found.resources.worker_cpus, found.resources.worker_gpus) == pytest.approx((cpus, gpus))
    assert total(found, asked.get("workers", 1)) <= sum(one.resources.get("CPU", 0.0) for one in nodes)


def test_the_actor_beside_several_workers_counts() -> None:
    assert share([node(4)], workers=2, concurrent=2).resources.worker_cpus == 0.99
    assert share([node(4)], workers=2, cpus=1).concurrent == 1
    assert share([node(4 + 2 * TRIAL_CPUS)], workers=2, cpus=1).concurrent == 2
    assert "2 trials at once of 2 workers with 1 CPU each: they need 4.04 CPUs in all, and there are 4 CPUs on" in (
        refusal([node(4)], workers=2, cpus=1, concurrent=2)
    )


def test_a_trial_of_one_worker_runs_in_its_actor() -> None:
    assert share([node(2)]).in_actor
    assert not share([node(2)], workers=2).in_actor
    assert share([node(2)], cpus=1, concurrent=2).resources.worker_cpus == 1


def test_an_asynchronous_evaluation_counts() -> None:
    found = share([node(4)], evaluation=1)
    assert (found.concurrent, found.resources.worker_cpus, found.resources.evaluation_cpus) == (2, 1, 1)
    assert share([node(3)], evaluation=1).concurrent == 1
    found = share([node(8)], workers=2, evaluation=2)
    assert (found.concurrent, found.resources.evaluation_cpus) == (2, 1)
    assert total(found, 2) <= 8
    # Its processors are those of the configuration, however many or few a worker has.
    found = share([node(7.5)], evaluation=1, cpus=3)
    assert (found.concurrent, found.resources.evaluation_cpus) == (1, 1)
    found = share([node(8)], evaluation=1, cpus=3)
    assert (found.concurrent, found.resources.evaluation_cpus) == (2, 1)
    assert share([node(4)], evaluation=1, cpus=0.5).concurrent == 4
    assert "need 4 CPUs in all" in refusal([node(3.5)], evaluation=1, cpus=1, concurrent=2)


@pytest.mark.parametrize(
    ("nodes", "asked", "message"),
    [
        ([node(2)], {"concurrent": 300}, r"300 trials at once of 1 worker with 0\.01 CPUs: they need 3 CPUs in all"),
        ([node(2)], {"workers": 3, "cpus": 1}, r"^the Ray cluster has no place for 1 trial of 3 workers with 1 CPU "
         r"each: there is room for 2 of 3 workers: 2 on 10\.0\.0\.1; lower --concurrent, --workers-per-trial or"),
        ([node(16, 2)], {"concurrent": 3}, r"1 worker with 1 CPU and 1 GPU: they need 3 CPUs and 3 GPUs in all, "
         r"and there are 16 CPUs and 2 GPUs on 1 node"),
        ([node(16, 2)], {"concurrent": 5, "gpus": 0.5}, r"need 5 CPUs and 2\.5 GPUs in all"),
        # Enough of them all together, and no place for one.
        ([node(1.5), node(1.5)], {"cpus": 2}, r"no node has 2 CPUs; the most is 1\.5 CPUs"),
        ([node(2.5), node(2.5)], {"cpus": 1, "concurrent": 5}, r"for 5 trials at once"),
        ([node(8, 0.5), node(8, 0.5)], {"device": "cuda"}, r"no node has 1 GPU; the most is 0\.5 GPUs"),
        ([node(16, 1), node(1)], {"gpus": 0.75, "concurrent": 2}, r"for 2 trials at once"),
        ([node(16)], {"device": "cuda"}, r"no node has 1 GPU; none has any"),
        ([node(16, 1)], {"device": "cuda", "workers": 2}, r"for 1 trial of 2 workers with .* room for 1 of 2"),
        ([node(16)], {"gpus": 0.5, "workers": 2}, r"1 CPU and 0\.5 GPUs each: no node has 0\.5 GPUs"),
        ([node(0)], {}, r"no node has 1 CPU; none has any"),
        ([node(0), node(0, 4)], {}, r"no node has 1 CPU; none has any"),
        ([], {}, r"it has no nodes"),
    ],
)  # fmt: skip
def test_what_does_not_fit(nodes: list[Node], asked: Any, message: str) -> None:
    found = refusal(nodes, **asked)
    assert re.search(message, found), found


def test_how_many_share_a_host() -> None:
    assert share([node(2)]).runs_per_host == 2
    assert share([node(2), node(2)], concurrent=3).runs_per_host == 2
    assert share([node(8)] * 4, concurrent=4).runs_per_host == 1
    assert share([node(0), node(4)], concurrent=2).runs_per_host == 2, "no trial runs on a node without processors"
