"""Images from a run or checkpoint, on this machine's CPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from distgan.config.load import build_config
from distgan.config.schema import Config
from distgan.data.retry import NO_RETRY, Retry
from distgan.data.storage import NotFoundError, Storage
from distgan.errors import UserError
from distgan.metrics.features import to_uint8
from distgan.training.checkpoints import FOLDER, Checkpoint, CheckpointStore, DamagedError, checkpoint_name, fitting
from distgan.training.early_stopping import ranked
from distgan.training.labels import LabelledGrid, sample_grid
from distgan.training.networks import build_networks
from distgan.training.progress import Progress
from distgan.training.state_file import difference, specs_of
from distgan.training.step import DTYPES

BEST, LAST = "best", "last"
_BATCH = 64


def find_checkpoint(
    url: str,
    which: str | None = None,
    default: str = BEST,
    retry: Retry = NO_RETRY,
    own: Mapping[str, str] | None = None,
) -> Checkpoint:
    """The checkpoint at `url`, or one of the run at `url`: the `best`, the `last` or that of a name.

    Without `which` it is the `default`. The best is that of those that are kept; where none of them was evaluated, or
    that one is damaged, the last whole one. Raises UserError where there is none, or none whole, or `url` is a
    checkpoint and `which` is given.

    own: networks and the like of the user's own configuration (see `CheckpointStore`).
    """
    folder = Storage.open(url)
    parent, _, name = folder.url.rpartition("/")
    above, _, kind = parent.rpartition("/")
    if kind == FOLDER and name.startswith("step-"):
        if which is not None:
            raise UserError(f"--checkpoint {which}: {url} is a checkpoint itself; give the run's folder instead")
        return _read(
            CheckpointStore(Storage.open(above), own, reading=retry), name, f"{url}: no whole checkpoint there"
        )
    return _checkpoint_of_run(CheckpointStore(folder, own, reading=retry), default if which is None else which, url)


def _read(
    store: CheckpointStore, name: str, line: str, mend: str = "give the run's folder to use another one"
) -> Checkpoint:
    try:
        return store.read(name)
    except NotFoundError:
        raise UserError(f"{line}; {mend}") from None
    except DamagedError as error:
        raise DamagedError(f"{line}: {str(error).partition(': damaged: ')[2]}; {mend}") from None


def _checkpoint_of_run(store: CheckpointStore, which: str, url: str) -> Checkpoint:
    newest = store.newest_manifest()
    if newest is None:
        _newest(store, url)  # raises, where damaged ones are there
        raise UserError(f"{url}: no checkpoints there; give a run's folder (storage/name) or one of its checkpoints")
    if which not in {BEST, LAST}:
        others = f"give {BEST}, {LAST}, or one of {', '.join(store.names()[-5:])}"
        line = f"--checkpoint {which}: {url} has no whole checkpoint of that name"
        if which not in store.names():
            raise UserError(f"{line}; {others}")
        return _read(store, which, line, others)
    evaluations = Progress.from_dict(newest.progress).evaluations
    evaluation = newest.config.get("evaluation")
    monitor = evaluation.get("monitor") if isinstance(evaluation, dict) else None
    best_first = ranked(evaluations, monitor if isinstance(monitor, str) else "frechet")
    best = store.first_kept(checkpoint_name(one.step) for one in best_first)
    passed_over: tuple[str, ...] = ()
    if which == BEST and best is not None:
        try:
            return store.read(best)
        except NotFoundError:
            pass
        except DamagedError as error:
            passed_over = (str(error),)
    checkpoint = _newest(store, url)
    if checkpoint is None:
        raise UserError(f"{url}: its checkpoints are half written; train it again, or give another run")
    return replace(checkpoint, passed_over=tuple(dict.fromkeys([*passed_over, *checkpoint.passed_over])))


def _newest(store: CheckpointStore, url: str) -> Checkpoint | None:
    try:
        return store.newest()
    except DamagedError as error:
        raise DamagedError(
            f"{url}: its checkpoints are damaged or half written ({error}); train it again, or give another run"
        ) from None


def average_generator(config: Config, checkpoint: Checkpoint, device: torch.device) -> nn.Module:
    """A checkpoint's averaged generator, in evaluation mode. Raises UserError where it is another network's."""
    wanted = specs_of(build_networks(config, torch.device("meta")).generator.state_dict())
    differs = difference(specs_of(checkpoint.tensors.get("ema")), wanted, "ema")
    if differs is not None:
        raise UserError(
            f"{checkpoint.url}: its tensors are not those of the run's networks ({differs}); give another checkpoint"
        )
    generator = build_networks(config, device).generator.eval().requires_grad_(False)
    with fitting(checkpoint.url):
        generator.load_state_dict(checkpoint.tensors["ema"])
    return generator


@dataclass(frozen=True)
class Samples:
    """Images of the averaged generator, drawn as they are asked for; sample i is the same for every count.

    Attributes:
        shape: (N, C, H, W).
        batches: the images in their order, uint8 (up to 64, C, H, W); to be read once.
        labels: of a conditional generator, int64 (N,).
        columns: images in a row, where labels ask for a number of them.
    """

    shape: tuple[int, int, int, int]
    batches: Iterator[Tensor]
    labels: Tensor | None
    columns: int | None


def draw_samples(
    checkpoint: Checkpoint, count: int, seed: int, label: str | None = None, *, trust_code: bool = False
) -> Samples:
    """`count` images of a label, or for the label `all` a column of each (see `labels.sample_grid`).

    With `trust_code` a network may be of a module that the checkpoint names. Raises UserError, before anything is
    drawn, for an unknown label, for another network's tensors, and for networks beyond the package without trust.
    """
    manifest = checkpoint.manifest
    config = build_config(manifest.config, manifest.name, trust_code=trust_code)
    grid = sample_grid(count, config.num_classes, label, manifest.classes, manifest.name)
    generator = average_generator(config, checkpoint, torch.device("cpu"))
    shape = (len(grid.latents), config.channels, config.image_size, config.image_size)
    latents = _Latents(config.latent_dim, seed, DTYPES[config.training.precision])
    return Samples(shape, _batches(generator, grid, latents), grid.labels, grid.columns)


def sample_images(checkpoint: Checkpoint, count: int, seed: int) -> Tensor:
    """`count` images of the averaged generator, uint8 (count, C, H, W). Raises UserError as `draw_samples` does."""
    return torch.cat(list(draw_samples(checkpoint, count, seed).batches))


class _Latents:
    """Normal latents by their numbers, which may only ascend; those that are behind are forgotten."""

    def __init__(self, dimension: int, seed: int, dtype: torch.dtype) -> None:
        self._random, self._dtype = torch.Generator().manual_seed(seed), dtype
        self._first, self._drawn = 0, torch.empty(0, dimension)

    def take(self, numbers: Tensor) -> Tensor:
        """Latents of these numbers, (len(numbers), dimension)."""
        while self._first + len(self._drawn) <= int(numbers[-1]):
            # Always whole batches: the last numbers of a tensor depend on its size.
            more = torch.randn(_BATCH, self._drawn.shape[1], generator=self._random)
            self._drawn = torch.cat([self._drawn, more])
        behind = int(numbers[0]) - self._first
        self._first, self._drawn = self._first + behind, self._drawn[behind:]
        return self._drawn[numbers - self._first].to(self._dtype)


def _batches(generator: nn.Module, grid: LabelledGrid, latents: _Latents) -> Iterator[Tensor]:
    """Always runs whole batches: the last bits of an image depend on their size."""
    count = len(grid.latents)
    for first in range(0, count, _BATCH):
        rows = torch.arange(first, first + _BATCH).clamp(max=count - 1)
        labels = () if grid.labels is None else (grid.labels[rows],)
        with torch.inference_mode():
            images = to_uint8(generator(latents.take(grid.latents[rows]), *labels))
        yield images[: count - first]
