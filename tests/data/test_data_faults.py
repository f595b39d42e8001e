"""Faults of the storage of a data set, in the middle of a run."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chaos.proxy import Proxy
from benchmarks.chaos.record import FOLDER, read_samples
from distgan.config.schema import Config
from distgan.data import blocks
from distgan.data.blocks import BlockCache
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.storage import retry, urls
from distgan.storage.storage import Storage
from distgan.tracking.run_folder import RunReporter
from distgan.training.events import Event, StepMetrics, Summary
from distgan.training.run_spec import RunSpec
from distgan.training.train import train
from gloo import run_workers
from runs import ALONE, Recorder, assert_same_bits, newest, pack_bricks, run, tiny_config

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("one_thread")]

State = tuple[dict[str, Any], dict[str, Any]]

# Of 60 images, in batches of 16: three epochs, each of which reads its blocks again.
STEPS, KEYS = 12, ("data.memory_mb=0", "checkpoint.every_kimg=0.064", "storage.patience_minutes=0.5")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    return pack_bricks(tmp_path_factory.mktemp("small"), samples=60)


@pytest.fixture
def remote(bucket: str, small: str) -> Storage:
    """A copy of the data in a bucket."""
    target = Storage.open(f"{bucket}/data")
    put(small, target)
    return target


def put(data: str, target: Storage) -> None:
    for path in filter(Path.is_file, Path(data).iterdir()):
        target.upload(path, path.name)


@pytest.fixture(scope="module")
def undisturbed(small: str, tmp_path_factory: pytest.TempPathFactory) -> State:
    """The end of a run that meets no fault."""
    folder = str(tmp_path_factory.mktemp("undisturbed"))
    run(tiny_config("quickstart", small, STEPS, *KEYS), folder)
    return newest(folder)


def recorded(distributed: Distributed, config: Config, name: str, storage: str, cache: str | None) -> None:
    """Trains a run of this name and records the samples of each batch. At step 5 the cache folder is deleted."""
    import benchmarks.chaos.worker  # noqa: F401 - changes this process's Trainer

    urls._S3_CONFIG |= {"connect_timeout": 1, "read_timeout": 5, "retries": {"total_max_attempts": 1}}
    retry._FIRST_PAUSE_S = retry._LONGEST_PAUSE_S = 0.02
    blocks._FIRST_WAIT_S = 0.0
    evict = BlockCache._evict

    def evict_all(self: BlockCache) -> None:  # the next epoch wants the blocks from the server again
        self._max_bytes = 0
        evict(self)

    BlockCache._evict = evict_all  # type: ignore[method-assign]

    def on_event(event: Event) -> None:
        if cache is not None and isinstance(event, StepMetrics) and event.step == 5 and distributed.rank == 0:
            shutil.rmtree(cache, ignore_errors=True)  # a worker may write to it meanwhile

    train(RunSpec(config, name, storage), distributed, Recorder(on_event=on_event))


class Faults:
    """Every third read of a shard meets the next of these; at `away` the server is gone for a while."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy, self.met = proxy, list[str]()
        self._modes = itertools.cycle(
            ["", "", "cut", "", "", "503", "", "", "flip", "", "", "InternalError", "", "", "away"]
        )
        self._lock = threading.Lock()

    def __call__(self, request: bytes) -> str | None:
        if b".tar" not in request.splitlines()[0]:
            return None
        with self._lock:
            mode = next(self._modes)
            self.met += [mode] if mode else []
        if mode == "away":
            self._proxy.switch("refuse")
            threading.Timer(0.1, self._proxy.switch, ["on"]).start()
            return None
        return mode or None


@pytest.mark.timeout(240)
def test_two_workers_train_on_the_samples_of_an_undisturbed_run(
    proxy: Proxy, remote: Storage, small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers share a cache on the node, which is deleted in use; every third request for a block fails."""
    monkeypatch.setenv(FOLDER, str(tmp_path))
    calm = tiny_config("quickstart", small, STEPS, *KEYS)
    run_workers(recorded, 2, calm, "calm", str(tmp_path), None)
    proxy.mode_of = faults = Faults(proxy)
    disturbed = tiny_config("quickstart", remote.url, STEPS, *KEYS, f"data.cache_dir={tmp_path / 'cache'}")
    run_workers(recorded, 2, disturbed, "disturbed", str(tmp_path), str(tmp_path / "cache"))
    assert {*faults.met} == {"cut", "503", "flip", "InternalError", "away"}
    samples = read_samples(tmp_path / "calm.samples")
    assert len(samples) == STEPS * 4
    assert read_samples(tmp_path / "disturbed.samples") == samples
    assert_same_bits(newest(str(tmp_path), "disturbed"), newest(str(tmp_path), "calm"))


def reported(config: Config, storage: str, on_step: Callable[[int], None] = lambda _: None) -> Summary:
    def on_event(event: Event) -> None:
        if isinstance(event, StepMetrics):
            on_step(event.step)

    spec = RunSpec(config, "run", storage)
    with contextlib.closing(RunReporter(spec.run, on_event, lambda: False)) as reporter:
        return train(spec, ALONE, reporter)


Fault = Callable[[Storage, Proxy], object]


def overwrite(change: Callable[[bytes], bytes]) -> Fault:
    def act(remote: Storage, _: Proxy) -> None:
        for name in shards(remote):
            remote.write_bytes(name, change(remote.read_bytes(name)))

    return act


def shards(remote: Storage) -> list[str]:
    return [name for name in remote.list() if name.endswith(".tar")]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (overwrite(lambda data: data[:700]), r"bytes \d+ to \d+ do not match the index.*upload it again"),
        (overwrite(lambda data: os.urandom(len(data))), r"bytes \d+ to \d+ do not match the index.*upload it again"),
        (lambda remote, _: [remote.delete(name) for name in shards(remote)], "not found; check the name"),
        (lambda _, proxy: proxy.switch("InvalidAccessKeyId"), "the access key is not known"),
        (lambda _, proxy: proxy.switch("refuse"), "cannot be reached; .*; waited 1 s for it"),
    ],
    ids=["shorter", "garbage", "deleted", "revoked", "away"],
)
def test_what_stays_names_the_shard_and_the_same_command_goes_on(
    fault: Fault, words: str, proxy: Proxy, remote: Storage, small: str, undisturbed: State, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(blocks, "_FIRST_WAIT_S", 0.0)
    config = tiny_config("quickstart", remote.url, STEPS, *KEYS, "storage.patience_minutes=0.02")
    with pytest.raises(UserError) as caught:
        reported(config, str(tmp_path), lambda step: step == 3 and fault(remote, proxy))
    line = str(caught.value)
    assert re.match(rf"{remote.url}/shard-0000\d\.tar: .*{words}", line), line
    assert "\n" not in line
    proxy.switch("on")
    put(small, remote)
    assert reported(config, str(tmp_path)).resumed_at_kimg >= 0.048
    assert_same_bits(newest(str(tmp_path)), undisturbed)
