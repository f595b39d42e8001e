"""Checks every byte and every image of a data set against its index."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from distgan.data.images import decode_image, recovered_jpegs
from distgan.data.index import Index
from distgan.data.tar import tar_members
from distgan.errors import UserError
from distgan.storage.storage import Storage


def verify(
    storage: Storage,
    progress: Callable[[int], None] = lambda _: None,
    recovered: Callable[[int], None] = lambda _: None,
) -> list[str]:
    """One line for each fault found; empty when all is well. `progress` is told the samples checked so far.

    `recovered` is told how many more of the images are JPEGs that libjpeg only warns of, which are no faults.
    """
    index = Index.load(storage)
    faults: list[str] = []
    first = 0
    for number, shard in enumerate(index.header.shards):
        stop = first + shard.samples
        try:
            data = storage.read_bytes(shard.name)
        except UserError as error:
            faults.append(str(error))
            progress(stop)
            first = stop
            continue
        if hashlib.sha256(data).hexdigest() != shard.sha256:
            faults.append(
                f"{shard.name}: its {len(data)} bytes are not the {shard.bytes} of the index (SHA-256 differs)"
            )
        else:
            try:
                tar_members(data, shard.name)
            except UserError as error:
                faults.append(str(error))
            before = recovered_jpegs.value
            faults += _undecodable(index, shard.name, data, range(first, stop))
            recovered(recovered_jpegs.value - before)
        faults += [
            f"{shard.name}: block {block.number} (samples {block.first} to {block.stop - 1}) does not match"
            for block in index.blocks
            if block.shard == number and not block.holds(data[block.start : block.end])
        ]
        progress(stop)
        first = stop
    return faults


def _undecodable(index: Index, shard: str, data: bytes, samples: range) -> list[str]:
    faults = []
    for sample in samples:
        start = int(index.offsets[sample])
        image = data[start : start + int(index.lengths[sample])]
        try:
            decode_image(image, index.header.image_size, index.header.channels)
        except ValueError as error:
            faults.append(f"{shard}: sample {sample} at byte {start}: {error}")
        label = int(index.labels[sample])
        if not -1 <= label < len(index.header.classes):
            faults.append(f"{shard}: sample {sample}: label {label} of {len(index.header.classes)} classes")
    return faults
