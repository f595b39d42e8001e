"""Tiny runs for the tests: a data set of bricks, configurations, and a reporter that records, stops and kills."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distgan.config.load import load_config
from distgan.config.schema import Config
from distgan.data.bricks.render import BrickSource
from distgan.data.pack import PackOptions, pack
from distgan.distributed import Distributed
from distgan.evaluation.evaluator import Evaluator, Scores
from distgan.storage.storage import Storage
from distgan.training.checkpoints import CheckpointStore
from distgan.training.events import EvaluationResult, Event, StepMetrics, Summary
from distgan.training.fakes import GeneratedImages
from distgan.training.run_evaluator import AsyncEvaluator
from distgan.training.run_spec import RunSpec
from distgan.training.train import train

ALONE = Distributed(0, 1, torch.device("cpu"))
BATCH = 16
TINY = [
    "image_size=16",
    "channels=1",
    "latent_dim=8",
    "generator.width=4",
    "discriminator.width=4",
    f"training.batch_size={BATCH}",
    "training.log_every=1",
    "data.streams=4",
    "scale.groups=4",
    "evaluation.samples=16",
    "evaluation.real_samples=64",
    "evaluation.every_kimg=1000",
    "evaluation.at_start=false",
    "evaluation.patience=null",
    "scale.threads=1",
]


def pack_bricks(folder: Path, seed: int = 0, samples: int = 300) -> str:
    """A data set of rendered bricks at 16x16, in blocks that streams share; its URL."""
    storage = Storage.open(str(folder))
    pack(BrickSource(seed, samples, 16, 1), storage, PackOptions(16, 1, processes=1, shard_bytes=100_000))
    return storage.url


def tiny_config(preset: str, data_url: str, steps: int, *overrides: str) -> Config:
    """A preset made tiny, with a budget of `steps`."""
    tree = [*TINY, f"data.url={data_url}"]
    critic_steps = load_config(preset, [*tree, *overrides]).objective.critic_steps
    return load_config(preset, [*tree, f"training.kimg={steps * critic_steps * BATCH / 1000}", *overrides])


def script_distances(monkeypatch: pytest.MonkeyPatch, *distances: float) -> None:
    """Evaluations measure these, one after another."""
    remaining = iter(distances)
    monkeypatch.setattr(Evaluator, "evaluate", lambda self, images: Scores(next(remaining), {}, 1.0, {}))


def generated(config: Config, generator: nn.Module) -> GeneratedImages:
    """The images of an unconditional generator that an evaluation measures."""
    return GeneratedImages(config, np.zeros(1, np.int64), torch.device("cpu"), generator)


class Recorder:
    """Keeps the events and grids of a run; may request a stop."""

    def __init__(self, stop_at: int | None = None, on_event: Callable[[Event], None] = lambda _: None) -> None:
        self.stop_at, self.on_event = stop_at, on_event
        self.events: list[Event] = []
        self.grids: list[Tensor] = []
        self.reals: list[Tensor] = []
        self.columns: list[int | None] = []
        self.names: Sequence[str] = ()
        self.step = 0

    def event(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, StepMetrics):
            self.step = event.step
        self.on_event(event)

    def samples(
        self, step: int, kimg: float, images: Tensor, columns: int | None = None, names: Sequence[str] = ()
    ) -> None:
        self.grids.append(images)
        self.columns.append(columns)
        self.names = names

    def real_images(self, images: Tensor, columns: int | None = None, names: Sequence[str] = ()) -> None:
        self.reals.append(images)

    def flush(self) -> Callable[[], None]:
        return lambda: None

    def stop_requested(self) -> bool:
        return self.stop_at is not None and self.step >= self.stop_at

    def save_requested(self) -> str | None:
        return None

    def evaluated(self, event: EvaluationResult) -> None:
        pass

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def run(
    config: Config,
    storage: str,
    name: str = "run",
    *,
    distributed: Distributed = ALONE,
    stop_at: int | None = None,
    async_evaluator: AsyncEvaluator | None = None,
) -> tuple[Summary, Recorder]:
    """Trains or resumes a run; stops after step `stop_at`."""
    recorder = Recorder(stop_at)
    return train(RunSpec(config, name, storage), distributed, recorder, async_evaluator), recorder


def checkpoints(storage: str, name: str = "run") -> CheckpointStore:
    return CheckpointStore(Storage.open(storage).child(name))


def tensors_of(tree: Any, prefix: str = "") -> dict[str, Any]:
    """All leaves of a checkpoint's tensors by path: weights, averages, moments, counters and rates."""
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        leaves: dict[str, Any] = {}
        for key, value in items:
            leaves |= tensors_of(value, f"{prefix}/{key}")
        return leaves
    return {prefix: tree}


def newest(storage: str, name: str = "run") -> tuple[dict[str, Any], dict[str, Any]]:
    """(leaves, progress) of a run's newest complete checkpoint."""
    store = checkpoints(storage, name)
    found = store.newest_name()
    assert found is not None
    checkpoint = store.load(found)
    assert checkpoint is not None
    return tensors_of(checkpoint.tensors), checkpoint.manifest.progress


def assert_same_bits(one: tuple[dict[str, Any], dict[str, Any]], other: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Both checkpoints hold the same numbers to the bit, and the same progress."""
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    for path, value in one[0].items():
        same = torch.equal(value, other[0][path]) if isinstance(value, Tensor) else value == other[0][path]
        assert same, f"{path} differs"


def kill_this_process() -> None:
    """As the kernel would: nothing is flushed, no thread is joined."""
    os.kill(os.getpid(), signal.SIGKILL)
