"""Everything that a run is made of and a resume needs: the one owner of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import distgan
from distgan.config.compare import training_differences
from distgan.config.components import own_names
from distgan.config.load import build_config, flatten
from distgan.config.schema import Config
from distgan.errors import UserError
from distgan.training.checkpoints import Checkpoint, CheckpointStore, Manifest, checkpoint_name, fitting
from distgan.training.early_stopping import ranked
from distgan.training.ema import ExponentialMovingAverage
from distgan.training.initial import load_initial
from distgan.training.networks import Networks
from distgan.training.optimizers import Optimizers
from distgan.training.progress import Progress


@dataclass
class TrainingState:
    """Networks, their average, optimisers and progress.

    Random states are not in it: every draw is a function of the seed and these counters (`training.draws`).
    """

    config: Config
    networks: Networks
    ema: ExponentialMovingAverage
    optimizers: Optimizers
    progress: Progress
    data_hash: str
    workers: int
    threads: int
    classes: list[str] = field(default_factory=list)
    init_from: str | None = None

    def restore(self, checkpoint: Checkpoint) -> None:
        """Takes over a checkpoint's state in place. Raises UserError where it is another network's."""
        tensors = checkpoint.tensors
        with fitting(checkpoint.url):
            self.networks.generator.load_state_dict(tensors["generator"])
            self.networks.discriminator.load_state_dict(tensors["discriminator"])
            self.ema.network.load_state_dict(tensors["ema"])
            self.optimizers.generator.load_state_dict(tensors["generator_optimizer"])
            self.optimizers.discriminator.load_state_dict(tensors["discriminator_optimizer"])
        self.progress = Progress.from_dict(checkpoint.manifest.progress)
        self.init_from = checkpoint.manifest.init_from

    def begin_from(self, checkpoint: Checkpoint) -> None:
        """Takes over a checkpoint's weights, and nothing else. Raises UserError where they are another network's."""
        load_initial(checkpoint, self.networks, self.ema)
        self.init_from = checkpoint.url

    def save(self, store: CheckpointStore, done: Callable[[], None]) -> str:
        """Starts writing a checkpoint of this moment; returns its name."""
        progress = self.progress
        name = checkpoint_name(progress.step)
        manifest = Manifest(
            distgan=distgan.__version__,
            name=name,
            step=progress.step,
            kimg=progress.kimg,
            config=self.config.model_dump(mode="json"),
            data_hash=self.data_hash,
            workers=self.workers,
            threads=self.threads,
            progress=progress.as_dict(),
            classes=self.classes,
            init_from=self.init_from,
        )
        best_first = ranked(progress.evaluations, self.config.evaluation.monitor)
        keep = {name} if progress.pending is None else {name, checkpoint_name(progress.pending.step)}
        store.save(
            manifest,
            self._tensors(),
            keep,
            [checkpoint_name(one.step) for one in best_first],
            self.config.checkpoint.keep_last,
            done,
        )
        return name

    def not_finite(self) -> str | None:
        """The first part that holds a number that is not finite, as it is called in a checkpoint."""
        for name, tree in self._tensors().items():
            # Counters, which have no dimension, may be on another device.
            extremes = [value for tensor in _leaves(tree) if tensor.ndim for value in tensor.aminmax()]
            if extremes and not torch.stack(extremes).isfinite().all():
                return name
        return None

    def _tensors(self) -> dict[str, Any]:
        return {
            "generator": self.networks.generator.state_dict(),
            "discriminator": self.networks.discriminator.state_dict(),
            "ema": self.ema.network.state_dict(),
            "generator_optimizer": self.optimizers.generator.state_dict(),
            "discriminator_optimizer": self.optimizers.discriminator.state_dict(),
        }


def check_resumable(manifest: Manifest, config: Config, data_hash: str, where: str) -> None:
    """Raises UserError, naming the keys, where going on would train something else."""
    differences = _own_code_differences(manifest.config, config)
    if not differences:
        # What it names beyond the package is what the user's own configuration names.
        old = build_config(manifest.config, f"{where}/{manifest.name}", trust_code=True)
        differences = training_differences(old, config)
    if differences:
        told = [f"{key} was {before} and is {now}" for key, (before, now) in differences.items()]
        listed = "; ".join(told if len(told) <= 4 else [*told[:3], f"and {len(told) - 3} more"])
        raise UserError(
            f"{where}: this run has been trained with another configuration: {listed}; "
            f"set them back to go on with it, or start a new run with another --name"
        )
    if manifest.data_hash != data_hash:
        raise UserError(
            f"{where}: this run has been trained on other data (the hash of index.json differs); "
            f"point data.url to the data it began with, or start a new run with another --name"
        )


def _own_code_differences(old: Mapping[str, Any], config: Config) -> dict[str, tuple[Any, Any]]:
    """Components of the user's own modules, in one of both configurations only; found without importing them."""
    new = config.model_dump(mode="json")
    before, after = own_names(old), own_names(new)
    keys = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    return {key: (flatten(old).get(key), flatten(new)[key]) for key in keys}


def _leaves(tree: Any) -> Iterator[Tensor]:
    """All tensors of nested dictionaries."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for branch in tree.values():
            yield from _leaves(branch)
