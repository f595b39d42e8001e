"""Reads WebDataset shards, whoever wrote them, and makes their index."""

from __future__ import annotations

import hashlib
import re
import tarfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distgan.bounds import parse_json
from distgan.data.files import (
    BAD,
    HIDDEN,
    SPECIAL,
    WITHOUT_IMAGE,
    describe_counts,
    is_system,
    kind_of_file,
    main_reasons,
)
from distgan.data.images import EXTENSIONS, FORMATS, UNREADABLE, native_channels, open_image, unreadable_reason
from distgan.data.index import FORMAT, SHARD_NAME, Header, Index, Shard, block_spans, pack_table
from distgan.data.sources.base import MAX_LABEL, numbered_classes
from distgan.data.tar import tar_members
from distgan.errors import UserError
from distgan.storage.lease import check_unclaimed
from distgan.storage.local_files import temporary_folder
from distgan.storage.storage import Storage

if TYPE_CHECKING:
    from distgan.config.schema import BadSamples


_LABEL_KEYS = ("cls", "label", "class")

_LINKS = {tarfile.LNKTYPE: "hard-linked", tarfile.SYMTYPE: "symlinked"}

_METADATA = "__[^/]*__($|/)"  # WebDataset's reader ignores these

# The members of a key, each with its extension.
_Members = list[tuple[str, tarfile.TarInfo]]


@dataclass
class ScannedSample:
    """A sample: its image's position in the shard, size as (width, height), channels, and label (−1 for none)."""

    key: str
    offset: int = -1
    length: int = 0
    size: tuple[int, int] = (0, 0)
    channels: int = 0
    label: int = -1


@dataclass(frozen=True)
class ScannedShard:
    """The content of a shard, and how many of its members were left out, by reason."""

    shard: Shard
    samples: list[ScannedSample]
    checksums: list[int]
    left_out: Counter[str]


