"""The data path alone: the first epoch of a stream against its decoder, webdataset's own pipeline and LitData.

python -m benchmarks.data [--kinds jpg-64 png-64 ...] [--threads T]

Every side reads the same images; distgan from the embedded S3 server and from disk, the others from disk. No side keeps
decoded images. LitData takes part where it is installed; its samples are JPEG bytes, decoded as distgan does.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import simplejpeg
import webdataset as wds
from numpy.typing import NDArray
from PIL import Image
from rich.table import Table

from benchmarks.report import console, machine
from distgan.config.schema import DataConfig
from distgan.data.dataset import Dataset
from distgan.data.order import Order
from distgan.data.pack import PackOptions, pack
from distgan.data.sources.base import Source
from distgan.data.stream import BatchStream
from distgan.storage.s3_server import server
from distgan.storage.storage import Storage

BATCH = 64

# Images of each size: about a second or more of decoding.
COUNTS = {64: 12_000, 128: 6_000, 256: 2_000}

KINDS = ("jpg-64", "jpg-128", "jpg-256", "png-64", "png-128")


@dataclass(frozen=True)
class SmoothNoise(Source):
    """Images about as large, once compressed, as photographs of their size."""

    count: int
    size: int
    classes: Sequence[str] = ("even", "odd")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        random = np.random.default_rng(number)
        coarse = Image.fromarray(random.integers(0, 230, (12, 12, 3), np.uint8))
        smooth = np.asarray(coarse.resize((self.size, self.size), Image.Resampling.BICUBIC))
        return smooth // 2 + random.integers(0, 12, smooth.shape, np.uint8), number % 2

    def name(self, number: int) -> str:
        return f"image {number}"


@dataclass(frozen=True)
class Epoch:
    """What a side does with an epoch: images a second, and microseconds of processors an image.

    `cpu_us` are those of this process, `server_us` those of the S3 server, which has the same processors.
    """

    rate: float
    cpu_us: float = 0.0
    server_us: float = 0.0


def decode(data: bytes) -> NDArray[np.uint8]:
    """The decoder of distgan alone: simplejpeg for JPEG, Pillow for others."""
    if data[:2] == b"\xff\xd8":
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", fastdct=False)
        return pixels
    return np.asarray(Image.open(io.BytesIO(data)))


def decoder_alone(images: list[bytes], threads: int) -> Epoch:
    """Decodes images in memory, and drops them."""
    begin = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(_decode_all, [images[first::threads] for first in range(threads)]))
    return _epoch(begin, len(images))


def _decode_all(images: list[bytes]) -> None:
    for data in images:
        decode(data)


def stream(url: str, size: int, threads: int, server_pid: int | None = None) -> Epoch:
    """An epoch of distgan's batches, read from the server if there is one."""
    dataset = Dataset.open(DataConfig(url=url), (3, size, size))
    batches = len(dataset.index) // BATCH
    source = BatchStream(
        dataset,
        Order(dataset.index, 0, 16, 8),
        groups=range(1),
        num_groups=1,
        batch_size=BATCH,
        start_batch=0,
        memory_bytes=0,
        prefetch_batches=3,
        decode_threads=threads,
    )
    try:
        return _consume((source.next() for _ in range(batches)), server_pid)
    finally:
        source.close()


def webdataset(folder: Path, workers: int) -> Epoch:
    """webdataset's documented pipeline, in so many processes."""
    shards = sorted(str(shard) for shard in folder.glob("*.tar"))
    dataset = wds.WebDataset(shards, shardshuffle=100).shuffle(1000).decode("rgb8").to_tuple("jpg;png", "cls")
    return _consume(wds.WebLoader(dataset.batched(BATCH), batch_size=None, num_workers=workers))


def litdata(folder: Path, workers: int) -> Epoch:
    """LitData's loader, in so many processes."""
    from litdata import StreamingDataLoader, StreamingDataset  # type: ignore[import-not-found]

    dataset = StreamingDataset(str(folder), shuffle=True, transform=lambda sample: decode(sample["image"]))
    return _consume(StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers))


def _consume(batches: Iterable[object], server_pid: int | None = None) -> Epoch:
    """Takes all batches; the first one, which has the start of threads and processes, is not timed."""
    source: Iterator[object] = iter(batches)
    next(source)
    begin, server_begin = (time.perf_counter(), time.process_time()), _cpu_seconds(server_pid)
    images = sum(1 for _ in source) * BATCH
    return replace(_epoch(begin, images), server_us=1e6 * (_cpu_seconds(server_pid) - server_begin) / images)


