"""The data order alone, on made-up indexes: how it mixes data sorted by class, and what it costs to start.

python -m benchmarks.order mixing
python -m benchmarks.order start

`mixing` reads the samples of an epoch in the order of training and compares them to a full shuffle; `start` loads
indexes of 1,000 to 10 million images, each in a process of its own, and makes the first batch. No image exists.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.report import console, machine
from distgan.data.index import FORMAT, TAR_UNIT, Header, Index, Shard, block_spans, pack_table
from distgan.data.order import Order
from distgan.storage.storage import Storage

IMAGE_BYTES = 2_500  # a JPEG of 64x64 pixels

BATCH, GROUPS, WINDOW_BLOCKS, STREAMS = 128, 4, 8, 16  # the defaults

# Consecutive batches whose classes are counted together.
RUN = 20


def sorted_index(samples: int, shards: int, classes: int, image_bytes: int = IMAGE_BYTES) -> Index:
    """An index of equal WebDataset shards that do not exist: images about `image_bytes` long, sorted by class.

    A sample is the image and its label, each after its tar header. `shards` divides `samples`.
    """
    lengths = np.random.default_rng(0).integers(image_bytes // 2, image_bytes * 3 // 2, samples)
    padded = -(-lengths // TAR_UNIT) * TAR_UNIT + 3 * TAR_UNIT
    ends = np.cumsum(padded.reshape(shards, -1), axis=1)
    offsets = (ends - padded.reshape(shards, -1)).ravel() + TAR_UNIT
    labels = np.arange(samples) * classes // samples
    size = samples // shards
    spans = block_spans([size] * shards, offsets, lengths)
    table = offsets, lengths, labels, np.zeros(len(spans), np.uint32)
    header = Header(
        format=FORMAT,
        image_size=64,
        channels=3,
        samples=samples,
        classes=[f"class {number}" for number in range(classes)],
        shards=[
            Shard(name=f"{number:06}.tar", samples=size, bytes=int(end), sha256="0" * 64)
            for number, end in enumerate(ends[:, -1])
        ],
        table_sha256=hashlib.sha256(pack_table(*table)).hexdigest(),
    )
    return Index(header, *table)


@dataclass(frozen=True)
class Mixing:
    """How an order mixes; 1 is a full shuffle in all but `distance`.

    Attributes:
        distance: median of the places between neighbors of a shard, as a share of the places in a stream. Of a
            shuffle it is 1 - sqrt(1/2).
        together: how many times as often as in a shuffle two neighbors are in one batch.
        group, batch, run: standard deviation of the number of images of a class in a group, a batch and `RUN` batches
            in a row, to that of a shuffle. Less than 1 is more even.
    """

    distance: float
    together: float
    group: float
    batch: float
    run: float


def epoch(order: Order, samples: int) -> NDArray[np.int64]:
    """The sample numbers of the whole batches of an epoch, (batches, groups, images)."""
    return np.array(
        [
            [order.group_samples(batch, group, GROUPS, BATCH) for group in range(GROUPS)]
            for batch in range(samples // BATCH)
        ]
    )


def mixing(batches: NDArray[np.int64], streams: list[NDArray[np.int64]], labels: NDArray[np.int64]) -> Mixing:
    """Measures batches (batches, groups, images), and an epoch of each stream, of which neighbors are in a shard."""
    distances = [np.median(np.abs(np.diff(np.argsort(stream)))) / len(stream) for stream in streams]
    count, samples = len(batches), len(labels)
    batch_of = np.full(samples, -1)
    batch_of[batches.reshape(count, -1)] = np.arange(count)[:, None]
    inside = (batch_of[:-1] >= 0) & (batch_of[1:] >= 0)
    together = (batch_of[:-1] == batch_of[1:])[inside].mean() * count
    group, batch, run = (
        _deviation(labels[part], labels)
        for part in (
            batches.reshape(-1, batches.shape[-1]),
            batches.reshape(count, -1),
            batches[: count // RUN * RUN].reshape(count // RUN, -1),
        )
    )
    return Mixing(float(np.mean(distances)), float(together), group, batch, run)


def _deviation(parts: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """The deviation of the numbers of images of a class in rows of labels (rows, n), to that of a full shuffle."""
    samples, n = len(labels), parts.shape[1]
    shares = np.bincount(labels) / samples
    rows = np.arange(len(parts))[:, None] * len(shares)
    counts = np.bincount((rows + parts).ravel(), minlength=len(parts) * len(shares)).reshape(len(parts), -1)
    expected = n * shares * (1 - shares) * (samples - n) / (samples - 1)
    return float(np.sqrt(np.mean(np.square(counts - n * shares) / expected)))


def measure(index: Index, streams: int, window_blocks: int) -> Mixing:
    """The mixing of the order of training."""
    order = Order(index, 0, streams, window_blocks)
    return mixing(epoch(order, len(index)), [stream.samples(0, len(stream)) for stream in order.streams], index.labels)


def measure_shuffle(index: Index) -> Mixing:
    """That of a full shuffle, which says how exact the others are."""
    shuffle = np.random.default_rng(0).permutation(len(index))
    batches = shuffle[: len(index) // BATCH * BATCH].reshape(-1, GROUPS, BATCH // GROUPS)
    return mixing(batches, [shuffle], index.labels)


def show_mixing(samples: int, shards: int, classes: int) -> None:
    index = sorted_index(samples, shards, classes)
    table = Table(title=f"{samples:,} images in {shards:,} shards, sorted by {classes:,} classes", title_justify="left")
    for column in ("streams", "window", "distance", "together", "group", "batch", f"{RUN} batches"):
        table.add_column(column, justify="right")
    found = [("full shuffle", "", measure_shuffle(index))]
    for streams, window in ((16, 8), (32, 8), (64, 8), (16, 32), (64, 32)):
        found.append((f"{streams}", f"{window}", measure(index, streams, window)))
    for *order, one in found:
        values = (one.distance, one.together, one.group, one.batch, one.run)
        table.add_row(*order, *(f"{value:.2f}" for value in values))
    console.print(table)


def start(folder: str) -> dict[str, float]:
    """Loads an index and makes the first batch: seconds of both, and MiB that this process has grown by."""
    storage, before, began = Storage.open(folder), _resident_mib(), time.perf_counter()
    index = Index.load(storage)
    loaded = time.perf_counter()
    order = Order(index, 0, STREAMS, WINDOW_BLOCKS)
    for group in range(GROUPS):
        order.group_samples(0, group, GROUPS, BATCH)
    return {"load": loaded - began, "batch": time.perf_counter() - loaded, "mib": _resident_mib() - before}


def _resident_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def show_start() -> None:
    table = Table(title="from an index on the disk to the first batch")
    for column in ("images", "index, MiB", "blocks", "loading, s", "first batch, s", "memory, MiB", "bytes an image"):
        table.add_column(column, justify="right")
    for samples in (1_000, 100_000, 1_000_000, 10_000_000):
        with TemporaryDirectory() as folder:
            index = sorted_index(samples, max(1, samples // 10_000), 10)
            index.save(Storage.open(folder))
            size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 2**20
            command = [sys.executable, "-m", "benchmarks.order", "start", "--folder", folder]
            found = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        table.add_row(
            f"{samples:,}", f"{size:.1f}", f"{len(index.blocks):,}", f"{found['load']:.2f}", f"{found['batch']:.2f}",
            f"{found['mib']:.0f}", f"{found['mib'] * 2**20 / samples:.0f}" if samples >= 1_000_000 else "",
        )  # fmt: skip
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["mixing", "start"])
    parser.add_argument("--folder", help="the index of which `start` measures the start, as JSON")
    arguments = parser.parse_args()
    if arguments.folder is not None:
        print(json.dumps(start(arguments.folder)))
        return
    console.print(machine())
    if arguments.what == "mixing":
        console.print(f"batches of {BATCH} in {GROUPS} groups, images of about {IMAGE_BYTES:,} bytes")
        show_mixing(100_000, 100, 10)
        show_mixing(1_000_000, 1000, 1000)
    else:
        show_start()


if __name__ == "__main__":
    main()
