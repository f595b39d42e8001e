"""Images from a run or checkpoint, on this machine's CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from distgan.config.load import build_config
from distgan.data.storage import Storage
from distgan.errors import UserError
from distgan.metrics.features import to_uint8
from distgan.training.checkpoints import FOLDER, Checkpoint, CheckpointStore, fitting
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


@torch.inference_mode()
def sample_images(checkpoint: Checkpoint, count: int, seed: int) -> Tensor:
    """`count` images of the averaged generator, uint8 (count, C, H, W); sample i is the same for every count.

    Raises UserError where the checkpoint's tensors are another network's.
    """
    config = build_config(checkpoint.manifest.config, checkpoint.manifest.name)
    generator = build_networks(config, torch.device("cpu")).generator.eval()
    with fitting(checkpoint.url):
        generator.load_state_dict(checkpoint.tensors["ema"])
    random, dtype = torch.Generator().manual_seed(seed), DTYPES[config.training.precision]
    images = []
    for _ in range(0, count, _BATCH):
        # Always whole batches: the last numbers of a tensor, and the last bits of an image, depend on its size.
        latents = torch.randn(_BATCH, config.latent_dim, generator=random)
        images.append(to_uint8(generator(latents.to(dtype))))
    return torch.cat(images)[:count]
