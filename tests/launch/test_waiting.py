"""A run whose workers find no place says what it waits for, also after a loss; one without a head ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import ray

from distgan.config.scale import ScaleConfig
from distgan.errors import UserError
from distgan.launch.cluster import HeadWatch
from distgan.launch.placement import waiting
from distgan.launch.placement.capacity import Node
from distgan.launch.placement.resources import Resources
from distgan.launch.placement.waiting import PlacementWatch

WAITS = "waiting: the workers need {} CPUs (1 of 1 are free); the run starts when other work ends or nodes join"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the time on."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 1.0})
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 1.0})

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


def test_a_head_that_does_not_answer_ends_the_run_in_time(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="10.0.0.1:6379"))
    answers = iter([True, False, False, True, *[False] * 20])
    monkeypatch.setattr("distgan.launch.ray_internals.head_answers", lambda *_: next(answers))
    watch = HeadWatch(patience_s=40)
    for _ in range(4):  # two silent checks in between are nothing
        clock(5)
        watch.check()
    for _ in range(8):
        clock(5)
        watch.check()
    clock(5)
    with pytest.raises(UserError, match=r"^Ray at 10\.0\.0\.1:6379: .* not answered for 45 s; .* resumes"):
        watch.check()


def group(workers: int, state: str) -> dict[str, object]:
    return {"state": state, "bundles": {index: {"CPU": 1.0} for index in range(workers)}}


def test_a_lost_node_that_does_not_return_is_told_once_each_time(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = {"a": group(2, "CREATED")}
    monkeypatch.setattr(waiting, "placement_group_table", lambda: groups)
    told: list[str] = []
    watch = PlacementWatch(Resources(1.0), ScaleConfig(workers=2), told.append)
    clock(100)
    watch.check()
    assert told == []

    groups["a"] = group(2, "PENDING")
    for _ in range(2):
        told.clear()
        watch.restart()
        watch.check()
        assert told == [], "Ray places lost workers again within seconds, mostly"
        for _ in range(12):
            clock(5)
            watch.check()
        assert told == [WAITS.format(2)]
        assert watch.waits


def test_elastic_workers_wait_only_below_their_fewest(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Train then asks for no group that could be pending."""
    nodes = [Node("10.0.0.1", {"CPU": 2.0})]
    monkeypatch.setattr(waiting, "alive_nodes", lambda: nodes)
    told: list[str] = []
    watch = PlacementWatch(Resources(1.0), ScaleConfig(workers=8, min_workers=2), told.append)
    clock(60)
    watch.check()
    assert told == []
    nodes[0] = Node("10.0.0.1", {"CPU": 1.0})
    clock(60)
    watch.check()
    assert told == [WAITS.format(2)]
