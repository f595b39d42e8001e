"""What the commands of `distgan data` print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distgan.text import plural, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from distgan.data.index import Index


_NAMED = 5  # reasons for leaving samples out


def print_index(url: str, opened: Index) -> None:
    """Prints what a data set holds."""
    header = opened.header
    labeled = int((opened.labels >= 0).sum())
    megabytes = sum(shard.bytes for shard in header.shards) / 1e6
    shape = f"{header.channels}x{header.image_size}x{header.image_size}"
    if header.image_size is None:
        shape = f"{header.channels} channels, several sizes (train with data.resize)"
    lines = [
        f"{url}: {plural(header.samples, 'image')}, {shape}",
        f"  {plural(len(header.shards), 'shard')}, {megabytes:.1f} MB, {plural(len(opened.blocks), 'block')}",
        f"  {plural(len(header.classes), 'class', 'classes')}{_empty(opened)}, {labeled:,} labeled",
        f"  hash {opened.hash}",
    ]
    print("\n".join(map(printable, lines)))


def _empty(opened: Index) -> str:
    import numpy as np

    empty = len(opened.header.classes) - len(np.unique(opened.labels[opened.labels >= 0]))
    return f" ({empty:,} without an image)" if empty > 0 else ""


def print_made(url: str, made: Index, bad: list[str]) -> None:
    """Prints what a new data set holds, its bad samples, and what else was left out."""
    from distgan.data.files import BAD

    print_index(url, made)
    print_skipped(bad)
    print_left_out({reason: count for reason, count in made.header.left_out.items() if reason != BAD})


def print_if_sorted(opened: Index) -> None:
    """Warns of samples sorted by label, whose classes stay apart in training."""
    if opened.is_sorted_by_label:
        print(
            "warning: the labels are sorted, so that each group of a batch has only some of the classes; pack the "
            "images with `distgan data pack`, which shuffles them, or raise data.streams (16 by default) in training"
        )


def print_few_images(samples: int) -> None:
    """Warns of too few samples for a run of the default configuration."""
    from distgan.config.schema import Config
    from distgan.evaluation.extractors.published import feature_count
    from distgan.tracking import formatting
    from distgan.training.data_checks import small_dataset_warning

    config = Config()
    few = small_dataset_warning(samples, config, feature_count(config.evaluation.extractor))
    if few is not None:
        print(f"warning: {formatting.small_dataset(few)}")


def print_skipped(reasons: list[str]) -> None:
    """Prints how many samples were left out, and the first reasons."""
    if reasons:
        print(f"{plural(len(reasons), 'bad sample')} left out:")
        for reason in reasons[:_NAMED]:
            print(f"  {printable(reason)}")
        if len(reasons) > _NAMED:
            print(f"  and {len(reasons) - _NAMED:,} more")


def print_recovered(count: int) -> None:
    """Prints how many JPEGs were kept although libjpeg warns of them."""
    if count:
        what = "JPEG is" if count == 1 else "JPEGs are"
        print(f"{count:,} {what} slightly damaged but decodable; kept")


def print_stretched(count: int) -> None:
    """Prints how many images were stretched to a square."""
    if count:
        what = "image is not square and was" if count == 1 else "images are not square and were"
        print(f"{count:,} {what} stretched; --fit crop or --fit pad keeps the proportions")


def print_left_out(left_out: Mapping[str, int]) -> None:
    """Prints how many files or members of shards were left out, by reason."""
    from distgan.data.files import describe_counts

    total = sum(left_out.values())
    if total:
        print(f"{total:,} {'file' if total == 1 else 'files'} left out: {printable(describe_counts(left_out))}")
