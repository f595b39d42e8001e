"""Whether a data set fits a configuration: image size, channels, labels, and number of images."""

from __future__ import annotations

from distgan.config.schema import Config
from distgan.data.index import Index
from distgan.data.order import Order
from distgan.errors import UserError
from distgan.text import command
from distgan.training.events import SmallDatasetWarning

_BATCHES = 4


def small_dataset_warning(samples: int, config: Config, features: int | None) -> SmallDatasetWarning | None:
    """What `samples` real images, or the generated images of an evaluation, are too few for; None if they suffice.

    `features` is the dimension of the extractor's features, None if it is not known.
    """
    configured, batch_size = config.evaluation.real_samples, config.training.batch_size
    compared, generated = min(samples, configured or samples), config.evaluation.samples
    found = SmallDatasetWarning(
        samples=samples,
        compared=compared,
        features=features if features is not None and min(compared, generated) <= features else None,
        real_samples=configured if configured is not None and samples < configured else None,
        batch_size=batch_size if samples < _BATCHES * batch_size else None,
        batches=_BATCHES,
        generated=generated if features is not None and generated <= features else None,
    )
    return found if found.features or found.real_samples or found.batch_size else None


def check_data(config: Config, index: Index) -> None:
    """Raises UserError if the data set does not fit the configuration."""
    _check_images(config, index, str(config.data.url))
    Order(index, config.seed, config.data.streams, config.data.window_blocks)


def check_held_out(config: Config, index: Index, held_out: Index) -> None:
    """Raises UserError if the held-out images do not fit the configuration, or are those of the data set."""
    _check_images(config, held_out, str(config.data.held_out))
    if held_out.hash == index.hash:
        raise UserError(
            f"data.held_out={config.data.held_out}: these are the images that are trained on; pack others, that the "
            f"training set does not have, into a data set of their own"
        )


def _check_images(config: Config, index: Index, url: str) -> None:
    size, channels = index.header.image_size, index.header.channels
    if channels != config.channels:
        raise UserError(
            f"channels={config.channels}, but the images at {url} have {channels}: "
            f"set channels={channels}, or pack the data with the other value"
        )
    if size != config.image_size and config.data.resize == "none":
        hint = f"set image_size={size} or data.resize=bilinear" if size else "set data.resize=bilinear"
        raise UserError(
            f"image_size={config.image_size}, but the images at {url} have {size or 'several sizes'}: "
            f"{hint}, or pack the data with --size {config.image_size}"
        )
    if config.num_classes is not None:
        check_labels(config.num_classes, index, url)


def check_labels(num_classes: int, index: Index, url: str) -> None:
    """Raises UserError if the labels of the data set are not those of `num_classes` classes."""
    classes, unlabeled = len(index.header.classes), int((index.labels < 0).sum())
    if unlabeled:
        raise UserError(
            f"num_classes={num_classes}, but {unlabeled:,} of the {len(index):,} images at {url} have no label: "
            f"pack them with labels, or train unconditional networks with num_classes=null"
        )
    if classes != num_classes:
        hint = f"set num_classes={classes}" if classes > 1 else "train unconditional networks (num_classes=null)"
        raise UserError(f"num_classes={num_classes}, but the images at {url} have {classes} classes: {hint}")
    if index.labels.max() >= num_classes:
        raise UserError(
            f"{url}: damaged: it has the label {index.labels.max()} and {classes} classes; rebuild the index with "
            f"`{command('data', 'index', url)}`"
        )
