"""Processors that a container's limits leave."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distgan.container import usable_processes


@pytest.mark.parametrize(
    ("quota", "processes"),
    [("150000 100000", 2), ("20000 100000", 1), ("max 100000", 8), ("900000 100000", 8), ("?", 8)],
)
def test_as_many_processes_as_the_quota_keeps_busy(
    quota: str, processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    (tmp_path / "cpu.max").write_text(quota)
    assert usable_processes(tmp_path) == processes
