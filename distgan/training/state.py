"""Everything that a run is made of and a resume needs: the one owner of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import distgan
from distgan.config.load import build_config, flatten
from distgan.config.plugins import own_names, without_own_observers
from distgan.config.resume_rules import lasting_differences, mutable_keys, training_differences
from distgan.config.schema import Config
from distgan.errors import UserError
from distgan.training.checkpoints import OLD_ORDER, Checkpoint, CheckpointStore, Manifest, checkpoint_name, fitting
from distgan.training.early_stopping import ranked
from distgan.training.ema import ExponentialMovingAverage
from distgan.training.networks import Networks
from distgan.training.optimizers import Optimizers
from distgan.training.progress import Progress
from distgan.training.starting_point import load_initial

# Keys with their old and new values.
Differences = dict[str, tuple[Any, Any]]


@dataclass
class TrainingState:
    """Networks, their average, optimizers and progress.

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
    continued_from: str | None = None
    earlier_seconds: float | None = 0.0

    def restore(self, checkpoint: Checkpoint) -> None:
        """Takes over a checkpoint's state in place, with this configuration's rates and other settings of optimizers.

        Raises UserError where it is another network's.
        """
        tensors = checkpoint.tensors
        with fitting(checkpoint.url):
            self.networks.generator.load_state_dict(tensors["generator"])
            self.networks.discriminator.load_state_dict(tensors["discriminator"])
            self.ema.network.load_state_dict(tensors["ema"])
            self.optimizers.load_moments(tensors["generator_optimizer"], tensors["discriminator_optimizer"])
        self.progress = Progress.from_dict(checkpoint.manifest.progress)
        self.optimizers.set_rates(self.progress.images)
        self.init_from, self.continued_from = checkpoint.manifest.init_from, checkpoint.manifest.continued_from
        self.progress.given |= self.init_from is not None  # which earlier versions do not say
        self.earlier_seconds = checkpoint.manifest.seconds

    def continue_from(self, checkpoint: Checkpoint) -> None:
        """Takes over the state of another run's checkpoint, as `restore` does.

        Evaluations are taken over with it. One that is under way, of an earlier checkpoint, is not waited for: that
        checkpoint is not this run's.
        """
        self.restore(checkpoint)
        pending = self.progress.pending
        if pending is not None and pending.step != self.progress.step:
            self.progress.pending = None
        self.init_from, self.continued_from = None, checkpoint.url
        self.earlier_seconds = 0.0

    def begin_from(self, checkpoint: Checkpoint) -> None:
        """Takes over a checkpoint's weights, and nothing else. Raises UserError where they are another network's."""
        load_initial(checkpoint, self.networks, self.ema)
        self.init_from, self.progress.given = checkpoint.url, True

    def save(self, store: CheckpointStore, done: Callable[[], None], seconds: float = 0.0) -> str:
        """Starts writing a checkpoint of this moment, `seconds` into the session; returns its name."""
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
            continued_from=self.continued_from,
            seconds=self.run_seconds(seconds),
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

    def run_seconds(self, seconds: float) -> float | None:
        """Seconds of all sessions of the run, `seconds` into this one; None where nobody knows."""
        return None if self.earlier_seconds is None else round(self.earlier_seconds + seconds, 2)

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
    _check_order(manifest, config, where, f"--init-from {where}")
    differences = _differences(manifest, config, f"{where}/{manifest.name}", training_differences)
    if differences:
        raise UserError(
            f"{where}: this run has been trained with another configuration: {_listed(differences)}; "
            f"set them back to go on with it, or start a new run with another --name"
        )
    if manifest.data_hash != data_hash:
        raise UserError(
            f"{where}: this run has been trained on other data (the hash of index.json differs); "
            f"point data.url to the data it began with, or start a new run with another --name"
        )


def check_continuable(checkpoint: Checkpoint, config: Config, data_hash: str) -> None:
    """Raises UserError, naming the keys, where a new run cannot go on from the whole state of another's checkpoint.

    Live keys may have other values (`config.compare`). The data are the same, since the place in their order is taken
    over; the budget counts what has been trained, and is more.
    """
    manifest, where = checkpoint.manifest, f"--continue-from {checkpoint.url}"
    _check_order(manifest, config, where, f"--init-from {checkpoint.url}")
    differences = _differences(manifest, config, checkpoint.url, lasting_differences)
    if differences:
        raise UserError(
            f"{where}: its run has been trained with another configuration: {_listed(differences)}; set them "
            f"back (of what is trained only {', '.join(mutable_keys())} can change, an R1 penalty not from 0 or to 0), "
            f"or begin with its weights alone, with --init-from"
        )
    if manifest.data_hash != data_hash:
        raise UserError(
            f"{where}: its run has been trained on other data (the hash of index.json differs); point data.url to "
            f"them, or begin with its weights alone, with --init-from"
        )
    if manifest.progress["images"] >= round(config.training.kimg * 1000):
        raise UserError(
            f"{where}: {manifest.kimg:g} kimg have been trained there, and training.kimg={config.training.kimg:g} is "
            f"the budget with them; set a higher one"
        )


def _check_order(manifest: Manifest, config: Config, where: str, init_from: str) -> None:
    """Raises UserError where a run's groups have read other streams than they would now."""
    if manifest.format == OLD_ORDER and 1 < config.scale.groups < config.data.streams:
        raise UserError(
            f"{where}: this run was begun by an earlier version, in which groups read the data in another order; "
            f"finish it with that version, or begin a new run with its weights: another --name, and {init_from}"
        )


def _differences(
    manifest: Manifest, config: Config, where: str, between: Callable[[Config, Config], Differences]
) -> Differences:
    tree = without_own_observers(manifest.config)
    differences = _own_code_differences(tree, config)
    if differences:
        return differences
    # What it names beyond the package is what the user's own configuration names.
    return between(build_config(tree, where, trust_code=True), config)


def _listed(differences: Differences) -> str:
    told = [f"{key} was {before} and is {now}" for key, (before, now) in differences.items()]
    return "; ".join(told if len(told) <= 4 else [*told[:3], f"and {len(told) - 3} more"])


def _own_code_differences(old: Mapping[str, Any], config: Config) -> Differences:
    """Components of the user's own modules, in one of both configurations only; found without importing them."""
    new = without_own_observers(config.model_dump(mode="json"))
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
