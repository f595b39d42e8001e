"""A job: a configuration with a name and a place to keep its results; checked before anything starts."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from distgan.config.registry import EXTRACTORS
from distgan.config.schema import Config
from distgan.data.index import Index
from distgan.data.order import Order
from distgan.data.storage import Storage
from distgan.errors import UserError
from distgan.training.checkpoints import CheckpointStore, Manifest
from distgan.training.networks import build_networks, build_objective, check_combination
from distgan.training.state import check_resumable

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Job:
    """What to train and where to keep it: the run's folder is `storage_url`/`name`; `profile` records some steps."""

    config: Config
    name: str
    storage_url: str
    profile: bool = False

    @property
    def run(self) -> Storage:
        return Storage.open(self.storage_url).child(self.name)


@dataclass(frozen=True)
class Plan:
    """What a job will do.

    Attributes:
        layers: of each network a line a layer: name, output shape, parameters.
        resumes: the checkpoint that the job goes on from.
    """

    job: Job
    index: Index | None
    layers: dict[str, list[tuple[str, str, int]]]
    parameters: dict[str, int]
    resumes: Manifest | None

    @property
    def steps(self) -> int:
        """Generator updates from the run's beginning to the end of its budget."""
        config = self.job.config
        images = config.objective.critic_steps * config.training.batch_size
        return -(-round(config.training.kimg * 1000) // images)


def make_plan(job: Job, *, dry_run: bool = False) -> Plan:
    """Checks everything that can be checked without training. Raises UserError for what cannot work.

    A dry run makes no folder, and may do without `data.url`.
    """
    config = job.config
    if not _NAME.fullmatch(job.name):
        raise UserError(f"--name {job.name!r}: use letters, digits, '.', '_' and '-', at most 100")
    networks = build_networks(config, torch.device("meta"))
    build_objective(config)
    check_combination(config, networks)
    EXTRACTORS.resolve(config.evaluation.extractor)
    index = None
    if config.data.url is not None:
        index = Index.load(Storage.open(config.data.url))
        check_data(config, index)
    elif not dry_run:
        raise UserError(
            "data.url is not set: add data.url=URL, the folder or bucket that `distgan data pack` or "
            "`distgan data render` wrote"
        )
    storage = Storage.open(job.storage_url)
    if not (dry_run and storage.is_local):
        storage.prepare()
    manifest = CheckpointStore(job.run).newest_manifest()
    if manifest is not None and index is not None:
        check_resumable(manifest, config, index.hash, job.run.url)
    parts = {"generator": networks.generator, "discriminator": networks.discriminator}
    return Plan(
        job=job,
        index=index,
        layers={name: _layers(network, config, name) for name, network in parts.items()},
        parameters={name: sum(p.numel() for p in network.parameters()) for name, network in parts.items()},
        resumes=manifest,
    )


def check_data(config: Config, index: Index) -> None:
    """Raises UserError where the data set is not what the configuration asks for."""
    size, channels = index.header.image_size, index.header.channels
    if channels != config.channels:
        raise UserError(
            f"channels={config.channels}, but the images at {config.data.url} have {channels}: "
            f"set channels={channels}, or pack the data with the other value"
        )
    if size != config.image_size and config.data.resize == "none":
        mend = f"set image_size={size} or data.resize=bilinear" if size else "set data.resize=bilinear"
        raise UserError(
            f"image_size={config.image_size}, but the images at {config.data.url} have {size or 'several sizes'}: "
            f"{mend}, or pack the data with --size {config.image_size}"
        )
    Order(index, config.seed, config.data.streams, config.data.window_blocks)


def _layers(network: torch.nn.Module, config: Config, name: str) -> list[tuple[str, str, int]]:
    """(layer, output shape, parameters) of each layer, from one forward without numbers."""
    rows: list[tuple[str, str, int]] = []

    def note(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        shape = "x".join(str(size) for size in output.shape[1:]) or "1"
        rows.append((type(module).__name__, shape, sum(p.numel() for p in module.parameters())))

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [leaf.register_forward_hook(note) for leaf in leaves]
    size = config.image_size
    shape = (2, config.latent_dim) if name == "generator" else (2, config.channels, size, size)
    dtype = next(network.parameters()).dtype
    network(torch.empty(shape, device="meta", dtype=dtype))
    for hook in hooks:
        hook.remove()
    return rows
