"""WebDataset shards, also compressed ones, as a source."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from distgan.data.files import BAD
from distgan.data.labels import LabelReader, numbered_classes
from distgan.data.scan import Chosen, EmptyShardError, ScannedShard, class_names, scan_shard
from distgan.data.shard_source import SHARD_SUFFIXES, ShardSource
from distgan.data.sources.addresses import RemoteFile
from distgan.data.sources.image_files import FileSource
from distgan.data.sources.waiting_images import WaitingImages
from distgan.data.tar import is_compressed, unpack
from distgan.errors import UserError
from distgan.storage.local_files import temporary_folder
from distgan.storage.storage import translate_errors

_MOST_SHARD_BYTES = 2**32  # unpacked: a whole shard is in memory


class WebdatasetSource(FileSource):
    """The samples of WebDataset shards, in the order of the shards' names and of their places in them.

    `path` is a folder, a shard, or a pattern in braces, local or at a URL, as `distgan data index` takes it; here
    shards may also be compressed (`.tar.gz`, `.tgz`, `.tar.bz2`, `.tar.xz`). The image and the label of a sample are
    those that `data.scan` finds; `image_column` and `label_column` name others, as `--image` and `--label` of
    `data index`.

    One shard at a time is in memory. The images wait in a temporary file, as large as they are, that is deleted with
    the source.
    """

    def __init__(self, path: str, image_column: str | None = None, label_column: str | None = None) -> None:
        """Raises UserError for shards that are missing or damaged, or none of whose images can be read."""
        source = ShardSource.parse(path)
        self._folder, self._shards = source.folder, source.list()
        if not self._shards:
            raise UserError(f"{path}: no {', '.join(SHARD_SUFFIXES)} files there")
        self._images, self._starts, self._faults = WaitingImages(), list[int](), dict[int, str]()
        chosen, labels, scanned, empty = Chosen(image_column, label_column), LabelReader(), list[ScannedShard](), 0
        with temporary_folder() as folder:
            for name in self._shards:
                faults = list[str]()
                self._starts.append(len(self._images))
                with _unpacked(RemoteFile(self._folder, name), folder) as shard:
                    try:
                        found = scan_shard(shard, "skip", faults.append, chosen, labels, name)
                    except EmptyShardError:
                        empty += 1
                        continue
                    data = memoryview(shard.read_bytes())
                scanned.append(found)
                self._images.extend(bytes(data[each.offset : each.offset + each.length]) for each in found.samples)
                self._faults |= dict(enumerate(faults, len(self._images)))
                self._images.extend([b""] * len(faults))
        if not scanned:
            raise UserError(f"{path}: no images in it: its shards are empty archives ({self._shards[0]})")
        names = class_names(labels, None, scanned)
        self._labels: list[int] = []
        for each in scanned:
            self._labels += [sample.label for sample in each.samples] + [-1] * each.left_out.pop(BAD, 0)
        self.classes = numbered_classes(np.array(self._labels)) if names is None else names
        self.left_out = +sum((each.left_out for each in scanned), Counter({"empty shards": empty}))

    def __len__(self) -> int:
        return len(self._labels)

    def file(self, number: int) -> bytes:
        if number in self._faults:
            raise UserError(self._faults[number])
        return self._images[number]

    def label(self, number: int) -> int:
        return self._labels[number]

    def name(self, number: int) -> str:
        place = bisect_right(self._starts, number) - 1
        return f"{self._folder.url}/{self._shards[place]}: sample {number - self._starts[place]}"


@contextmanager
def _unpacked(file: RemoteFile, folder: Path) -> Iterator[Path]:
    """The shard as a plain tar file on the disk; what is written into `folder` for it is removed."""
    with file.on_disk(_MOST_SHARD_BYTES) as local:
        with translate_errors(str(file)):
            compressed = is_compressed(local)
        if not compressed:
            yield local
            return
        try:
            with translate_errors(str(file)):
                unpack(local, folder / "shard.tar", str(file), _MOST_SHARD_BYTES)
            yield folder / "shard.tar"
        finally:
            (folder / "shard.tar").unlink(missing_ok=True)
