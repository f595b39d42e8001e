"""Reads blocks of shards, checks them, and reads them again when they are short or damaged."""

from __future__ import annotations

import time
from collections.abc import Sequence

from distgan.config.commands import command
from distgan.data.cache import BlockCache
from distgan.data.index import Block, Index
from distgan.data.retry import Retry
from distgan.data.storage import Storage
from distgan.errors import UserError

_ATTEMPTS = 4
_FIRST_WAIT_S = 0.2


class BlockReader:
    """Fetches blocks by range requests, several at once, through a cache where there is one.

    Attributes:
        retry: what is done where storage is away.
    """

    def __init__(
        self, storage: Storage, index: Index, cache: BlockCache | None = None, retry: Retry | None = None
    ) -> None:
        self._storage, self._index, self._cache = storage, index, cache
        self.retry = retry or Retry()

    def read(self, blocks: Sequence[Block]) -> list[bytes]:
        """The bytes of each block, checked. Raises UserError naming the shard where they stay wrong."""
        if self._cache is None:
            return self._download(blocks)
        return self._cache.read(self._index.hash, blocks, self._download)

    def bytes_before(self, shard: int, offset: int, count: int) -> bytes:
        """`count` bytes of a shard before `offset`; they belong to no block, so nothing checks them."""
        return self._storage.read_ranges([(self._index.header.shards[shard].name, offset - count, offset)])[0]

    def _download(self, blocks: Sequence[Block]) -> list[bytes]:
        found: dict[int, bytes] = {}
        for attempt in range(_ATTEMPTS):
            missing = [block for block in blocks if block.number not in found]
            if not missing:
                break
            if attempt:
                time.sleep(_FIRST_WAIT_S * 2**attempt)
            for block, data in zip(missing, self._read_ranges(missing), strict=True):
                if block.holds(data):
                    found[block.number] = data
        for block in blocks:
            if block.number not in found:
                raise UserError(
                    f"{self._storage.url}/{self._index.header.shards[block.shard].name}: bytes {block.start} to "
                    f"{block.end} do not match the index (read {_ATTEMPTS} times); check the shard with "
                    f"`{command('data', 'verify', self._storage.url)}` and upload it again"
                )
        return [found[block.number] for block in blocks]

    def _read_ranges(self, blocks: Sequence[Block]) -> list[bytes]:
        """One request for each run of blocks that touch."""
        runs: list[list[Block]] = []
        for block in sorted(blocks, key=lambda each: each.number):
            last = runs[-1][-1] if runs else None
            if last is not None and last.shard == block.shard and last.number + 1 == block.number:
                runs[-1].append(block)
            else:
                runs.append([block])
        shards = self._index.header.shards
        wanted = [(shards[run[0].shard].name, run[0].start, run[-1].end) for run in runs]
        answers = self.retry(lambda: self._storage.read_ranges(wanted))
        data = {
            block.number: answer[block.start - run[0].start : block.end - run[0].start]
            for run, answer in zip(runs, answers, strict=True)
            for block in run
        }
        return [data[block.number] for block in blocks]
