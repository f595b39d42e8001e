"""Checks every byte and every image of a data set against its index."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress

from distgan.data.images import decode_image, recovered_jpegs
from distgan.data.index import Index, Shard, index_command
from distgan.data.shard_checks import change_of
from distgan.data.tar import tar_members
from distgan.errors import UserError
from distgan.storage.storage import FileFacts, NotFoundError, Storage


def verify(
    storage: Storage,
    on_progress: Callable[[int], None] | None = None,
    on_recovered: Callable[[int], None] | None = None,
) -> list[str]:
    """One line for each fault; an empty list for a whole data set.

    `on_progress` receives the number of samples checked so far, `on_recovered` how many more images are JPEGs that
    libjpeg only warns of, which are no faults.
    """
    index = Index.load(storage)
    folder, first = index.shard_folder(storage), 0
    faults = _without_ranges(folder, index.header.shards[0].name)
    for number, shard in enumerate(index.header.shards):
        samples = range(first, first + shard.samples)
        before = recovered_jpegs.value
        found = _shard_faults(folder, index, number, samples)
        if not found and index.header.source is not None and (fault := _etag_changed(folder, shard)) is not None:
            again = f"index the shards again, with the same options: `{index_command(index.header, storage)}`"
            found = [f"{fault}, but its bytes are the same; {again}"]
        faults += found
        if on_recovered is not None:
            on_recovered(recovered_jpegs.value - before)
        if on_progress is not None:
            on_progress(samples.stop)
        first = samples.stop
    return faults


def _without_ranges(folder: Storage, shard: str) -> list[str]:
    """The fault of a web server that sends no parts of files, which training reads."""
    try:
        if folder.protocol in {"http", "https"}:
            folder.read_range(shard, 1, 2)
    except NotFoundError:  # told with the shard's other faults
        return []
    except UserError as error:
        return [str(error)]
    return []


def _etag_changed(folder: Storage, shard: Shard) -> str | None:
    """The fault of a shard whose ETag is not that of the index."""
    with suppress(UserError):
        change = change_of(shard, FileFacts(None, folder.facts(shard.name).etag))
        return None if change is None else f"{shard.name}: {change}"
    return None


def _shard_faults(folder: Storage, index: Index, number: int, samples: range) -> list[str]:
    shard = index.header.shards[number]
    try:
        data = folder.read_bytes(shard.name)
    except UserError as error:
        return [str(error)]
    faults: list[str] = []
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        faults.append(f"{shard.name}: its {len(data)} bytes are not the {shard.bytes} of the index (SHA-256 differs)")
    else:
        try:
            tar_members(data, shard.name)
        except UserError as error:
            faults.append(str(error))
        faults += _undecodable(index, shard.name, data, samples)
    faults += [
        f"{shard.name}: block {block.number} (samples {block.first} to {block.stop - 1}) does not match"
        for block in index.blocks
        if block.shard == number and not block.holds(data[block.start : block.end])
    ]
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
