"""Reads WebDataset shards, whoever wrote them, and assembles their index."""

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
from distgan.data.index import FORMAT, Header, Index, Shard, block_spans, pack_table
from distgan.data.labels import LABEL_LIKE, MAX_LABEL, LabelReader, numbered_classes
from distgan.data.shard_source import check_shard_name
from distgan.data.tar import tar_members
from distgan.errors import UserError

if TYPE_CHECKING:
    from distgan.config.schema import BadSamples


# Where labels are looked for in a JSON object.
_JSON_KEYS = ("cls", "label", "class")

_LINKS = {tarfile.LNKTYPE: "hard-linked", tarfile.SYMTYPE: "symlinked"}

_METADATA = "__[^/]*__($|/)"  # WebDataset's reader ignores these

# The members of a key, each with its extension.
_Members = list[tuple[str, tarfile.TarInfo]]


@dataclass(frozen=True)
class Chosen:
    """Which members of a sample are read where its key has several, or other ones than usual.

    Attributes:
        image: an extension with or without the format's, as `seg` or `seg.png` for KEY.seg.png.
        label: an extension, or a key of the JSON object. None for `cls`, or the JSON keys cls, label and class.
    """

    image: str | None = None
    label: str | None = None


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
    """The content of a shard.

    Attributes:
        left_out: how many of its members were left out, by reason.
        unread: how many samples have no label but a member or a JSON key that often holds one, by its name.
    """

    shard: Shard
    samples: list[ScannedSample]
    checksums: list[int]
    left_out: Counter[str]
    unread: Counter[str]


class EmptyShardError(UserError):
    """A shard is a whole archive without members."""


def scan_shard(
    path: Path,
    bad: BadSamples = "error",
    on_skip: Callable[[str], None] | None = None,
    chosen: Chosen = Chosen(),
    labels: LabelReader | None = None,
    name: str | None = None,
) -> ScannedShard:
    """Reads a whole shard, but only the header of each image. `labels` is the data set's, `name` by default the file's.

    Raises EmptyShardError for an archive without members, and UserError, naming shard and key, for a sample that
    distgan cannot train on. With `bad="skip"` such samples
    are left out, and `on_skip` receives the reasons; a shard that is damaged or has no good sample is still an error.
    """
    name = path.name if name is None else name
    try:
        check_shard_name(name)
    except ValueError as error:
        raise UserError(f"{name}: {error}; rename it") from None
    data = path.read_bytes()
    if not data:
        raise UserError(f"{name}: it has 0 bytes, which no tar file has; write it again, or take it away")
    left_out, unread = Counter[str](), Counter[str]()
    reader = _SampleReader(name, data, chosen, labels or LabelReader(), left_out, unread)
    faults: list[str] = []
    found: list[ScannedSample] = []
    everything = tar_members(data, name)
    if not everything:
        raise EmptyShardError(f"{name}: an empty archive, without samples; take it away")
    for key, members in _by_key(everything, left_out).items():
        try:
            sample = reader.sample(key, members)
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
        raise UserError(f"{name}: none of its {len(faults)} samples can be used; take this shard away")
    if not found:
        sought = f" .{chosen.image}" if chosen.image else f" ({', '.join(EXTENSIONS)})"
        raise UserError(f"{name}: no images{sought} in it{_summary(left_out)}")
    if faults:
        left_out[BAD] = len(faults)
    digest = hashlib.sha256(data).hexdigest()
    shard = Shard(name=name, samples=len(found), bytes=len(data), sha256=digest)
    offsets, lengths = _columns(found)
    spans = block_spans([len(found)], offsets, lengths)
    checksums = [zlib.crc32(data[start:end]) for *_, start, end in spans]
    return ScannedShard(shard, found, checksums, left_out, unread)


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


def class_names(
    labels: LabelReader, classes: Sequence[str] | None, scanned: Sequence[ScannedShard]
) -> list[str] | None:
    """The names of the classes; None where they are numbers. Words get their final numbers."""
    if not labels.has_words:
        return None if classes is None else list(classes)
    samples = [sample for each in scanned for sample in each.samples if sample.label >= 0]
    words, numbers = labels.sorted_words(sample.label for sample in samples)
    for sample in samples:
        sample.label = numbers[sample.label]
    return words


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


