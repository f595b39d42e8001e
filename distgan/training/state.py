"""The state of a run: everything that a resume needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import distgan
from distgan.config.config_errors import value_text
from distgan.config.load import build_config, flatten
from distgan.config.plugins import custom_names, without_custom_observers
from distgan.config.resume_rules import lasting_differences, mutable_keys, training_differences
from distgan.config.schema import Config
from distgan.errors import UserError
from distgan.training.checkpoints import Checkpoint, CheckpointStore, checkpoint_name, matching_tensors
from distgan.training.early_stopping import ranked
from distgan.training.ema import ExponentialMovingAverage
from distgan.training.manifest import ADJACENT_STREAMS, Manifest
from distgan.training.networks import Networks
from distgan.training.optimizers import Optimizers
from distgan.training.progress import Progress
from distgan.training.session import Session
from distgan.training.starting_point import load_initial

# Old and new values by key.
Differences = dict[str, tuple[Any, Any]]


@dataclass
class TrainingState:
    """Networks, their moving average, optimizers and progress.

    There are no random states: every draw is a function of the seed and the counters (`losses.rng`).

    Attributes:
        classes: names of the labels of a conditional generator.
        init_from, continued_from, partial: what the run began with, as in `Manifest`.
        session: the one that trains, for the manifest; ranks that save nothing have none.
        earlier_seconds: duration of the run's earlier sessions; None if an earlier version did not record it.
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
    partial: bool = False
    session: Session | None = None
    earlier_seconds: float | None = 0.0

    def restore(self, checkpoint: Checkpoint) -> None:
        """Loads the whole state of a checkpoint of this run. Settings of optimizers are those of this configuration.

        Raises UserError if the checkpoint is of other networks.
        """
        tensors = checkpoint.tensors
        with matching_tensors(checkpoint.url):
            self.networks.generator.load_state_dict(tensors["generator"])
            self.networks.discriminator.load_state_dict(tensors["discriminator"])
            self.ema.network.load_state_dict(tensors["ema"])
            self.optimizers.load_moments(tensors["generator_optimizer"], tensors["discriminator_optimizer"])
        self.progress = Progress.from_dict(checkpoint.manifest.progress)
        self.optimizers.follow_schedules(self.progress.kimg)
        self.init_from, self.continued_from = checkpoint.manifest.init_from, checkpoint.manifest.continued_from
        self.partial = checkpoint.manifest.partial
        self.progress.given |= self.init_from is not None  # not recorded by earlier versions
        self.earlier_seconds = checkpoint.manifest.seconds

    def continue_from(self, checkpoint: Checkpoint) -> None:
        """Loads the whole state of a checkpoint of another run, its evaluations included.

        A pending evaluation of an earlier checkpoint is dropped: this run does not have that checkpoint.
        """
        self.restore(checkpoint)
        pending = self.progress.pending
        if pending is not None and pending.step != self.progress.step:
            self.progress.pending = None
        self.init_from, self.continued_from, self.partial = None, checkpoint.url, False
        self.earlier_seconds = 0.0

    def load_weights(self, checkpoint: Checkpoint, *, partial: bool = False) -> str | None:
        """Loads the weights of a checkpoint, and nothing else. Raises UserError if it is of other networks.

        With `partial` it loads those that fit, and returns in words what it has left out, if anything.
        """
        left_out = load_initial(checkpoint, self.networks, self.ema, partial=partial)
        self.init_from, self.progress.given, self.partial = checkpoint.url, True, partial
        return left_out

    def save(
        self,
        store: CheckpointStore,
        done: Callable[[], None],
        seconds: float = 0.0,
        first: Callable[[], None] = lambda: None,
        *,
        required: bool = True,
    ) -> bool:
        """Starts writing a checkpoint, `seconds` into the session. Returns whether it is taken: see `CheckpointStore`.

        `first` is called before it is written, `done` when it is complete. One that a pending evaluation measures is
        always `required`.
        """
        progress, pending = self.progress, self.progress.pending
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
            partial=self.partial,
            seconds=self.run_seconds(seconds),
            session=self.session,
        )
        best_first = ranked(progress.evaluations, self.config.evaluation.monitor)
        keep = {name} if pending is None else {name, checkpoint_name(pending.step)}
        return store.save(
            manifest,
            self._tensors(),
            keep,
            [checkpoint_name(evaluation.step) for evaluation in best_first],
            self.config.checkpoint.keep_last,
            done,
            first,
            required=required or (pending is not None and pending.step == progress.step),
        )

    def run_seconds(self, seconds: float) -> float | None:
        """Duration of all sessions of the run, `seconds` into this one; None if it is not known."""
        return None if self.earlier_seconds is None else round(self.earlier_seconds + seconds, 2)

    def first_non_finite(self) -> str | None:
        """The first part of the state, as checkpoints call it, with numbers that are not finite; None without one."""
        for name, tree in self._tensors().items():
            # Counters have no dimension and may be on another device.
            extremes = [value for tensor in _leaves(tree) if tensor.ndim for value in tensor.aminmax()]
            if extremes and not torch.stack(extremes).isfinite().all():
                return name
        return None

    def _tensors(self) -> dict[str, Any]:
        return {
            "generator": self.networks.generator.state_dict(),
            "discriminator": self.networks.discriminator.state_dict(),
            "ema": self.ema.network.state_dict(),
            "generator_optimizer": self.optimizers.state("generator", self.progress.step),
            "discriminator_optimizer": self.optimizers.state("discriminator", self.progress.discriminator_updates),
        }