def _cpu_seconds(pid: int | None) -> float:
    """Seconds of processors that a process has had."""
    if pid is None:
        return 0.0
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _epoch(begin: tuple[float, float], images: int) -> Epoch:
    seconds, cpu = time.perf_counter() - begin[0], time.process_time() - begin[1]
    return Epoch(images / seconds, 1e6 * cpu / images)


def sides(kind: str, threads: int, bucket: str, server_pid: int, folder: Path) -> dict[str, Callable[[], Epoch]]:
    """Packs the images of a kind, and returns what is timed on them."""
    encoding, size = kind.split("-")[0], int(kind.split("-")[1])
    packed = folder / kind
    index = pack(
        SmoothNoise(COUNTS[size], size),
        Storage.open(str(packed)),
        PackOptions(size, 3, "jpg" if encoding == "jpg" else "png", shard_bytes=8 * 2**20),
    )
    storage = Storage.open(f"{bucket}/{kind}")
    for file in packed.iterdir():
        storage.upload(file, file.name)
    reader = Dataset.open(DataConfig(url=str(packed)), (3, size, size)).reader
    images = []
    for block in index.blocks:
        (data,) = reader.read([block])
        starts = index.offsets[block.first : block.stop] - block.start
        images += [
            bytes(data[start : start + length])
            for start, length in zip(starts, index.lengths[block.first : block.stop], strict=True)
        ]
    found: dict[str, Callable[[], Epoch]] = {}
    for count in sorted({1, threads}):
        found[f"decoder alone, {count} thread(s)"] = partial(decoder_alone, images, count)
        found[f"distgan, S3, {count} thread(s)"] = partial(stream, storage.url, size, count, server_pid)
        found[f"distgan, disk, {count} thread(s)"] = partial(stream, str(packed), size, count)
    found[f"webdataset, disk, {threads} processes"] = partial(webdataset, packed, threads)
    if importlib.util.find_spec("litdata") is not None and encoding == "jpg":
        chunks = _write_litdata(images, folder / f"{kind}-litdata")
        found[f"litdata, disk, {threads} processes"] = partial(litdata, chunks, threads)
    return found


def _write_litdata(images: list[bytes], folder: Path) -> Path:
    from litdata.streaming.cache import Cache  # type: ignore[import-not-found]

    cache = Cache(str(folder), chunk_bytes=8 * 2**20)
    for number, data in enumerate(images):
        cache[number] = {"image": data, "label": number % 2}
    cache.done()
    cache.merge()
    return folder


def measure(kind: str, threads: int, repeats: int, bucket: str, server_pid: int, folder: Path) -> None:
    """Prints a table of all sides, timed in turn."""
    timed = sides(kind, threads, bucket, server_pid, folder)
    epochs: dict[str, list[Epoch]] = {name: [] for name in timed}
    for _ in range(repeats):
        for name, run in timed.items():
            epochs[name].append(run())
    table = Table(kind, "images a second", "of the decoder", "processor time, µs", "server's, µs", title_justify="left")
    alone = [epoch.rate for epoch in epochs["decoder alone, 1 thread(s)"]]
    for name, values in epochs.items():
        used = threads if f"{threads} " in name else 1
        share = statistics.median(value.rate / (used * rate) for value, rate in zip(values, alone, strict=True))
        cpu = statistics.median(value.cpu_us for value in values)
        own = "" if "processes" in name else f"{cpu:,.0f}"
        server_cpu = f"{statistics.median(value.server_us for value in values):,.0f}" if "S3" in name else ""
        rate = statistics.median(value.rate for value in values)
        table.add_row(name, f"{rate:,.0f}", f"{share:.2f}", own, server_cpu)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side")
    arguments = parser.parse_args()
    console.print(machine())
    console.print("of the decoder: images a second / (threads x those of the decoder alone on one thread)")
    with TemporaryDirectory() as folder, ExitStack() as stack:
        handle = server.up(Path(folder) / "store")
        stack.callback(server.down, Path(folder) / "store")
        server.make_buckets(handle, ["benchmark"])
        os.environ |= handle.environment()
        for kind in arguments.kinds:
            measure(kind, arguments.threads, arguments.repeats, "s3://benchmark", handle.pid, Path(folder))


if __name__ == "__main__":
    main()
