"""How many torch threads a worker has by default."""

from __future__ import annotations

import os

import pytest
import torch

from distgan.training.process import choose_threads
from distgan.world import World


@pytest.mark.parametrize(
    ("machine", "offered", "workers", "threads"),
    [
        (8, None, 1, 8),
        (8, None, 3, 2),
        (96, 8, 2, 4),  # a container's share of a large machine
        (2, 16, 2, 1),  # a node that offers more than there is
        (1, 1, 4, 1),
    ],
)
def test_workers_share_what_their_host_offers(
    machine: int, offered: int | None, workers: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(machine)))
    world = World(0, workers, torch.device("cpu"), local_size=workers, processors=offered)
    assert choose_threads(None, world, None) == threads
    assert choose_threads(5, world, None) == 5
