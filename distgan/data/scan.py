"""Reads WebDataset shards, ours or anybody's, and makes their index."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from webdataset.tariterators import base_plus_ext

from distgan.bounds import parse_json
from distgan.data.images import EXTENSIONS, UNREADABLE, native_channels, open_image, why_unreadable
from distgan.data.index import FORMAT, SHARD_NAME, Header, Index, Shard, block_spans, pack_table
from distgan.data.sources.base import MAX_LABEL, numbered_classes
from distgan.data.storage import Storage
from distgan.data.temporary import temporary_folder
from distgan.errors import UserError

if TYPE_CHECKING:  # the processes that encode need no configuration
    from distgan.config.schema import BadSamples

_LABEL_KEYS = ("cls", "label", "class")

# What tarfile raises for a damaged archive; it passes on what its parsing of numbers and names raises.
_NO_TAR = (tarfile.TarError, ArithmeticError, LookupError, ValueError, OSError, EOFError)


@dataclass
class ScannedSample:
    """Where a sample's image lies in its shard, its size as (width, height), channels and label (−1 for none)."""

    key: str
    offset: int = -1
    length: int = 0
    size: tuple[int, int] = (0, 0)
    channels: int = 0
    label: int = -1


@dataclass(frozen=True)
class ScannedShard:
    """What is in a shard."""

    shard: Shard
    samples: list[ScannedSample]
    checksums: list[int]


def scan_shard(path: Path, bad: BadSamples = "error", skipped: Callable[[str], None] = lambda _: None) -> ScannedShard:
    """Reads a whole shard; of each image its header only.

    Raises UserError, naming shard and key, for a sample that distgan cannot train on, unless bad ones are to be left
    out: then `skipped` is told of it. A shard that cannot be read, or has no good sample, is an error all the same.
    """
    if not re.fullmatch(SHARD_NAME, path.name):
        raise UserError(f"{path.name}: a shard's name has letters, digits, '.', '_' and '-' only; rename it")
    data = path.read_bytes()
    samples: dict[str, ScannedSample] = {}
    faults: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                key, extension = base_plus_ext(member.name)
                if not member.isfile() or not key or extension is None:
                    continue
                content = data[member.offset_data : member.offset_data + member.size]
                try:
                    _add_member(samples.setdefault(key, ScannedSample(key)), extension.lower(), member, content, path)
                except UserError as error:
                    if bad == "error":
                        raise UserError(f"{error}; --bad skip leaves such samples out") from None
                    faults.setdefault(key, str(error))
    except _NO_TAR as error:
        raise UserError(f"{path.name}: not a whole, uncompressed tar file: {error}") from None
    for fault in faults.values():
        skipped(fault)
    good = (each for key, each in samples.items() if each.offset >= 0 and key not in faults)
    found = sorted(good, key=lambda each: each.offset)
    if not found and faults:
        raise UserError(f"{path.name}: none of its {len(faults)} samples can be used; take this shard away")
    if not found:
        raise UserError(f"{path.name}: no images ({', '.join(EXTENSIONS)}) in it")
    shard = Shard(name=path.name, samples=len(found), bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    offsets, lengths = _columns(found)
    spans = block_spans([len(found)], offsets, lengths)
    return ScannedShard(shard, found, [zlib.crc32(data[start:end]) for *_, start, end in spans])


def assemble_index(
    scanned: Sequence[ScannedShard], classes: list[str] | None = None, channels: int | None = None
) -> Index:
    """The index of shards in the given order.

    Without `channels` it is 1 where all images are stored grey, else 3.
    """
    samples = [sample for each in scanned for sample in each.samples]
    offsets, lengths = _columns(samples)
    labels = np.array([sample.label for sample in samples], np.int64)
    checksums = np.array([checksum for each in scanned for checksum in each.checksums], np.uint32)
    if classes is None:
        classes = numbered_classes(labels)
    sides = {side for sample in samples for side in sample.size}
    header = Header(
        format=FORMAT,
        image_size=sides.pop() if len(sides) == 1 else None,
        channels=channels or max(sample.channels for sample in samples),
        samples=len(samples),
        classes=classes,
        shards=[each.shard for each in scanned],
        table_sha256=hashlib.sha256(pack_table(offsets, lengths, labels, checksums)).hexdigest(),
    )
    return Index(header, offsets, lengths, labels, checksums)


def index_shards(storage: Storage, bad: BadSamples = "error", skipped: Callable[[str], None] = lambda _: None) -> Index:
    """Makes and saves the index of all `.tar` files of a folder. Raises UserError as `scan_shard` does, or for none.

    A sample that is left out is not in the index: its bytes stay in the shard, and nobody asks for them.
    """
    names = [name for name in storage.list() if name.endswith(".tar")]
    if not names:
        raise UserError(f"{storage.url}: no .tar files there")
    scanned = []
    with temporary_folder() as folder:
        for name in names:
            path = folder / name
            storage.download(name, path)
            scanned.append(scan_shard(path, bad, skipped))
            path.unlink()
    index = assemble_index(scanned)
    index.save(storage)
    return index


def _add_member(sample: ScannedSample, extension: str, member: tarfile.TarInfo, content: bytes, path: Path) -> None:
    where = f"{path.name}: {member.name}"
    if member.issparse():
        raise UserError(f"{where}: stored as a sparse file; write the shard without")
    if extension in EXTENSIONS:
        if sample.offset >= 0:
            raise UserError(f"{where}: a second image of the same key")
        try:
            with open_image(content, ("PNG", "JPEG", "WEBP")) as image:
                sample.size, sample.channels = image.size, native_channels(image)
                if not all(image.size):
                    raise ValueError("it has no pixels")
        except UNREADABLE as error:
            raise UserError(f"{where}: not a readable image: {why_unreadable(error)}") from None
        sample.offset, sample.length = member.offset_data, member.size
    elif extension == "cls":
        sample.label = _label(content.decode(errors="replace").strip(), where)
    elif extension == "json" and sample.label < 0:
        try:
            attributes = parse_json(content)
        except ValueError as error:
            raise UserError(f"{where}: not valid JSON: {error}") from None
        label = next(
            (attributes[key] for key in _LABEL_KEYS if isinstance(attributes, dict) and key in attributes),
            None,
        )
        if label is not None:
            sample.label = _label(str(label), where)


def _label(text: str, where: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) > MAX_LABEL:
        raise UserError(f"{where}: the label {text[:20]!r} is not a whole number from 0 to {MAX_LABEL}")
    return int(text)


def _columns(samples: Sequence[ScannedSample]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.array([sample.offset for sample in samples], np.int64)
    lengths = np.array([sample.length for sample in samples], np.int64)
    return offsets, lengths
