"""Images from a run or checkpoint, on this machine's CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from distgan.config.load import build_config
from distgan.data.storage import Storage
from distgan.errors import UserError
from distgan.metrics.features import to_uint8
from distgan.training.checkpoints import FOLDER, Checkpoint, CheckpointStore, fitting
from distgan.training.labels import sample_grid
from distgan.training.networks import build_networks
from distgan.training.step import DTYPES

_BATCH = 64


def find_checkpoint(url: str) -> Checkpoint:
    """The checkpoint at `url`, or the best of the run at `url` (its newest, where none was evaluated).

    Raises UserError where there is none, or none whole.
    """
    folder = Storage.open(url)
    parent, _, name = folder.url.rpartition("/")
    above, _, kind = parent.rpartition("/")
    if kind == FOLDER and name.startswith("step-"):
        checkpoint = CheckpointStore(Storage.open(above)).load(name)
        if checkpoint is None:
            raise UserError(
                f"{url}: no whole checkpoint there; give the run's folder to use another of its checkpoints"
            )
        return checkpoint
    store = CheckpointStore(folder)
    newest = store.newest_manifest()
    if newest is None:
        raise UserError(f"{url}: no checkpoints there; give a run's folder (storage/name) or one of its checkpoints")
    best = newest.progress.get("best_checkpoint")
    checkpoint = store.load(best) if best else None
    if checkpoint is None:
        whole = store.newest_name()
        checkpoint = store.load(whole) if whole else None
    if checkpoint is not None:
        return checkpoint
    raise UserError(f"{url}: its checkpoints are damaged or half written; train it again, or give another run")


def sample_images(checkpoint: Checkpoint, count: int, seed: int) -> Tensor:
    """`count` images of the averaged generator, uint8 (count, C, H, W); sample i is the same for every count.

    Raises UserError where the checkpoint's tensors are another network's, or the network is not of the package.
    """
    images, _ = labelled_samples(checkpoint, count, seed)
    return images


@torch.inference_mode()
def labelled_samples(
    checkpoint: Checkpoint, count: int, seed: int, label: str | None = None, *, trust_code: bool = False
) -> tuple[Tensor, int | None]:
    """As `sample_images`, of a label or of all of them (see `labels.sample_grid`); and the columns of their grid.

    With `trust_code` a network may be of a module that the checkpoint names. Raises UserError for an unknown label.
    """
    manifest = checkpoint.manifest
    config = build_config(manifest.config, manifest.name, trust_code=trust_code)
    grid = sample_grid(count, config.num_classes, label, manifest.classes, manifest.name)
    generator = build_networks(config, torch.device("cpu")).generator.eval()
    with fitting(checkpoint.url):
        generator.load_state_dict(checkpoint.tensors["ema"])
    random, dtype = torch.Generator().manual_seed(seed), DTYPES[config.training.precision]
    # Always whole batches: the last numbers of a tensor, and the last bits of an image, depend on its size.
    whole = range(0, int(grid.latents.max()) + 1, _BATCH)
    latents = torch.cat([torch.randn(_BATCH, config.latent_dim, generator=random) for _ in whole]).to(dtype)
    count = len(grid.latents)
    images = []
    for first in range(0, count, _BATCH):
        rows = torch.arange(first, first + _BATCH).clamp(max=count - 1)
        labels = () if grid.labels is None else (grid.labels[rows],)
        images.append(to_uint8(generator(latents[grid.latents[rows]], *labels)))
    return torch.cat(images)[:count], grid.columns
