"""Latents by number, drawn by seed or given, and images' ways from one to another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from distgan.bounds import check_zip, open_regular
from distgan.errors import UserError
from distgan.evaluation.given_images import NO_ARRAY
from distgan.storage.storage import translate_errors
from distgan.training.fakes import LabeledGrid

Interpolation = Literal["linear", "spherical"]

INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)

MOST_INTERPOLATED = 65_536

_IN_NPZ = "latents"

_MOST_FILE_BYTES = 2**31

_DRAWN_AT_ONCE = 64


class Latents(Protocol):
    """Latents by their numbers, from 0."""

    def take(self, numbers: Tensor) -> Tensor:
        """Those of these numbers, float32 (len(numbers), D). Numbers ascend, within a call and from call to call."""
        ...


class DrawnLatents:
    """Normal latents. Number i is the same however many are taken; earlier ones are dropped."""

    def __init__(self, dimension: int, seed: int) -> None:
        self._random = torch.Generator().manual_seed(seed)
        self._first, self._drawn = 0, torch.empty(0, dimension)

    def take(self, numbers: Tensor) -> Tensor:
        while self._first + len(self._drawn) <= int(numbers[-1]):
            # Always as many at once: the last numbers of a tensor depend on its size.
            more = torch.randn(_DRAWN_AT_ONCE, self._drawn.shape[1], generator=self._random)
            self._drawn = torch.cat([self._drawn, more])
        behind = int(numbers[0]) - self._first
        self._first, self._drawn = self._first + behind, self._drawn[behind:]
        return self._drawn[numbers - self._first]


class GivenLatents:
    """The rows of a tensor (N, D)."""

    def __init__(self, rows: Tensor) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, numbers: Tensor) -> Tensor:
        return self._rows[numbers]


def read_latents(file: str, latent_dim: int) -> GivenLatents:
    """Latents of an .npy file, or of an .npz file the array `latents`, or its only one. Nothing is unpickled.

    Raises UserError for a file that cannot be read, is too large, or holds anything but float (N, latent_dim).
    """
    path = Path(file)
    if path.suffix.lower() not in {".npy", ".npz"}:
        raise UserError(f"--latents {file}: give an .npy or .npz file")
    try:
        with translate_errors(f"--latents {file}"), open_regular(path) as opened:
            if os.fstat(opened.fileno()).st_size > _MOST_FILE_BYTES:
                raise UserError(f"--latents {file}: has more than {_MOST_FILE_BYTES // 2**30} GiB; split it")
            if path.suffix.lower() == ".npz":
                check_zip(opened, file, _MOST_FILE_BYTES)
            found = np.load(opened, allow_pickle=False)
            if isinstance(found, np.lib.npyio.NpzFile):
                found = found[found.files[0] if len(found.files) == 1 else _IN_NPZ]
    except NO_ARRAY as error:
        missing = f" (it has no array `{_IN_NPZ}`)" if isinstance(error, KeyError) else ""
        raise UserError(
            f"--latents {file}: not a whole {path.suffix} file of numbers{missing}; save it again"
        ) from None
    return checked_latents(found, latent_dim, f"--latents {file}")


def checked_latents(values: ArrayLike | Tensor, latent_dim: int, where: str) -> GivenLatents:
    """Latents as float32. Raises UserError for anything but finite float (N, latent_dim), with `where` in front."""
    array = values.detach().cpu().float().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.dtype.kind != "f" or array.ndim != 2 or array.shape[1] != latent_dim or not len(array):
        raise UserError(f"{where}: holds {array.dtype} {array.shape}; latents are float (N, {latent_dim})")
    rows = torch.from_numpy(array.astype(np.float32))
    if not bool(rows.isfinite().all()):
        raise UserError(f"{where}: holds numbers that are not finite; remove them")
    return GivenLatents(rows)


def strips(grid: LabeledGrid, latents: Latents, steps: int, method: Interpolation) -> tuple[LabeledGrid, GivenLatents]:
    """A row for each image of a grid, from its latents to others, in `steps` images with both ends.

    Of U latents in the grid, number i leads to number U + i.
    """
    ends = _stops(grid, latents, 2)
    ways = between(ends[0], ends[1], torch.linspace(0, 1, steps), method)
    numbers = (grid.latents[:, None] * steps + torch.arange(steps)).flatten()
    labels = None if grid.labels is None else grid.labels.repeat_interleave(steps)
    return LabeledGrid(numbers, labels, steps), GivenLatents(ways.flatten(0, 1))


def loop(
    grid: LabeledGrid, latents: Latents, steps: int, method: Interpolation, stops: int
) -> tuple[LabeledGrid, GivenLatents]:
    """Frames of a grid whose images go around through `stops` latents, `steps` frames from one to the next.

    Of U latents in the grid, number i leads to U + i, to 2 U + i, and so on, and from the last of them back to i. The
    first frame is the grid itself; the images of a frame follow each other.
    """
    visited = _stops(grid, latents, stops)
    shares = torch.arange(steps) / steps
    legs = [between(one, visited[(place + 1) % stops], shares, method) for place, one in enumerate(visited)]
    frames = stops * steps
    numbers = (grid.latents[None] * frames + torch.arange(frames)[:, None]).flatten()
    labels = None if grid.labels is None else grid.labels.repeat(frames)
    return LabeledGrid(numbers, labels, grid.columns), GivenLatents(torch.cat(legs, 1).flatten(0, 1))


def distinct_latents(grid: LabeledGrid) -> int:
    """How many latents the images of a grid have."""
    return int(grid.latents.max()) + 1


def _stops(grid: LabeledGrid, latents: Latents, stops: int) -> Tensor:
    """(stops, U, D)."""
    count = distinct_latents(grid)
    return latents.take(torch.arange(stops * count)).reshape(stops, count, -1)


def between(begin: Tensor, end: Tensor, shares: Tensor, method: Interpolation) -> Tensor:
    """Latents on the way from one to another.

    Linear ones are shorter on the way, up to 0.7 times for normal latents. Spherical ones have norms like those that a
    network is trained with (Shoemake 1985; White 2016, "Sampling Generative Networks").

    Args:
        begin, end: (N, D).
        shares: (S,), from 0 (`begin`) to 1 (`end`).

    Returns: (N, S, D).
    """
    at = shares[None, :, None]
    linear = (1 - at) * begin[:, None] + at * end[:, None]
    if method == "linear":
        return linear
    cosine = torch.nn.functional.cosine_similarity(begin, end, dim=-1).clamp(-1, 1)
    angle = cosine.acos()[:, None, None]
    mixed = torch.sin((1 - at) * angle) * begin[:, None] + torch.sin(at * angle) * end[:, None]
    return torch.where(angle.sin() > 1e-6, mixed / angle.sin(), linear)
