"""What the commands of `distgan data` print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections import Counter

    from distgan.data.index import Index

_NAMED = 5  # of what was left out


def print_index(url: str, opened: Index) -> None:
    """What a data set holds."""
    header = opened.header
    labelled = int((opened.labels >= 0).sum())
    megabytes = sum(shard.bytes for shard in header.shards) / 1e6
    shape = f"{header.channels}x{header.image_size}x{header.image_size}"
    if header.image_size is None:
        shape = f"{header.channels} channels, several sizes (train with data.resize)"
    lines = [
        f"{url}: {header.samples:,} images, {shape}",
        f"  {len(header.shards)} shards, {megabytes:.1f} MB, {len(opened.blocks):,} blocks",
        f"  {len(header.classes)} classes, {labelled:,} labelled",
        f"  hash {opened.hash}",
    ]
    print("\n".join(lines))


def print_if_sorted(opened: Index) -> None:
    """A warning where the samples lie sorted by label, which keeps classes apart in training."""
    if opened.is_sorted_by_label:
        print(
            "warning: the labels lie sorted, so that each group of a batch has only some of the classes; pack the "
            "images with `distgan data pack`, which shuffles them, or raise data.streams (16 by default) in training"
        )


def print_few_images(samples: int) -> None:
    """A warning where the samples are few for a run of the default configuration."""
    from distgan.config.schema import Config
    from distgan.metrics.known import feature_count
    from distgan.report import words
    from distgan.training.few_images import few_images

    config = Config()
    few = few_images(samples, config, feature_count(config.evaluation.extractor))
    if few is not None:
        print(f"warning: {words.few_images(few)}")


def print_skipped(reasons: list[str]) -> None:
    """How many samples were left out, and why the first few were."""
    if reasons:
        print(f"{len(reasons):,} bad {'sample' if len(reasons) == 1 else 'samples'} left out:")
        for reason in reasons[:_NAMED]:
            print(f"  {_printable(reason)}")
        if len(reasons) > _NAMED:
            print(f"  and {len(reasons) - _NAMED:,} more")


def print_left_out(suffixes: Counter[str]) -> None:
    """How many files are no images, and of which kinds they are."""
    if suffixes:
        ordered = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))
        kinds = [f"{count:,} {suffix or 'without a suffix'}" for suffix, count in ordered[:_NAMED]]
        if len(ordered) > _NAMED:
            kinds.append(f"{sum(count for _, count in ordered[_NAMED:]):,} of other kinds")
        total = suffixes.total()
        print(f"{total:,} {'file' if total == 1 else 'files'} left out: {_printable(', '.join(kinds))}")


def _printable(text: str) -> str:
    """The text with the bytes of file names that are not UTF-8 spelt out."""
    return text.encode(errors="backslashreplace").decode()


def progress_bar(console: Console | None = None) -> Progress:
    """A bar on standard error, where that is a terminal."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = console or Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
