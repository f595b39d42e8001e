"""Makes the index of WebDataset shards that other software wrote, beside them or elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from distgan.data.contents import OF_A_DATA_SET, contents_of
from distgan.data.index import INDEX_NAME, Index
from distgan.data.labels import LabelReader
from distgan.data.pack_record import check_finished
from distgan.data.scan import Chosen, ScannedShard, assemble_index, scan_shard
from distgan.data.shard_source import ShardSource
from distgan.errors import UserError
from distgan.storage.local_files import temporary_folder
from distgan.storage.storage import Storage
from distgan.storage.storage_errors import StorageError, UnavailableError

if TYPE_CHECKING:
    from distgan.config.schema import BadSamples

_ELSEWHERE = "keep the index elsewhere, with --index FOLDER"

_COMPRESSED = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


def index_shards(
    shards: ShardSource | Storage,
    bad: BadSamples = "error",
    on_skip: Callable[[str], None] | None = None,
    *,
    to: Storage | None = None,
    chosen: Chosen = Chosen(),  # noqa: B008 - frozen
    classes: Sequence[str] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_unread: Callable[[Counter[str]], None] | None = None,
) -> Index:
    """Makes and saves the index of shards; of a folder, that of all its `.tar` files.

    A sample that is left out is not in the index. Its bytes stay in the shard and are never read.

    Args:
        to: the folder of the index; by default that of the shards.
        classes: names of the classes; by default the words or numbers that are found.
        on_progress: called with the number of shards that are read, and of all.
        on_unread: called, where no sample has a label, with what often holds one and is not read: see `ScannedShard`.

    Raises UserError as `scan_shard` does, if there are no shards, if a pack there is unfinished, and where
    the index cannot be written.
    """
    source = ShardSource(shards.url, shards) if isinstance(shards, Storage) else shards
    folder = source.folder
    elsewhere = to is not None and to != folder
    place = folder if to is None else to
    names = source.list()
    if not names:
        raise UserError(f"{folder.url}: no .tar files there{_remedy(folder)}")
    try:
        check_finished(folder)
    except UnavailableError:
        raise
    except StorageError:  # a bucket without the right to list denies access to objects that do not exist
        if not elsewhere:
            raise
    _check_place(place, elsewhere)
    labels, scanned, etags = LabelReader(classes), list[ScannedShard](), list[str | None]()
    with temporary_folder() as local:
        for name in names:
            path = local / name
            etags.append(folder.facts(name).etag if elsewhere else None)
            folder.download(name, path)
            scanned.append(scan_shard(path, bad, on_skip, chosen, labels))
            path.unlink()
            if on_progress is not None:
                on_progress(len(scanned), len(names))
    index = assemble_index(scanned, _class_names(labels, classes, scanned))
    if elsewhere:
        index = index.elsewhere(source.url, etags)
    if on_unread is not None and not (index.labels >= 0).any():
        on_unread(sum((each.unread for each in scanned), Counter()))
    _save(index, place, elsewhere)
    return index


def _check_place(place: Storage, elsewhere: bool) -> None:
    """Raises UserError where the index cannot be written, as far as that is known before the shards are read."""
    if place.protocol in {"http", "https"}:
        raise UserError(f"{place.url}: a web server takes no files; {_ELSEWHERE}")
    if not elsewhere:
        return
    check_finished(place)
    present = place.list()  # an index without shards is one that a killed call wrote in part, or of shards elsewhere
    if INDEX_NAME in present and any(name.endswith(".tar") for name in present):
        raise UserError(f"--index {place.url}: holds a data set with its own shards; give another folder")
    place.prepare()


def _save(index: Index, place: Storage, elsewhere: bool) -> None:
    try:
        index.save(place)
    except UnavailableError:
        raise
    except StorageError as error:
        if elsewhere:
            raise
        raise type(error)(f"{error}; or {_ELSEWHERE}") from error


def _class_names(
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


def _remedy(folder: Storage) -> str:
    """What to do with a folder, or a file in its place, that has no shards."""
    found = contents_of(folder.url)
    compressed = next((name for name in folder.list() or [folder.url] if name.endswith(_COMPRESSED)), None)
    if compressed is not None and (found is None or found.format != "cifar"):
        return f"; unpack {compressed} and the like to .tar: training reads parts of them"
    if found is not None and found.format is None and found.what not in OF_A_DATA_SET:
        return f"; name the folder that has them: {found.address}"
    if found is not None:
        return f" but {found.what}; {found.advice}"
    if folder.protocol in {"http", "https"}:
        return "; where a server has no list of its files, name them: URL/shard-{000..009}.tar"
    return ""
