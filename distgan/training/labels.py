"""Labels for images that a conditional generator makes: for evaluations, grids and samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distgan.config.suggest import did_you_mean
from distgan.errors import UserError

ALL = "all"

_SQUARE = 8
_MOST_COLUMNS = 16


@dataclass(frozen=True)
class LabelledGrid:
    """Images in rows and columns, row by row: which latents each is made of, and which label it has.

    Attributes:
        latents: numbers of latents, int64 (N,).
        labels: int64 (N,); None for an unconditional generator.
        columns: images in a row; None for as many as make the grid nearly square.
    """

    latents: Tensor
    labels: Tensor | None = None
    columns: int | None = None


def drawn_labels(labels: NDArray[np.int64], count: int, seed: int) -> Tensor:
    """`count` labels, int64 (count,), drawn from `labels`, so as often as they occur there."""
    random = torch.Generator().manual_seed(seed)
    return torch.from_numpy(labels)[torch.randint(len(labels), (count,), generator=random)]


def training_grid(num_classes: int | None) -> LabelledGrid:
    """The grid of samples that a run keeps: 64 different latents, or in eight rows each column of one label.

    Up to 16 classes are beside each other for the same latents, as often as eight columns have room for; of more
    classes 16 are shown, from the first to the last.
    """
    if num_classes is None:
        return LabelledGrid(torch.arange(_SQUARE * _SQUARE))
    shown = min(num_classes, _MOST_COLUMNS)
    repeats = max(1, _SQUARE // shown)
    labels = torch.linspace(0, num_classes - 1, shown).round().long().repeat(repeats)
    latents = torch.arange(_SQUARE * repeats).repeat_interleave(shown)
    return LabelledGrid(latents, labels.repeat(_SQUARE), len(labels))


def sample_grid(count: int, num_classes: int | None, label: str | None, names: list[str], where: str) -> LabelledGrid:
    """`count` samples of the label that a user asks for, by its name or number, or of `all`.

    For `all`, each row has the same latents and every column a label; `count` is rounded down to whole rows, of
    which there is at least one. Without a label sample i has the label i mod `num_classes`.

    Raises UserError for a label that there is not, and for any where the generator is unconditional.
    """
    if num_classes is None:
        if label is not None:
            raise UserError(f"--label {label}: {where} is of a generator that takes no labels; leave --label out")
        return LabelledGrid(torch.arange(count))
    if label == ALL:
        rows = max(1, count // num_classes)
        latents = torch.arange(rows).repeat_interleave(num_classes)
        return LabelledGrid(latents, torch.arange(num_classes).repeat(rows), num_classes)
    latents = torch.arange(count)
    if label is None:
        return LabelledGrid(latents, latents % num_classes)
    return LabelledGrid(latents, torch.full((count,), _number_of(label, num_classes, names[:num_classes], where)))


def _number_of(label: str, num_classes: int, names: list[str], where: str) -> int:
    if label in names:
        return names.index(label)
    if label.isascii() and label.isdigit() and len(label) < 9 and int(label) < num_classes:
        return int(label)
    nearest = did_you_mean(label, names) if len(names) <= 100 else ""
    raise UserError(
        f"--label {label}: {where} has no such label; give a number from 0 to {num_classes - 1}, `{ALL}`, or a name"
        f"{nearest}"
    )