@dataclass(frozen=True)
class _SampleReader:
    """Reads the samples of one shard, whose bytes are `data`. See `scan_shard`."""

    name: str
    data: bytes
    chosen: Chosen
    labels: LabelReader
    left_out: Counter[str]
    unread: Counter[str]

    def sample(self, key: str, members: _Members) -> ScannedSample:
        """The sample of a key; its offset is −1 without an image. Raises UserError for a bad sample."""
        sample, kinds = ScannedSample(key), defaultdict[str, _Members](list)
        for extension, member in members:
            kind = extension.rpartition(".")[2]
            kinds["image" if kind in EXTENSIONS else kind].append((extension, member))
        image, attributes = self._image(kinds["image"]), self._one_of(kinds["json"], "json")
        label = self._label_member(members, kinds)
        if image is not None:
            self._add_image(sample, image, self._content(image))
        if label is not None:
            text = self._content(label).decode(errors="replace").strip()
            sample.label = self.labels.read(text, f"{self.name}: {label.name}")
        elif attributes is not None:
            self._add_attributes(sample, self._content(attributes), f"{self.name}: {attributes.name}")
        self._count(kinds, image, [each for each in (image, label, attributes) if each is not None])
        if image is not None and sample.label < 0:
            self.unread.update(f".{extension}" for extension, _ in members if LABEL_LIKE & set(extension.split(".")))
        return sample

    def _image(self, images: _Members) -> tarfile.TarInfo | None:
        if self.chosen.image is not None:
            name = self.chosen.image.lower()
            images = [each for each in images if each[0] == name or each[0].rpartition(".")[0] == name]
        return self._one_of(images, "image")

    def _label_member(self, members: _Members, kinds: Mapping[str, _Members]) -> tarfile.TarInfo | None:
        name = self.chosen.label
        if name is None:
            return self._one_of(kinds["cls"], "cls")
        exact = [each for each in members if each[0] == name.lower()]
        return self._one_of(exact or [each for each in members if each[0].endswith(f".{name.lower()}")], "cls")

    def _one_of(self, members: _Members, kind: str) -> tarfile.TarInfo | None:
        """The member of a kind: the one whose extension is just the kind, or else the only one.

        `0.png` has priority over `0.mask.png`. Raises UserError for an ambiguity; ambiguous attributes give None.
        """
        plain = [each for each in members if "." not in each[0]]
        found = plain or members
        if len(found) > 1 and (plain or kind != "json"):
            what = {"image": "image", "cls": "label"}.get(kind, kind)
            names = sorted({f".{extension}" for extension, _ in found})
            where = f"{self.name}: {found[1][1].name}: a second {what} of the same key, which ends at the first dot"
            if len(names) == len(found) and kind != "json":
                where += f" ({', '.join(names[:5])}); choose one with --{what} {names[0][1:]}"
            raise UserError(where)
        return found[0][1] if len(found) == 1 else None

    def _content(self, member: tarfile.TarInfo) -> bytes:
        if member.issparse():
            raise UserError(f"{self.name}: {member.name}: stored as a sparse file; write the shard without")
        return self.data[member.offset_data : member.offset_data + member.size]

    def _add_image(self, sample: ScannedSample, member: tarfile.TarInfo, content: bytes) -> None:
        try:
            with open_image(content, FORMATS) as image:
                sample.size, sample.channels = image.size, native_channels(image)
                if not all(image.size):
                    raise ValueError("it has no pixels")
        except UNREADABLE as error:
            reason = unreadable_reason(error)
            raise UserError(f"{self.name}: {member.name}: not a readable image: {reason}") from None
        sample.offset, sample.length = member.offset_data, member.size

    def _add_attributes(self, sample: ScannedSample, content: bytes, where: str) -> None:
        try:
            attributes = parse_json(content)
        except ValueError as error:
            raise UserError(f"{where}: not valid JSON: {error}") from None
        if not isinstance(attributes, dict):
            return
        sought = _JSON_KEYS if self.chosen.label is None else (self.chosen.label,)
        keys = [key for key in sought if attributes.get(key) is not None]
        if keys:
            sample.label = self.labels.read(_text_of(attributes[keys[0]], where), where)
        elif sample.offset >= 0:
            self.unread.update(f'"{key}" of .json' for key in attributes if key.lower() in LABEL_LIKE)

    def _count(self, kinds: Mapping[str, _Members], image: tarfile.TarInfo | None, read: list[tarfile.TarInfo]) -> None:
        """Counts what is left out of a sample, of which the members `read` are read."""
        for kind, members in kinds.items():
            for _, member in members:
                if image is None and (kind in {"image", "cls", "json"} or member in read):
                    self.left_out[WITHOUT_IMAGE] += 1
                elif kind == "image" and member is not image:
                    self.left_out["beside an image"] += 1
                elif member not in read:
                    self.left_out[kind_of_file(member.name)] += 1


def _text_of(value: object, where: str) -> str:
    """A label in JSON as text. Raises UserError for a list and the like."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UserError(f"{where}: the label {str(value)[:20]!r} is not a whole number from 0 to {MAX_LABEL} or a word")
    return str(value).strip()


def _summary(left_out: Counter[str]) -> str:
    return f"; not taken: {describe_counts(left_out)}" if left_out else ""


def _columns(samples: Sequence[ScannedSample]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.array([sample.offset for sample in samples], np.int64)
    lengths = np.array([sample.length for sample in samples], np.int64)
    return offsets, lengths
