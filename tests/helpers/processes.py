"""Commands as processes, and what they leave behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

# A run of seconds: options for `distgan train quickstart` on bricks of 16x16.
TINY = [
    "image_size=16", "latent_dim=8", "generator.width=8", "discriminator.width=8", "training.batch_size=32",
    "training.kimg=2", "training.log_every=1", "evaluation.every_kimg=1", "evaluation.samples=64",
    "evaluation.real_samples=128", "evaluation.patience=null", "checkpoint.every_kimg=0.25", "scale.threads=1",
]  # fmt: skip

# All that these tests start inherits it.
_OURS = f"DISTGAN_TESTS={uuid.uuid4().hex}"
os.environ.update([_OURS.split("=")])

_MARKS = (b"raylet", b"gcs_server", b"ray::", b"ray/dashboard", b"weed\0", b"distgan\0")


def start(*command: str, cwd: Path) -> subprocess.Popen[str]:
    """A Python command in a process group of its own, its output in one pipe."""
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        process_group=0,
    )


def ray_node(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """`ray` with these arguments, once it says that its node runs."""
    process = start("-m", "ray.scripts.scripts", *arguments, cwd=cwd)
    assert process.stdout is not None
    assert any("Process exit logs" in line for line in process.stdout)
    return process


def finish(process: subprocess.Popen[str], seconds: float = 200) -> str:
    """All its output; kills it, and fails, where it takes longer."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        raise


def kill_ray_nodes(nodes: Iterable[subprocess.Popen[str]], before: Iterable[int]) -> None:
    """Ends nodes of `ray_node`, and all of ours but `before`. At a polite request Ray takes half a minute."""
    for pid in our_processes().keys() - before:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for node in nodes:
        node.kill()
        finish(node, 60)


def wait_for(condition: Callable[[], bool], seconds: float = 150) -> None:
    """Returns when the condition holds; fails where it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.2)


def listening(pid: int) -> set[tuple[str, str]]:
    """(address, process) of every socket, of TCP over IPv4 or IPv6, at which a process or a child of it listens."""
    found = set()
    parent = psutil.Process(pid)
    for process in [parent, *parent.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            sockets = [one for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
            found |= {(one.laddr.ip.removeprefix("::ffff:"), " ".join(process.cmdline())[:100]) for one in sockets}
    return found


def our_processes() -> dict[int, str]:
    """Living processes of Ray, SeaweedFS and distgan that these tests have started, by pid.

    Those of Ray whose title lies over their environment may be somebody else's.
    """
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        if b"PATH=" in environment and _OURS.encode() not in environment:
            continue
        if state != "Z" and any(mark in command for mark in _MARKS):
            found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace")[:100]
    return found
