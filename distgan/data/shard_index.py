"""Makes the index of WebDataset shards that other software wrote, beside them or elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from distgan.data.contents import SHARDS, contents_of
from distgan.data.index import INDEX_NAME, Index
from distgan.data.labels import LabelReader
from distgan.data.pack_record import check_finished
from distgan.data.scan import Chosen, EmptyShardError, ScannedShard, assemble_index, class_names, scan_shard
from distgan.data.shard_source import ShardSource
from distgan.errors import UserError
from distgan.storage.local_files import temporary_folder
from distgan.storage.storage import Storage
from distgan.storage.storage_errors import StorageError, UnavailableError
from distgan.text import command

if TYPE_CHECKING:
    from distgan.config.schema import BadSamples

_ELSEWHERE = "keep the index elsewhere, with --index FOLDER"


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
    on_empty: Callable[[str], None] | None = None,
) -> Index:
    """Makes and saves the index of shards; of a folder, that of all `.tar` files below it.

    A sample that is left out is not in the index. Its bytes stay in the shard and are never read.

    Args:
        to: the folder of the index; by default that of the shards.
        classes: names of the classes; by default the words or numbers that are found.
        on_progress: called with the number of shards that are read, and of all.
        on_empty: called with the name of each shard that is left out because it is an archive without members.
        on_unread: called, where no sample has a label, with what often holds one and is not read: see `ScannedShard`.

    Raises UserError as `scan_shard` does, if there are no shards, if a pack there is unfinished, and where
    the index cannot be written.
    """
    source = ShardSource(shards.url, shards) if isinstance(shards, Storage) else shards
    folder = source.folder
    elsewhere = to is not None and to != folder
    place = folder if to is None else to
    listed = source.list()
    names = [name for name in listed if name.endswith(".tar")]
    if not names:
        raise UserError(f"{folder.url}: no .tar files there{_remedy(source, listed)}")
    _check_whole(folder, names, elsewhere=elsewhere)
    _check_place(place, elsewhere)
    labels, scanned, etags = LabelReader(classes), list[ScannedShard](), list[str | None]()
    with temporary_folder() as local:
        for done, name in enumerate(names, 1):
            etag = folder.facts(name).etag if elsewhere else None
            folder.download(name, path := local / "shard.tar")
            try:
                scanned.append(scan_shard(path, bad, on_skip, chosen, labels, name))
                etags.append(etag)
            except EmptyShardError:
                if on_empty is not None:
                    on_empty(name)
            path.unlink()
            if on_progress is not None:
                on_progress(done, len(names))
    if not scanned:
        raise EmptyShardError(
            f"{source.url}: nothing to index: each of its .tar files is an empty archive ({names[0]})"
        )
    left_out = Counter({"compressed shards": len(listed) - len(names), "empty shards": len(names) - len(scanned)})
    index = assemble_index(scanned, class_names(labels, classes, scanned), left_out=+left_out)
    if elsewhere:
        index = index.elsewhere(source.url, etags)
    if on_unread is not None and not (index.labels >= 0).any():
        on_unread(sum((each.unread for each in scanned), Counter()))
    _save(index, place, elsewhere)
    return index


def _check_whole(folder: Storage, names: Sequence[str], *, elsewhere: bool) -> None:
    """Raises UserError where a pack into one of the folders of the shards `names` is unfinished.

    Without the right to list, a bucket denies access to objects that do not exist: no error if the index is elsewhere.
    """
    for part in sorted({name.rpartition("/")[0] for name in names}):
        try:
            check_finished(folder.child(part) if part else folder)
        except UnavailableError:
            raise
        except StorageError:
            if not elsewhere:
                raise


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


def _remedy(source: ShardSource, compressed: Sequence[str]) -> str:
    """What to do with a folder, or a file in its place, that has no shards but compressed ones."""
    found = contents_of(source.url)
    if found is None and compressed:
        use = command("data", "pack", source.url, "--format", "webdataset")
        return (
            f" but compressed ones ({compressed[0]}), of which training cannot read parts; use `{use} --out FOLDER`, "
            f"or --format folder for an archive of class folders"
        )
    if found is not None and found.what != SHARDS:  # folders with such names
        return f" but {found.what}; {found.advice}"
    if source.folder.protocol in {"http", "https"}:
        return "; where a server has no list of its files, name them: URL/shard-{000..009}.tar"
    return ""