def scan_shard(path: Path, bad: BadSamples = "error", on_skip: Callable[[str], None] | None = None) -> ScannedShard:
    """Reads a whole shard, but only the header of each image.

    Raises UserError, naming shard and key, for a sample that distgan cannot train on. With `bad="skip"` such samples
    are left out, and `on_skip` receives the reasons; a shard that is damaged or has no good sample is still an error.
    """
    if not re.fullmatch(SHARD_NAME, path.name):
        raise UserError(f"{path.name}: a shard's name has letters, digits, '.', '_' and '-' only; rename it")
    data = path.read_bytes()
    left_out: Counter[str] = Counter()
    faults: list[str] = []
    found: list[ScannedSample] = []
    for key, members in _by_key(tar_members(data, path.name), left_out).items():
        try:
            sample = _sample(key, members, data, path, left_out)
        except UserError as error:
            if bad == "error":
                raise UserError(f"{error}; --bad skip leaves such samples out") from None
            if on_skip is not None:
                on_skip(str(error))
            faults.append(str(error))
            continue
        if sample.offset >= 0:
            found.append(sample)
    found.sort(key=lambda each: each.offset)
    if not found and faults:
        raise UserError(f"{path.name}: none of its {len(faults)} samples can be used; take this shard away")
    if not found:
        raise UserError(f"{path.name}: no images ({', '.join(EXTENSIONS)}) in it{_summary(left_out)}")
    if faults:
        left_out[BAD] = len(faults)
    shard = Shard(name=path.name, samples=len(found), bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    offsets, lengths = _columns(found)
    spans = block_spans([len(found)], offsets, lengths)
    checksums = [zlib.crc32(data[start:end]) for *_, start, end in spans]
    return ScannedShard(shard, found, checksums, left_out)


def assemble_index(
    scanned: Sequence[ScannedShard],
    classes: list[str] | None = None,
    channels: int | None = None,
    left_out: Mapping[str, int] | None = None,
) -> Index:
    """The index of shards in the given order.

    By default `channels` is 1 if all images are stored gray, else 3. `left_out` counts what is in no shard.
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
        left_out=main_reasons(sum((each.left_out for each in scanned), Counter(left_out or {}))),
    )
    return Index(header, offsets, lengths, labels, checksums)


def index_shards(storage: Storage, bad: BadSamples = "error", on_skip: Callable[[str], None] | None = None) -> Index:
    """Makes and saves the index of all `.tar` files of a folder.

    Raises UserError as `scan_shard` does, if there are no shards, and if a pack is running there or was killed.
    A sample that is left out is not in the index. Its bytes stay in the shard and are never read.
    """
    check_unclaimed(storage)
    names = [name for name in storage.list() if name.endswith(".tar")]
    if not names:
        raise UserError(f"{storage.url}: no .tar files there")
    scanned = []
    with temporary_folder() as folder:
        for name in names:
            path = folder / name
            storage.download(name, path)
            scanned.append(scan_shard(path, bad, on_skip))
            path.unlink()
    index = assemble_index(scanned)
    index.save(storage)
    return index


def _by_key(members: list[tarfile.TarInfo], left_out: Counter[str]) -> dict[str, _Members]:
    """The regular files by key, each with its extension. Names are split as in WebDataset's reader."""
    from webdataset.tariterators import base_plus_ext  # imports torch

    grouped: dict[str, _Members] = {}
    for member in members:
        key, extension = base_plus_ext(member.name)
        if member.isdir():
            continue
        if not member.isreg():
            left_out[_LINKS.get(member.type, SPECIAL)] += 1
        elif any(is_system(part) for part in member.name.split("/")):
            left_out[HIDDEN] += 1
        elif re.match(_METADATA, member.name):
            left_out["metadata"] += 1
        elif not key or extension is None:
            left_out["without a key"] += 1
        else:
            grouped.setdefault(key, []).append((extension.lower(), member))
    return grouped


def _sample(key: str, members: _Members, data: bytes, path: Path, left_out: Counter[str]) -> ScannedSample:
    """The sample of a key; its offset is −1 without an image. Raises UserError for a bad sample."""
    sample, kinds = ScannedSample(key), defaultdict[str, _Members](list)
    for extension, member in members:
        kind = extension.rpartition(".")[2]
        kinds["image" if kind in EXTENSIONS else kind].append((extension, member))
    image, label, attributes = (_one_of(kinds[kind], kind, path) for kind in ("image", "cls", "json"))
    if image is not None:
        _add_image(sample, image, _content(image, data, path), path)
    if label is not None:
        text = _content(label, data, path).decode(errors="replace").strip()
        sample.label = _label(text, f"{path.name}: {label.name}")
    elif attributes is not None:
        _add_attributes(sample, _content(attributes, data, path), f"{path.name}: {attributes.name}")
    for kind, several in kinds.items():
        for _, member in several:
            if kind in {"image", "cls", "json"} and image is None:
                left_out[WITHOUT_IMAGE] += 1
            elif kind == "image" and member is not image:
                left_out["beside an image"] += 1
            elif member not in (image, label, attributes):
                left_out[kind_of_file(member.name)] += 1
    return sample


def _one_of(members: _Members, kind: str, path: Path) -> tarfile.TarInfo | None:
    """The member of a kind: the one whose extension is just the kind, or else the only one.

    `0.png` has priority over `0.mask.png`. Raises UserError for an ambiguity; ambiguous attributes give None.
    """
    plain = [member for extension, member in members if "." not in extension]
    found = plain or [member for _, member in members]
    if len(found) > 1 and (plain or kind != "json"):
        what = {"image": "image", "cls": "label"}.get(kind, kind)
        raise UserError(f"{path.name}: {found[1].name}: a second {what} of the same key, which ends at the first dot")
    return found[0] if len(found) == 1 else None


def _content(member: tarfile.TarInfo, data: bytes, path: Path) -> bytes:
    if member.issparse():
        raise UserError(f"{path.name}: {member.name}: stored as a sparse file; write the shard without")
    return data[member.offset_data : member.offset_data + member.size]


def _add_image(sample: ScannedSample, member: tarfile.TarInfo, content: bytes, path: Path) -> None:
    try:
        with open_image(content, FORMATS) as image:
            sample.size, sample.channels = image.size, native_channels(image)
            if not all(image.size):
                raise ValueError("it has no pixels")
    except UNREADABLE as error:
        raise UserError(f"{path.name}: {member.name}: not a readable image: {unreadable_reason(error)}") from None
    sample.offset, sample.length = member.offset_data, member.size


def _add_attributes(sample: ScannedSample, content: bytes, where: str) -> None:
    try:
        attributes = parse_json(content)
    except ValueError as error:
        raise UserError(f"{where}: not valid JSON: {error}") from None
    keys = [key for key in _LABEL_KEYS if isinstance(attributes, dict) and attributes.get(key) is not None]
    if keys:
        sample.label = _label(str(attributes[keys[0]]), where)


def _summary(left_out: Counter[str]) -> str:
    return f"; not taken: {describe_counts(left_out)}" if left_out else ""


def _label(text: str, where: str) -> int:
    """The label in a text: a whole number, also written as `1.0`."""
    if not re.fullmatch(r"[0-9]{1,9}(\.0{1,9})?", text) or float(text) > MAX_LABEL:
        raise UserError(f"{where}: the label {text[:20]!r} is not a whole number from 0 to {MAX_LABEL}")
    return int(float(text))


def _columns(samples: Sequence[ScannedSample]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.array([sample.offset for sample in samples], np.int64)
    lengths = np.array([sample.length for sample in samples], np.int64)
    return offsets, lengths