def check_resumable(manifest: Manifest, config: Config, data_hash: str, where: str) -> None:
    """Raises UserError, naming the keys, if a resume would train something else."""
    _check_order(manifest, config, where, f"--init-from {where}")
    differences = _differences(manifest, config, f"{where}/{manifest.name}", training_differences)
    if differences:
        lasting = _differences(manifest, config, f"{where}/{manifest.name}", lasting_differences)
        begin = "" if lasting else f" and --continue-from {where}, which takes over its whole state"
        raise UserError(
            f"{where}: this run was trained with another configuration: {_listed(differences)}; "
            f"set them back to resume it, or start a new run with another --name{begin}"
        )
    if manifest.data_hash != data_hash:
        raise UserError(
            f"{where}: this run was trained on other data (the hash of index.json differs); "
            f"set data.url to the data that it began with, or start a new run with another --name"
        )


def check_continuable(checkpoint: Checkpoint, config: Config, data_hash: str) -> None:
    """Raises UserError, naming the keys, if a new run cannot continue another run's checkpoint.

    Mutable keys may differ (`config.resume_rules`). The data must be the same, because the position in their order is
    part of the state. The budget includes what has been trained, and must be larger.
    """
    manifest, where = checkpoint.manifest, f"--continue-from {checkpoint.url}"
    _check_order(manifest, config, where, f"--init-from {checkpoint.url}")
    differences = _differences(manifest, config, checkpoint.url, lasting_differences)
    if differences:
        raise UserError(
            f"{where}: its run was trained with another configuration: {_listed(differences)}; set them "
            f"back (of what is trained only {', '.join(mutable_keys())} can change, R1 and R2 not from or to 0), "
            f"or begin with its weights alone, with --init-from"
        )
    if manifest.data_hash != data_hash:
        raise UserError(
            f"{where}: its run was trained on other data (the hash of index.json differs); set data.url to "
            f"them, or begin with its weights alone, with --init-from"
        )
    if manifest.progress["images"] >= round(config.training.kimg * 1000):
        raise UserError(
            f"{where}: {manifest.kimg:g} kimg were trained there, and training.kimg={config.training.kimg:g} "
            f"includes them; set a higher one"
        )


def _check_order(manifest: Manifest, config: Config, where: str, init_from: str) -> None:
    """Raises UserError if the groups of a run have read other streams than they would now."""
    if manifest.format == ADJACENT_STREAMS and 1 < config.scale.groups < config.data.streams:
        raise UserError(
            f"{where}: this run began with an earlier version, in which groups read the data in another order; "
            f"finish it with that version, or begin a new run with its weights: another --name, and {init_from}"
        )


def _differences(
    manifest: Manifest, config: Config, where: str, between: Callable[[Config, Config], Differences]
) -> Differences:
    tree = without_custom_observers(manifest.config)
    differences = _custom_code_differences(tree, config)
    if differences:
        return differences
    # Own components in it are those of the user's own configuration.
    return between(build_config(tree, where, trust_code=True), config)


def _listed(differences: Differences) -> str:
    lines = [f"{key} was {_shown(before)} and is {_shown(now)}" for key, (before, now) in differences.items()]
    return "; ".join(lines if len(lines) <= 4 else [*lines[:3], f"and {len(lines) - 3} more"])


def _shown(value: Any) -> str:
    return value_text(value) if isinstance(value, Mapping) else str(value)


def _custom_code_differences(old: Mapping[str, Any], config: Config) -> Differences:
    """Custom components (`module:Class`) that differ, without importing them."""
    new = without_custom_observers(config.model_dump(mode="json"))
    before, after = custom_names(old), custom_names(new)
    keys = [key for key in sorted(before.keys() | after.keys()) if before.get(key) != after.get(key)]
    return {key: (flatten(old).get(key), flatten(new)[key]) for key in keys}


def _leaves(tree: Any) -> Iterator[Tensor]:
    """All tensors of nested dictionaries."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        for branch in tree.values():
            yield from _leaves(branch)
