"""What the commands of `distgan data` print."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from distgan.text import command, options, plural, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from distgan.data.index import Index
    from distgan.inference.data_sheet import ContactSheet


_NAMED = 5  # reasons for leaving samples out

_MOST_CLASSES, _NAME_WIDTH = 50, 40


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
    if header.source is not None:
        lines.insert(2, f"  shards at {header.source}")
    print("\n".join(map(printable, lines)))


def _empty(opened: Index) -> str:
    import numpy as np

    empty = len(opened.header.classes) - len(np.unique(opened.labels[opened.labels >= 0]))
    return f" ({empty:,} without an image)" if empty > 0 else ""


def print_classes(opened: Index) -> None:
    """Prints the classes with their numbers of images: all, or the first where they are many."""
    import numpy as np

    classes = opened.header.classes
    if not classes:
        return
    counts = np.bincount(opened.labels[opened.labels >= 0], minlength=len(classes))
    shown = len(classes) if len(classes) <= _MOST_CLASSES + 1 else _MOST_CLASSES
    names = [printable(name if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH - 1]}…") for name in classes[:shown]]
    width = max(map(len, ["name", *names]))
    print(f"  class  {'name':<{width}}  {'images':>10}")
    for number, name in enumerate(names):
        print(f"  {number:>5}  {name:<{width}}  {counts[number]:>10,}")
    if shown < len(classes):
        rest = counts[shown:]
        each = f"{rest.min():,}" if rest.min() == rest.max() else f"{rest.min():,} to {rest.max():,}"
        print(f"  and {plural(len(rest), 'class', 'classes')} more, with {each} images each")


def print_made(url: str, made: Index, bad: list[str]) -> None:
    """Prints what a new data set holds, its bad samples, and what else was left out."""
    from distgan.data.files import BAD

    print_index(url, made)
    print_skipped(bad, max(len(bad), made.header.left_out.get(BAD, 0)))
    print_left_out({reason: count for reason, count in made.header.left_out.items() if reason != BAD})


def sheet_line(made: ContactSheet, out: str, seed: int) -> str:
    """What a contact sheet shows."""
    classes = len(made.index.header.classes)
    of = f" of {made.classes} of {plural(classes, 'class', 'classes')}" if classes else ""
    unread = f"; {made.unreadable:,} cannot be read: `distgan data verify` names them" if made.unreadable else ""
    return f"{out}: {made.images:,} images{of}, seed {seed}{unread}"


def print_unread(url: str, folder: str | None, counts: list[Counter[str]]) -> None:
    """Prints what samples without labels have in the places that often hold some and are not read."""
    for name, count in sum(counts, Counter[str]()).most_common(_NAMED):
        again = options(index=folder, label=name.split('"')[1] if '"' in name else name[1:])
        print(
            f"warning: no sample has a label that is read, but {count:,} have {printable(name)}; "
            f"to read it: `{printable(command('data', 'index', url, *again))}`"
        )


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


def print_skipped(reasons: list[str], total: int) -> None:
    """Prints how many samples were left out, and the first of the reasons that are known."""
    if total:
        print(f"{plural(total, 'bad sample')} left out{':' if reasons else ''}")
        for reason in reasons[:_NAMED]:
            print(f"  {printable(reason)}")
        if reasons and total > _NAMED:
            print(f"  and {total - _NAMED:,} more")


def print_empty(names: list[str]) -> None:
    """Prints which shards were left out as empty archives, the first by name."""
    if names:
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        print(f"warning: {plural(len(names), 'empty shard')} left out: {printable(', '.join(names[:_NAMED]))}{more}")


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


def print_kept(kept: int, total: int) -> None:
    """Prints how many images are stored as they came, and how the others are."""
    changed = total - kept
    print(f"{kept:,} of {total:,} images stored as they came")
    if changed:
        print(f"{changed:,} encoded anew: JPEG at quality 95; PNG and WebP losslessly; others as PNG")


def print_left_out(left_out: Mapping[str, int]) -> None:
    """Prints how many files or members of shards were left out, by reason."""
    from distgan.data.files import describe_counts

    total = sum(left_out.values())
    if total:
        print(f"{total:,} {'file' if total == 1 else 'files'} left out: {printable(describe_counts(left_out))}")
