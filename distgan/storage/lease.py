"""One process at a time writes into a place: it claims it by a small file there, which it renews as long as it lives.

A claim outlives a crash, and is taken over then: at once where its process ran on this machine and has ended, else
after `LIFETIME_S` in which it was not renewed. Nobody's clock is compared with another's.

Object stores have no lock that all of them know, so two that come in the same moment may both write a claim. The last
one stands; `ClaimedStorage` looks before each write, so the other one ends before it has written anything.
"""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from distgan.bounds import parse_json
from distgan.errors import UserError
from distgan.storage.storage import NotFoundError, Storage
from distgan.text import printable

CLAIM_NAME = "claim.json"

LIFETIME_S = 60.0

_RENEW_S = 10.0

# When a claim is looked at again for the first time: another process may have written one in the same moment.
_FIRST_S = 1.0

_POLL_S = 1.0

_MOST_BYTES = 10_000

_log = logging.getLogger(__name__)

# Tokens of the claims that this process has.
_held: set[str] = set()


class LostError(UserError):
    """Another process has taken a place over."""


class Claim(BaseModel):
    """The content of `claim.json`.

    Attributes:
        machine: where `pid` is the number of one process only; empty where that is not known.
        started: when the process began, by the machine's own count.
        shards: how many the process has begun to write there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    token: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    work: Annotated[str, Field(max_length=100)]
    host: Annotated[str, Field(max_length=255)]
    pid: Annotated[int, Field(ge=1, lt=2**31)]
    machine: Annotated[str, Field(max_length=100)]
    started: Annotated[str, Field(max_length=100)]
    renewals: Annotated[int, Field(ge=0, lt=2**63)] = 0
    shards: Annotated[int, Field(ge=0, le=10**7)] = 0

    @classmethod
    def new(cls, work: str) -> Claim:
        pid = os.getpid()
        return cls(
            token=uuid.uuid4().hex, work=work, host=platform.node(), pid=pid, machine=_machine(), started=_start(pid)
        )

    @property
    def is_here(self) -> bool:
        """Whether its process is, or was, one of this machine."""
        return self.machine != "" and self.machine == _machine()

    @property
    def has_ended(self) -> bool:
        """Whether its process is known to have ended, or has done with the place."""
        if not self.is_here:
            return False
        if self.pid == os.getpid() and self.started == _start(self.pid):
            return self.token not in _held
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # somebody else's
        return _start(self.pid) not in {self.started, ""}

    @property
    def words(self) -> str:
        return f"process {self.pid} on {printable(self.host)}"


@dataclass(frozen=True)
class ClaimedStorage(Storage):
    """A folder in a place with a claim: nothing is written or deleted once the claim is another's.

    Every writing method raises `LostError` then.
    """

    place: Storage
    token: str

    @classmethod
    def of(cls, storage: Storage, place: Storage, token: str) -> ClaimedStorage:
        return cls(storage.url, storage.protocol, storage.root, place, token)

    def child(self, name: str) -> ClaimedStorage:
        return self.of(super().child(name), self.place, self.token)

    def write_bytes(self, name: str, data: bytes) -> None:
        check_claim(self.place, self.token)
        super().write_bytes(name, data)

    def upload(self, local: Path, name: str) -> None:
        check_claim(self.place, self.token)
        super().upload(local, name)

    def delete(self, name: str) -> None:
        check_claim(self.place, self.token)
        super().delete(name)


class Lease:
    """A claim while this process has it; made by `claimed`.

    Attributes:
        storage: the place, to be written into by way of it.
        lost: whether another process has taken the place over.
        left_shards: how many shards a process that was killed had begun to write there.
    """

    def __init__(self, place: Storage, claim: Claim, left_shards: int) -> None:
        self.storage = ClaimedStorage.of(place, place, claim.token)
        self.left_shards = left_shards
        self.lost = self._kept = False
        self._place, self._claim = place, claim.model_copy(update={"shards": left_shards})
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._renew_until_end, name="distgan-claim", daemon=True)

    @property
    def token(self) -> str:
        return self._claim.token

    def write_shards(self, count: int) -> None:
        """Says in the claim that so many shards are begun. Raises LostError."""
        with self._lock:
            self._renew(count)

    def keep(self) -> None:
        """The claim stays there at the end: it tells what is left."""
        self._kept = True

    def begin(self) -> None:
        _held.add(self.token)
        self._place.write_bytes(CLAIM_NAME, _bytes_of(self._claim))
        self._thread.start()

    def end(self) -> None:
        """Takes the claim away, unless it is another's. Storage that is away keeps it: it is a dead one then."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=_RENEW_S)
        _held.discard(self.token)
        if not self._kept and not self._thread.is_alive():
            with suppress(UserError):
                self.storage.delete(CLAIM_NAME)

    def _renew_until_end(self) -> None:
        pause, renewed, told = _FIRST_S, time.monotonic(), False
        while not self._ended.wait(pause):
            pause = _RENEW_S
            try:
                with self._lock:
                    self._renew(self._claim.shards)
                renewed, told = time.monotonic(), False
            except LostError as error:
                self.lost = True
                _log.warning("%s", error)
                return
            except UserError as error:
                # An outage that lasts less long harms nothing, and whoever writes there tells of it.
                if not told and time.monotonic() - renewed >= LIFETIME_S:
                    told = True
                    _log.warning("%s; until its claim is renewed, another process may take the place over", error)

    def _renew(self, shards: int) -> None:
        check_claim(self._place, self.token)
        self._claim = self._claim.model_copy(update={"renewals": self._claim.renewals + 1, "shards": shards})
        self._place.write_bytes(CLAIM_NAME, _bytes_of(self._claim))


