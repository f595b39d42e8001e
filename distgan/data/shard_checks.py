"""Whether shards that lie elsewhere than their index are still those that were indexed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from distgan.data.index import Index, Shard, index_command
from distgan.errors import UserError
from distgan.storage.storage import FileFacts, NotFoundError, Storage

_REQUESTS = 16  # at once


def open_index(storage: Storage) -> Index:
    """The index of a data set, whose shards, if they lie elsewhere, are those that were indexed.

    Raises UserError where the index is missing or damaged, and for the first shard of another size or ETag.
    """
    index = Index.load(storage)
    if index.header.source is None:
        return index
    folder, shards = index.shard_folder(storage), index.header.shards
    command = index_command(index.header, storage)
    again = f"if the shards have moved or changed, index them again, with the same options: `{command}`"
    try:
        found = shard_facts(folder, [shard.name for shard in shards])
    except NotFoundError as error:
        raise NotFoundError(f"{error}; {again}") from None
    for shard, facts in zip(shards, found, strict=True):
        if (change := change_of(shard, facts)) is not None:
            raise UserError(f"{folder.url}/{shard.name}: {change}; {again}")
    return index


def change_of(shard: Shard, found: FileFacts) -> str | None:
    """How a shard differs from what was indexed, in words; None where size and ETag are the same, or not known."""
    if found.size is not None and found.size != shard.bytes:
        return f"it has {found.size:,} bytes, and had {shard.bytes:,} when it was indexed"
    if None not in (found.etag, shard.etag) and found.etag != shard.etag:
        return f"its ETag is {found.etag!r:.60}, and was {shard.etag!r:.60} when it was indexed"
    return None


def shard_facts(folder: Storage, names: Sequence[str]) -> list[FileFacts]:
    """Size and ETag of each shard, by concurrent requests. Raises UserError for the first that has none."""
    pool = ThreadPoolExecutor(_REQUESTS)
    try:
        return list(pool.map(folder.facts, names))
    finally:
        pool.shutdown(cancel_futures=True)
