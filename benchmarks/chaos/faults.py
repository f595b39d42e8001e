"""Faults: each takes a run in training and a random stream, and returns what it drew, as text."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from benchmarks.chaos.place import NODE, Place
from benchmarks.chaos.runs import Run
from cluster.local import lifecycle
from distgan.storage.storage import Storage

Act = Callable[[Run, random.Random], str]


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        by_itself: whether the command survives it; else the same command resumes.
        at_start: met at the start of the command, not at a drawn step.
        workers: as `--workers`, on a cluster.
        on_disk: the run is written to the small disk.
    """

    name: str
    act: Act
    by_itself: bool = True
    at_start: bool = False
    workers: str = "2"
    on_disk: bool = False


def faults(place: Place, longest_outage: float) -> list[Fault]:
    """Every fault that can be made there; outages last for at most so many seconds."""
    ray = place.state is not None
    command = "driver" if ray else "command"
    found = [
        Fault(f"{command} killed", kill, by_itself=False),
        Fault(f"SIGTERM to the {command}", terminate, by_itself=False),
        Fault("two commands at once", second_command, at_start=True),
        Fault("newest checkpoint damaged, then killed", damage, by_itself=ray),
        Fault(f"{'worker' if ray else 'command'} stopped", freeze),
    ]
    found += [Fault(name, partial(outage, mode=mode, longest=longest_outage)) for mode, name in _OUTAGES.items()]
    if place.small_disk is not None:
        found.append(Fault("disk full", partial(full_disk, longest=longest_outage), on_disk=True))
    if ray:
        found += [
            Fault("one worker killed", partial(kill_workers, count=1)),
            Fault("both workers killed", partial(kill_workers, count=2)),
            Fault("Ray Train's controller killed", kill_controller, by_itself=False),
            Fault("node killed, returned later", partial(node_away, longest=longest_outage)),
            Fault("node killed, one worker goes on", node_gone, workers="1:2"),
        ]
    return found


def search_faults(faults: list[Fault]) -> list[Fault]:
    """Those that a search can meet."""
    parts = ("driver", "S3", "one worker killed", "returned later")
    return [fault for fault in faults if any(part in fault.name for part in parts)]


def drawn(faults: list[Fault], rounds: int, rng: random.Random) -> Iterator[Fault]:
    """The faults of so many rounds: each kind once, in a drawn order, before any comes again."""
    for number in range(rounds):
        if number % len(faults) == 0:
            order = rng.sample(faults, len(faults))
        yield order[number % len(faults)]


def kill(run: Run, _: random.Random) -> str:
    run.end(signal.SIGKILL)
    return ""


def terminate(run: Run, _: random.Random) -> str:
    run.end(signal.SIGTERM)
    return ""


def second_command(run: Run, _: random.Random) -> str:
    """One of the two commands has to end with exit code 2; the other is the run's from now on."""
    two = [run.process, run.command()]
    ended = run.wait_until(lambda: next((one for one in two if one.exitcode is not None), None), "refusal of a command")
    two.remove(ended)
    (run.process,) = two
    if ended.exitcode != 2:
        raise AssertionError(f"of two commands at once, one ended with {ended.exitcode}")
    return ""


def damage(run: Run, rng: random.Random) -> str:
    """Flips a bit of a file of the newest checkpoint while the run stands still, and kills all its workers."""
    pids = _trainers(run)
    with _stopped(pids):
        checkpoints = Storage.open(run.url).child("checkpoints")
        complete = [name for name in checkpoints.list() if "manifest.json" in checkpoints.child(name).list()]
        newest = checkpoints.child(max(complete))
        name = rng.choice(sorted(newest.list()))
        data = bytearray(newest.read_bytes(name))
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        newest.write_bytes(name, bytes(data))
        _kill(pids)
    return name


def freeze(run: Run, rng: random.Random) -> str:
    seconds = rng.uniform(0.5, 8)
    with _stopped([rng.choice(_trainers(run))]):
        time.sleep(seconds)
    return f"{seconds:.0f} s"


_OUTAGES = {
    "refuse": "S3 refuses connections",
    "hang": "S3 hangs",
    "slow": "S3 slow",
    "503": "S3 answers 503",
    "cut": "S3 cuts its answers",
}


def outage(run: Run, rng: random.Random, *, mode: str, longest: float) -> str:
    seconds = rng.uniform(5, longest)
    run.place.proxy.switch(mode)
    try:
        time.sleep(seconds)
    finally:
        run.place.proxy.switch("on")
    return f"{seconds:.0f} s"


def full_disk(run: Run, rng: random.Random, *, longest: float) -> str:
    """Fills the disk of the run, from the drawn step on."""
    disk, seconds = run.place.small_disk, rng.uniform(5, longest)
    assert disk is not None
    filler = disk / "filler"
    try:
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        time.sleep(seconds)
    finally:
        filler.unlink()
    return f"{seconds:.0f} s"


def kill_workers(run: Run, rng: random.Random, *, count: int) -> str:
    _kill(rng.sample(_trainers(run), count))
    return ""


def kill_controller(run: Run, _: random.Random) -> str:
    _kill(run.place.pids("TrainController"))
    run.wait_end()
    return ""


def node_away(run: Run, rng: random.Random, *, longest: float) -> str:
    seconds = rng.uniform(1, longest)
    lifecycle.kill_node(run.place.cluster, NODE)
    try:
        time.sleep(seconds)
    finally:
        lifecycle.return_node(run.place.cluster, NODE)
    return f"{seconds:.0f} s"


def node_gone(run: Run, _: random.Random) -> str:
    """The node returns when the run has gone on without it."""
    before = run.logged()
    lifecycle.kill_node(run.place.cluster, NODE)
    try:
        run.wait_for(max(step for step, _ in before) + 1, after=len(before))
    finally:
        lifecycle.return_node(run.place.cluster, NODE)
    return ""


def _trainers(run: Run) -> list[int]:
    """The processes that train: workers on a cluster, else the command."""
    if run.place.state is None:
        assert run.process.pid is not None
        return [run.process.pid]

    def two() -> list[int] | None:
        found = run.place.pids("RayTrainWorker") or run.place.pids("TrialRun")
        return found if len(found) == 2 else None

    return run.wait_until(two, "two workers")


def _kill(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@contextmanager
def _stopped(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
