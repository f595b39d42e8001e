"""The content of `claim.json`: which process writes into a folder, and whether that process is still running.

A claim of a process that has ended on this machine is free at once, any other after `lease.LIFETIME_S` without a
renewal. Clocks of two machines are never compared.
"""

from __future__ import annotations

import os
import platform
import uuid
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from distgan.bounds import parse_json
from distgan.storage.storage import NotFoundError, Storage
from distgan.text import printable

CLAIM_NAME = "claim.json"

_MOST_BYTES = 10_000

# Tokens of the claims that this process holds.
held_tokens: set[str] = set()


class Claim(BaseModel):
    """A process's claim to be the only writer of a folder.

    Attributes:
        work: the process's work in the folder, as in "trains this run".
        machine: identifies the boot and the container in which `pid` is unique; empty if unknown.
        started: when the process started, in the kernel's ticks.
        shards: how many shards the process has begun to write there.
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
        """A claim of this process."""
        return cls(
            token=uuid.uuid4().hex,
            work=work,
            host=platform.node(),
            pid=os.getpid(),
            machine=machine_id(),
            started=_start_time(os.getpid()),
        )

    @property
    def is_local(self) -> bool:
        """Whether its process runs, or ran, on this machine."""
        return self.machine != "" and self.machine == machine_id()

    @property
    def has_ended(self) -> bool:
        """Whether its process is known to have ended, or to have released the claim."""
        if not self.is_local:
            return False
        if self.pid == os.getpid() and self.started == _start_time(self.pid):
            return self.token not in held_tokens
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass  # another user's process
        return _start_time(self.pid) not in {self.started, ""}

    @property
    def process(self) -> str:
        """Its process, for messages."""
        return f"process {self.pid} on {printable(self.host)}"

    def write(self, storage: Storage) -> None:
        storage.write_bytes(CLAIM_NAME, self.model_dump_json(indent=1).encode() + b"\n")


def read_claim(storage: Storage) -> bytes | None:
    """The bytes of a folder's claim; None if there is none."""
    try:
        return storage.read_bytes(CLAIM_NAME, most=_MOST_BYTES)
    except NotFoundError:
        return None


def parse_claim(data: bytes | None) -> Claim | None:
    """The claim in the bytes of `claim.json`; None if they are none, or damaged."""
    try:
        return None if data is None else Claim.model_validate(parse_json(data))
    except ValueError:
        return None


def process_of(claim: Claim | None) -> str:
    """The process of a claim, for messages; the claim may be damaged."""
    return "another process" if claim is None else claim.process


def process_at(storage: Storage) -> str | None:
    """The process that trains the run, or leads the search, in a folder, or has claimed to; None without one."""
    data = read_claim(storage)
    claim = parse_claim(data)
    return None if data is None or (claim is not None and claim.has_ended) else process_of(claim)


def machine_id() -> str:
    """This boot of this machine and the process namespace, in which process ids are unique; empty if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except (OSError, ValueError):
        return ""


def _start_time(pid: int) -> str:
    """When a process started, in the kernel's ticks; "ended" for a zombie, empty if unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "ended" if fields[0] in {"Z", "X"} else fields[19]
