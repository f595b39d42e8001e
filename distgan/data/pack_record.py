"""The record of an unfinished pack: which shards it has finished, and of what. The same command continues it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from distgan.bounds import MOST_RECORD_BYTES, parse_json
from distgan.config.plugins import error_text
from distgan.data.encode import EncodedImage, PackOptions, encode
from distgan.data.index import INDEX_NAME
from distgan.data.scan import ScannedShard, scan_shard
from distgan.data.shard_writer import RECORD_NAME, shard_name
from distgan.data.sources.base import Source
from distgan.data.sources.image_files import FileSource
from distgan.errors import UserError
from distgan.storage.lease import LeaseLostError, check_unclaimed
from distgan.storage.local_files import temporary_folder
from distgan.storage.storage import NotFoundError, Storage
from distgan.text import plural

_OTHERWISE = "choose another place, or delete it"

_log = logging.getLogger(__name__)

_Count = Annotated[int, Field(ge=0, lt=2**62)]


class Done(BaseModel):
    """What is done at the end of a shard; counts are of all images up to there.

    Attributes:
        stop: place in the order of the pack after the shard's last image.
        bad: images that were left out.
        recovered, stretched, kept: as of `EncodedImage`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    stop: _Count = 0
    bad: _Count = 0
    recovered: _Count = 0
    stretched: _Count = 0
    kept: _Count = 0
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""


class PackRecord(BaseModel):
    """The content of `packing.json`.

    Attributes:
        options: those that decide the shards' bytes, as on the command line.
        source: SHA-256 of the source's kind, classes and names of images, without their folders.
        shards: the finished ones, in order.
    """

    model_config = ConfigDict(extra="forbid")
    format: Literal["distgan-pack-1"] = "distgan-pack-1"
    options: dict[str, str] = Field(max_length=100)
    source: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    shards: list[Done] = Field(default_factory=list)

    @property
    def done(self) -> Done:
        """What is done at the end of the last finished shard."""
        return self.shards[-1] if self.shards else Done()

    @classmethod
    def of(cls, source: Source, options: PackOptions) -> PackRecord:
        """The record of a pack that begins."""
        return cls(options=_described(options), source=_fingerprint(source))

    def add(self, shard: Done, storage: Storage) -> None:
        """Records a shard that has been written."""
        self.shards.append(shard)
        try:
            storage.write_bytes(RECORD_NAME, self.model_dump_json().encode() + b"\n")
        except BaseException:
            self.shards.pop()
            raise


def read_record(storage: Storage) -> PackRecord | None:
    """The record in a folder; None if there is none. Raises UserError for a damaged one."""
    try:
        data = storage.read_bytes(RECORD_NAME, most=MOST_RECORD_BYTES)
    except NotFoundError:
        return None
    try:
        record = PackRecord.model_validate(parse_json(data))
        if any(after.stop <= before.stop for before, after in pairwise([Done(), *record.shards])):
            raise ValueError("shards out of order")
    except ValueError:
        raise UserError(
            f"{storage.url}/{RECORD_NAME}: damaged, or not the record of an unfinished pack; {_OTHERWISE}"
        ) from None
    return record


def check_finished(storage: Storage) -> None:
    """Raises UserError where a process packs, or where a pack is unfinished, so that shards may be missing."""
    check_unclaimed(storage)
    if _is_there(storage, RECORD_NAME) and not _is_there(storage, INDEX_NAME):
        raise UserError(
            f"{storage.url}: a pack into it is unfinished, so shards are missing; give its command again, which "
            f"continues it (or delete {RECORD_NAME}, if the shards are what you want)"
        )


def check_same_pack(found: PackRecord, asked: PackRecord, options: PackOptions, samples: int, url: str) -> None:
    """Raises UserError unless a pack of so many `samples` can continue the one that was found."""
    for name in {**asked.options, **found.options}:
        there, here = found.options.get(name, "none"), asked.options.get(name, "none")
        if there != here:
            raise UserError(
                f"{url}: holds an unfinished pack with --{name} {there}, not {here}; continue it with its own options, "
                f"{_OTHERWISE}"
            )
    if found.source != asked.source or found.done.stop > samples:
        raise UserError(
            f"{url}: holds an unfinished pack of another source, or of other files or labels; continue it with its "
            f"own, {_OTHERWISE}"
        )
    if options.bad == "error" and found.done.bad:
        raise UserError(
            f"{url}: holds an unfinished pack that has left bad images out; continue it with --bad skip, {_OTHERWISE}"
        )


