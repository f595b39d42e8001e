"""Lets one process at a time write into a folder: it claims the folder by a small file, and renews the claim.

Object stores have no lock, so two processes that start at the same moment may both write a claim. The last one stays.
`ClaimedStorage` checks the claim before each write, so the other process stops before it has written anything.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from distgan.errors import UserError
from distgan.storage.claim import CLAIM_NAME, Claim, held_tokens, parse_claim, process_of, read_claim
from distgan.storage.storage import Storage

LIFETIME_S = 60.0

_RENEW_S = 10.0

# The first renewal is early: another process may have written a claim at the same moment.
_FIRST_S = 1.0

_POLL_S = 1.0

_log = logging.getLogger(__name__)


class LeaseLostError(UserError):
    """Another process has taken the folder over."""


@dataclass(frozen=True)
class ClaimedStorage(Storage):
    """Storage in a claimed folder. Every writing method raises `LeaseLostError` once the claim is another process's."""

    claimed: Storage
    token: str

    @classmethod
    def of(cls, storage: Storage, claimed: Storage, token: str) -> ClaimedStorage:
        return cls(storage.url, storage.protocol, storage.root, claimed, token)

    def child(self, name: str) -> ClaimedStorage:
        return self.of(super().child(name), self.claimed, self.token)

    def write_bytes(self, name: str, data: bytes) -> None:
        check_claim(self.claimed, self.token)
        super().write_bytes(name, data)

    def upload(self, local: Path, name: str) -> None:
        check_claim(self.claimed, self.token)
        super().upload(local, name)

    def delete(self, name: str) -> None:
        check_claim(self.claimed, self.token)
        super().delete(name)


class Lease:
    """A claim that this process holds and renews; `claimed` makes one.

    Attributes:
        storage: the folder, for writing into it.
        lost: whether another process has taken the folder over.
        left_shards: how many shards a killed process had begun to write there.
    """

    def __init__(self, folder: Storage, claim: Claim, left_shards: int) -> None:
        self.storage = ClaimedStorage.of(folder, folder, claim.token)
        self.left_shards = left_shards
        self.lost = self._kept = False
        self._folder, self._claim = folder, claim.model_copy(update={"shards": left_shards})
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._renew_until_end, name="distgan-claim", daemon=True)

    @property
    def token(self) -> str:
        return self._claim.token

    def write_shards(self, count: int) -> None:
        """Records in the claim how many shards are begun. Raises LeaseLostError."""
        with self._lock:
            self._renew(count)

    def keep(self) -> None:
        """Keeps the claim at the end, so that the next process knows what this one has left."""
        self._kept = True

    def begin(self) -> None:
        held_tokens.add(self.token)
        self._claim.write(self._folder)
        self._thread.start()

    def end(self) -> None:
        """Deletes the claim, unless it is another process's. If storage is unavailable it stays, and expires."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=_RENEW_S)
        held_tokens.discard(self.token)
        if not self._kept and not self._thread.is_alive():
            with suppress(UserError):
                self.storage.delete(CLAIM_NAME)

    def _renew_until_end(self) -> None:
        pause, renewed, warned = _FIRST_S, time.monotonic(), False
        while not self._ended.wait(pause):
            pause = _RENEW_S
            try:
                with self._lock:
                    self._renew(self._claim.shards)
                renewed, warned = time.monotonic(), False
            except LeaseLostError as error:
                self.lost = True
                _log.warning("%s", error)
                return
            except UserError as error:
                # A shorter outage does no harm, and whoever writes there reports it.
                if not warned and time.monotonic() - renewed >= LIFETIME_S:
                    warned = True
                    _log.warning("%s; until its claim is renewed, another process may take the place over", error)

    def _renew(self, shards: int) -> None:
        check_claim(self._folder, self.token)
        self._claim = self._claim.model_copy(update={"renewals": self._claim.renewals + 1, "shards": shards})
        self._claim.write(self._folder)


@contextmanager
def claimed(folder: Storage, work: str, remedy: str) -> Iterator[Lease]:
    """Makes this process the only writer of `folder` in the block, among processes that claim it.

    If a process of another machine has claimed it, waits until it is clear whether that process still runs.

    Args:
        work: what this process does there, as in "trains".
        remedy: what to do if another process is at work there, as in "give another --name".

    Raises:
        UserError: another process's claim; at the end, if another process has taken the folder over.
    """
    path = folder.local_path
    new = path is not None and not os.path.lexists(path)
    lease = Lease(folder, Claim.new(work), _left_shards(folder, remedy))
    try:
        lease.begin()
        yield lease
        if lease.lost:
            check_claim(folder, lease.token)
    finally:
        lease.end()
        if new and path is not None:
            with suppress(OSError):
                path.rmdir()  # nothing was written


def check_claim(folder: Storage, token: str) -> None:
    """Raises LeaseLostError unless the folder's claim has this token."""
    data = read_claim(folder)
    claim = parse_claim(data)
    if claim is None or claim.token != token:
        raise LeaseLostError(
            f"{folder.url}: this process's {CLAIM_NAME} is {'gone' if data is None else 'replaced'}: "
            f"{process_of(claim)} has taken over while this one did not answer; it writes nothing more there"
        )


def check_unclaimed(folder: Storage) -> None:
    """Raises UserError if a process packs there, or was killed while it did."""
    data = read_claim(folder)
    if data is not None:
        raise UserError(
            f"{folder.url}: {process_of(parse_claim(data))} is packing there, or was killed while it did, so shards "
            f"may be missing; wait for it, or give its command again, which continues what a killed one left "
            f"(or delete {CLAIM_NAME}, if the shards are what you want)"
        )


def _left_shards(folder: Storage, remedy: str) -> int:
    """How many shards an expired claim records. Raises UserError if a claim is in use."""
    data = read_claim(folder)
    if data is None:
        return 0
    claim = parse_claim(data)
    if claim is None or not claim.has_ended:
        if claim is not None and claim.is_local:
            raise _in_use(folder, claim, remedy)
        _log.warning(
            "%s: %s has claimed it; waiting to see whether it still lives, %.0f s at most",
            folder.url, process_of(claim), LIFETIME_S,
        )  # fmt: skip
        until = time.monotonic() + LIFETIME_S
        while time.monotonic() < until:
            time.sleep(_POLL_S)
            if read_claim(folder) != data:
                raise _in_use(folder, claim, remedy)
    return 0 if claim is None else claim.shards


def _in_use(folder: Storage, claim: Claim | None, remedy: str) -> UserError:
    work = "works" if claim is None else claim.work
    return UserError(
        f"{folder.url}: {process_of(claim)} {work} there; {remedy}, or end that process: once it has ended, the same "
        f"command resumes (on another machine after {LIFETIME_S:.0f} s)"
    )
