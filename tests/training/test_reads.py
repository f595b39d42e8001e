"""What the rows of a run say of reading: bytes, and the shares of the two caches, in its sessions."""

from __future__ import annotations

from pathlib import Path

import pytest

from distgan.storage.storage import Storage
from distgan.training.events import StepMetrics
from runs import pack_bricks, run, tiny_config

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]


def test_rows_say_what_was_read_and_what_caches_had(tmp_path: Path) -> None:
    local, remote = Storage.open(pack_bricks(tmp_path / "data", samples=80)), Storage.open("memory://reads/data")
    for name in local.list():
        remote.write_bytes(name, local.read_bytes(name))
    # An epoch has five batches.
    keys = [f"data.cache_dir={tmp_path / 'cache'}", "data.prefetch_batches=1"]
    config = tiny_config("quickstart", remote.url, 14, *keys)

    sessions = [run(config, str(tmp_path), stop_at=stop_at)[1] for stop_at in (3, None)]
    first, second = ([event.measured for event in session.of(StepMetrics)] for session in sessions)
    assert len(first) == 3
    assert first[0]["data/bytes_read"] > 10_000
    assert [row["data/memory_hits"] for row in first] == [0, 0, 0]
    assert 0 <= first[0]["data/cache_hits"] < 1

    # A new process has the cache folder, and an empty memory.
    assert (second[0]["data/bytes_read"], second[0]["data/cache_hits"], second[0]["data/memory_hits"]) == (0, 1, 0)
    assert (second[-1]["data/bytes_read"], second[-1]["data/memory_hits"]) == (0, 1)
    assert "data/cache_hits" not in second[-1], "no block was asked for"