def verified_shards(
    found: PackRecord,
    storage: Storage,
    source: Source,
    options: PackOptions,
    order: Sequence[int],
    on_progress: Callable[[int], None] | None = None,
) -> list[ScannedShard]:
    """The finished shards, read and compared with their checksums, up to the first that is missing or damaged.

    The last image of each is encoded again, to see that the source still has the same images. `on_progress` receives
    the number of images so far. Raises UserError where it has others.
    """
    scanned: list[ScannedShard] = []
    with temporary_folder() as folder:
        for done in found.shards:
            path = folder / shard_name(len(scanned))
            try:
                storage.download(path.name, path)
            except NotFoundError:
                shard = None
            else:
                shard = _scanned(path, done)
            if shard is None:
                _log.warning("%s/%s: missing or damaged; packing goes on from there", storage.url, path.name)
                break
            last = shard.samples[-1]
            data = path.read_bytes()[last.offset : last.offset + last.length]
            _check_image(source, options, order[done.stop - 1], data, last.label, storage.url)
            path.unlink()
            scanned.append(shard)
            if on_progress is not None:
                on_progress(done.stop)
    return scanned


@contextmanager
def logged(record: PackRecord, url: str) -> Iterator[None]:
    """Logs how much of a pack is there as it is continued, and what stays if the block fails."""
    if record.shards:
        _log.warning("%s: continuing an unfinished pack: %s", url, _progress(record))
    try:
        yield
    except LeaseLostError:
        raise
    except BaseException:
        if record.shards:
            _log.warning("%s: unfinished, the same command continues it: %s", url, _progress(record))
        raise


def _progress(record: PackRecord) -> str:
    return f"{plural(len(record.shards), 'shard')} with {record.done.stop:,} images are there"


def _is_there(storage: Storage, name: str) -> bool:
    try:
        storage.read_start(name, 1)
    except NotFoundError:
        return False
    return True


def _scanned(path: Path, done: Done) -> ScannedShard | None:
    """The shard; None if it has not the bytes that were written."""
    try:
        shard = scan_shard(path)
    except UserError:
        return None
    return shard if shard.shard.sha256 == done.sha256 else None


def _check_image(source: Source, options: PackOptions, number: int, data: bytes, label: int, url: str) -> None:
    again = encode(source, options, number)
    if not isinstance(again, EncodedImage) or (again.data, again.label) != (data, label):
        raise UserError(
            f"{url}: holds an unfinished pack in which {source.name(number)} was another image or had another label, "
            f"or was encoded by another version of Pillow; {_OTHERWISE}"
        )


def _described(options: PackOptions) -> dict[str, str]:
    """The options that decide the shards' bytes, as on the command line. `--bad` decides which images there are."""
    return {
        "size": str(options.image_size),
        "channels": str(options.channels),
        "encoding": options.encoding,
        "seed": str(options.seed),
        "shard-mb": f"{options.shard_bytes / 2**20:.12g}",
        "fit": options.fit,
        "crop": "none" if options.crop is None else str(options.crop),
        "background": f"#{bytes(options.background).hex()}",
    }


def _fingerprint(source: Source) -> str:
    """Of the source's kind and classes, and of the names of its images, with labels where those are known unread."""
    kind = type(source)
    digest = hashlib.sha256(json.dumps([kind.__module__, kind.__qualname__, list(source.classes)]).encode())
    files = source if isinstance(source, FileSource) else None
    try:
        for number in range(len(source)):
            label = "" if files is None else files.label(number)
            digest.update(f"\n{label}/{source.name(number).rpartition('/')[2]}".encode(errors="surrogatepass"))
    except Exception as error:
        if isinstance(error, UserError) or kind.__module__.startswith("distgan."):
            raise
        raise UserError(
            f"{kind.__module__}:{kind.__qualname__}: the name or label of an image: it raised {error_text(error)}"
        ) from error
    return digest.hexdigest()
