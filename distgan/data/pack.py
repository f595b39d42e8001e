"""Packs a source's images into WebDataset shards with an index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import webdataset as wds

from distgan.data.encode import StoredAs, encoded_samples
from distgan.data.images import Encoding
from distgan.data.index import INDEX_NAME, Index
from distgan.data.scan import ScannedShard, assemble_index, scan_shard
from distgan.data.sources.base import Source
from distgan.data.storage import Storage, translate_errors
from distgan.data.temporary import temporary_folder
from distgan.errors import UserError


@dataclass(frozen=True)
class PackOptions:
    """How images are stored.

    Attributes:
        image_size: pixels a side; other sizes are resized bilinearly, the aspect ratio not kept.
        seed: draws the order of samples in the shards, so that sorted sources mix.
        shard_bytes: a shard is closed once it is at least this large.
        processes: processes that read, resize and encode; by default one a processor.
    """

    image_size: int
    channels: int
    encoding: Encoding = "png"
    seed: int = 0
    shard_bytes: int = 64 * 2**20
    processes: int | None = None


def pack(
    source: Source, storage: Storage, options: PackOptions, progress: Callable[[int], None] = lambda _: None
) -> Index:
    """Writes shards, then the index, into the storage; returns the index.

    A sample is `KEY.png|jpg|webp` and, where it has a label, `KEY.cls`. The same source and options give the same
    bytes. `progress` is told the samples done so far. Raises UserError where the storage holds a data set already.
    """
    storage.prepare()
    if storage.exists(INDEX_NAME):
        raise UserError(f"{storage.url}: holds a data set already; choose another place or delete it")
    scanned: list[ScannedShard] = []
    order = np.random.default_rng([options.seed, len(source)]).permutation(len(source)).tolist()
    stored_as = StoredAs(options.image_size, options.channels, options.encoding)
    samples = encoded_samples(source, stored_as, order, options.processes)
    done = 0
    with temporary_folder() as folder:
        while done < len(source):
            path = folder / f"shard-{len(scanned):05d}.tar"
            done += _write_shard(path, samples, options, done, progress)
            scanned.append(scan_shard(path))
            storage.upload(path, path.name)
            path.unlink()
    index = assemble_index(scanned, source.classes, options.channels)
    index.save(storage)
    return index


def _write_shard(
    path: Path,
    samples: Iterator[tuple[bytes, int]],
    options: PackOptions,
    done: int,
    progress: Callable[[int], None],
) -> int:
    """Writes one shard of samples from number `done` on; returns how many."""
    count = 0
    with (
        translate_errors(str(path)),
        path.open("wb") as file,
        wds.TarWriter(file, encoder=False, mtime=0, user="", group="") as writer,
    ):
        for image, label in samples:
            sample: dict[str, str | bytes] = {"__key__": f"{done + count:08d}", options.encoding: image}
            if label >= 0:
                sample["cls"] = str(label).encode()
            writer.write(sample)
            count += 1
            progress(done + count)
            if file.tell() >= options.shard_bytes:
                break
    return count