@contextmanager
def claimed(place: Storage, work: str, remedy: str) -> Iterator[Lease]:
    """Inside, this process alone of those that claim it writes into `place`.

    Waits, where a process of another machine has claimed it, until it is clear whether that one still lives.

    Args:
        work: what it does there, as in "trains".
        remedy: what to do where another one does, as in "give another --name".

    Raises:
        UserError: by another process's claim; at the end, where another one has taken the place over.
    """
    path = place.local_path
    new = path is not None and not os.path.lexists(path)
    lease = Lease(place, Claim.new(work), _left_shards(place, remedy))
    try:
        lease.begin()
        yield lease
        if lease.lost:
            check_claim(place, lease.token)
    finally:
        lease.end()
        if new and path is not None:
            with suppress(OSError):
                path.rmdir()  # nothing was written


def check_claim(place: Storage, token: str) -> None:
    """Raises LostError where the claim of that token is there no more."""
    data = _read(place)
    claim = _parsed(data)
    if claim is None or claim.token != token:
        other = "another process" if claim is None else claim.words
        raise LostError(
            f"{place.url}: this process's {CLAIM_NAME} is {'gone' if data is None else 'replaced'}: {other} has taken "
            f"over while this one did not answer; it writes nothing more there"
        )


def check_unclaimed(place: Storage) -> None:
    """Raises UserError where somebody packs, or was killed as it packed."""
    data = _read(place)
    if data is not None:
        claim = _parsed(data)
        raise UserError(
            f"{place.url}: {_words(claim)} is packing there, or was killed while it did, so shards may be missing; "
            f"wait for it, or pack there again, which removes what a killed one left "
            f"(or delete {CLAIM_NAME}, if the shards are what you want)"
        )


def _left_shards(place: Storage, remedy: str) -> int:
    """How many shards a dead claim tells of. Raises UserError where a claim is alive."""
    data = _read(place)
    if data is None:
        return 0
    claim = _parsed(data)
    if claim is None or not claim.has_ended:
        if claim is not None and claim.is_here:
            raise _in_use(place, claim, remedy)
        _log.warning(
            "%s: %s has claimed it; waiting to see whether it still lives, %.0f s at most",
            place.url, _words(claim), LIFETIME_S,
        )  # fmt: skip
        until = time.monotonic() + LIFETIME_S
        while time.monotonic() < until:
            time.sleep(_POLL_S)
            if _read(place) != data:
                raise _in_use(place, claim, remedy)
    return 0 if claim is None else claim.shards


def _in_use(place: Storage, claim: Claim | None, remedy: str) -> UserError:
    work = "works" if claim is None else claim.work
    return UserError(
        f"{place.url}: {_words(claim)} {work} there; {remedy}, or end that process: once it has ended, the same "
        f"command goes on (on another machine after {LIFETIME_S:.0f} s)"
    )


def _words(claim: Claim | None) -> str:
    return "another process" if claim is None else claim.words


def _read(place: Storage) -> bytes | None:
    try:
        return place.read_bytes(CLAIM_NAME, most=_MOST_BYTES)
    except NotFoundError:
        return None


def _parsed(data: bytes | None) -> Claim | None:
    try:
        return None if data is None else Claim.model_validate(parse_json(data))
    except ValueError:
        return None


def _bytes_of(claim: Claim) -> bytes:
    return claim.model_dump_json(indent=1).encode() + b"\n"


def _machine() -> str:
    """This boot of this machine, and in it the container whose processes are counted together; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except (OSError, ValueError):
        return ""


def _start(pid: int) -> str:
    """When a process began, in the kernel's ticks; empty where that is not told. Of one that has ended: "ended"."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "ended" if fields[0] in {"Z", "X"} else fields[19]
