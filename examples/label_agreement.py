"""Is the label obeyed? A classifier of real images judges the samples of a conditional run.

It is trained on real images of the run's data set, and its accuracy on others that it has not seen says how far it
can be trusted. Then as many samples of every label are drawn as of any other, each of latents of its own. The
agreement is the share of them that the classifier takes for what was asked for. With one seed and one number of
threads the figures are the same each time.

    python examples/label_agreement.py RUN_OR_CHECKPOINT --data URL
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from distgan.config.load import build_config
from distgan.config.schema import Config
from distgan.data.blocks import BlockReader
from distgan.data.dataset import Dataset
from distgan.data.index import Index
from distgan.errors import UserError
from distgan.inference.sampling import draw_samples
from distgan.storage.storage import Storage
from distgan.training.checkpoints import Checkpoint
from distgan.training.data_checks import check_data
from distgan.training.starting_point import find_checkpoint

REAL_IMAGES, HELD_OUT_OF = 18_000, 6
EPOCHS, BATCH = 5, 64


@dataclass(frozen=True)
class ClassAgreement:
    """Of one label: shares in [0, 1] of held-out real images, and of samples, that the classifier takes for it.

    Attributes:
        mistaken_for: which other class samples are most often taken for; None where they never are.
    """

    label: str
    real: float
    samples: float
    mistaken_for: str | None


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the agreement; returns the exit code, 2 after a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="RUN_OR_CHECKPOINT", help="folder or URL of either")
    parser.add_argument("--data", required=True, metavar="URL", help="the data set that the run was trained on")
    parser.add_argument("--checkpoint", metavar="NAME|best|last", help="of a run; the best by default")
    parser.add_argument("--samples", type=int, default=2000, help="samples of all labels together")
    parser.add_argument("--seed", type=int, default=0, help="draws latents, real images and the classifier's weights")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--trust-code", action="store_true", help="as of `distgan sample`")
    arguments = parser.parse_args(argv)
    try:
        if not (1 <= arguments.samples <= 65536 and 0 <= arguments.seed < 2**63):
            raise UserError("--samples is from 1 to 65536, --seed from 0 to 2^63 - 1; give others")
        checkpoint = find_checkpoint(arguments.source, arguments.checkpoint)
        classes = agreement(checkpoint, arguments.data, arguments.samples, arguments.seed, arguments.trust_code)
        report(checkpoint, classes, arguments.json)
    except UserError as error:
        print(f"label_agreement: error: {error}", file=sys.stderr)
        return 2
    return 0


def agreement(
    checkpoint: Checkpoint, data_url: str, samples: int, seed: int, trust_code: bool = False
) -> list[ClassAgreement]:
    """Of every label, with `samples` rounded down to as many of each, but at least one.

    Raises UserError for a run without labels, and for data of other classes or unfit for the run's images.
    """
    manifest = checkpoint.manifest
    config = build_config(manifest.config, manifest.name, trust_code=trust_code)
    num_classes = config.num_classes
    if num_classes is None:
        raise UserError(f"{checkpoint.url}: its generator takes no labels; give a run with num_classes")
    index = Index.load(Storage.open(data_url))
    if index.header.classes != manifest.classes:
        raise UserError(f"--data {data_url}: its classes are not those of {checkpoint.url}; give the run's data set")
    config = config.model_copy(update={"data": config.data.model_copy(update={"url": data_url})})
    check_data(config, index)

    images, labels = real_images(index, config, seed)
    held_out = len(images) // HELD_OUT_OF
    missing = set(range(num_classes)) - set(labels[:held_out].tolist())
    if missing:
        raise UserError(f"{data_url}: too few images of class {manifest.classes[min(missing)]!r} to judge by; add some")
    classifier = trained_classifier(images[held_out:], labels[held_out:], config, seed)

    count = max(1, samples // num_classes) * num_classes
    drawn = draw_samples(checkpoint, count, seed, trust_code=trust_code)
    assert drawn.labels is not None
    found = torch.cat([predictions(classifier, batch) for batch in drawn.batches])
    real = confusion(labels[:held_out], predictions(classifier, images[:held_out]), num_classes)
    return compared(real, confusion(drawn.labels, found, num_classes), manifest.classes)


def real_images(index: Index, config: Config, seed: int) -> tuple[Tensor, Tensor]:
    """Images drawn from a data set, as the run reads them, in random order: uint8 (N, C, H, W), int64 (N,)."""
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(len(index))[:REAL_IMAGES])
    reader = BlockReader(Storage.open(str(config.data.url)), index)
    dataset = Dataset(index, reader, config.image_shape, config.data)
    numbers, images = zip(*dataset.images(chosen), strict=True)
    order = random.permutation(len(numbers))
    return torch.from_numpy(np.stack(images)[order]), torch.from_numpy(index.labels[np.array(numbers)[order]])


def trained_classifier(images: Tensor, labels: Tensor, config: Config, seed: int) -> nn.Module:
    """A small convolutional network in evaluation mode, (N, C, H, W) in [-1, 1] to logits (N, num_classes)."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        *(nn.Conv2d(config.channels, 32, 4, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 4, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(0.25), nn.Linear(64 * 4 * 4, config.num_classes or 0)),
    )
    batches = -(-len(images) // BATCH)
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=EPOCHS * batches)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images)).chunk(batches):
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(network(scaled(images[rows])), labels[rows]))
            optimizer.step()
            schedule.step()
    return network.eval()


@torch.inference_mode()
def predictions(classifier: nn.Module, images: Tensor) -> Tensor:
    """The likeliest class of each image, int64 (N,)."""
    return torch.cat([classifier(scaled(part)).argmax(1) for part in torch.split(images, 256)])


def scaled(images: Tensor) -> Tensor:
    """uint8 to [-1, 1]."""
    return images.float() / 127.5 - 1


def confusion(asked: Tensor, found: Tensor, num_classes: int) -> Tensor:
    """How many of label i were found to be j, int64 (num_classes, num_classes)."""
    return torch.bincount(asked * num_classes + found, minlength=num_classes**2).view(num_classes, num_classes)


def compared(real: Tensor, samples: Tensor, names: list[str]) -> list[ClassAgreement]:
    """The shares on the diagonals of both confusions, a label each."""
    others = samples.clone().fill_diagonal_(0)
    return [
        ClassAgreement(
            label=name,
            real=float(real[label, label] / real[label].sum()),
            samples=float(samples[label, label] / samples[label].sum()),
            mistaken_for=names[int(others[label].argmax())] if others[label].any() else None,
        )
        for label, name in enumerate(names)
    ]


def report(checkpoint: Checkpoint, classes: list[ClassAgreement], file: Path | None) -> None:
    """Prints the table, whose last row is the labels' mean. Raises UserError where `file` cannot be written."""
    real, samples = (float(np.mean([getattr(one, key) for one in classes])) for key in ("real", "samples"))
    table = Table(title=f"{checkpoint.manifest.name}: what a classifier of real images sees")
    for heading in ("label", "held-out real images", "samples", "else mostly"):
        table.add_column(heading, justify="left" if heading == "label" else "right")
    for one in classes:
        table.add_row(one.label, f"{one.real:.1%}", f"{one.samples:.1%}", one.mistaken_for or "")
    table.add_section()
    table.add_row("all", f"{real:.1%}", f"{samples:.1%}")
    Console().print(table)
    if file is None:
        return
    figures = {"checkpoint": checkpoint.url, "real": real, "samples": samples, "classes": [asdict(c) for c in classes]}
    try:
        file.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"--json {file}: cannot be written: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())
