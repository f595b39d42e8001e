"""Faults at drawn steps of a run, against the same run undisturbed: are the final states equal to the bit?

python -m benchmarks.chaos --no-ray [--rounds N | --kills N] [--seed S] [--out DIR]

Each round waits for a step that the seed draws, and does one thing to the process that trains: kills it, ends it by
SIGTERM, stops it for some seconds, kills it and damages its newest checkpoint, takes the S3 server away, or starts a
second command on the same run. Where the process has ended, the same command starts it again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from benchmarks.report import console, machine
from distgan.api import load_config
from distgan.api import train as train_run
from distgan.data.bricks.render import BrickSource
from distgan.data.pack import PackOptions, pack
from distgan.errors import Interrupted, UserError
from distgan.storage.s3_server import server
from distgan.storage.storage import Storage
from distgan.tracking.tracker import Tracker
from distgan.training.checkpoints import CheckpointStore, checkpoint_name
from distgan.training.events import Event, StepMetrics

BATCH, PATIENCE_S = 16, 120.0

# Of one kill, and of one fault of any kind: some last for seconds.
STEPS_A_KILL, STEPS_A_ROUND = 24, 150

RUN = (
    "image_size=16", "generator.width=8", "discriminator.width=8", f"training.batch_size={BATCH}", "data.streams=16",
    "scale.groups=2", "scale.threads=1", "training.log_every=1", "evaluation.samples=64", "evaluation.at_start=false",
    f"checkpoint.every_kimg={10 * BATCH / 1000}", "checkpoint.keep_last=100000",
    "tracking=[tensorboard, 'benchmarks.chaos:StepFile']",
)  # fmt: skip

_CONTEXT = multiprocessing.get_context("forkserver")


class StepFile(Tracker):
    """Writes each step's number into a local file."""

    path = Path()

    def event(self, event: Event) -> None:
        if isinstance(event, StepMetrics):
            with self.path.open("ab") as file:
                file.write(event.step.to_bytes(8, "big"))


@dataclass
class Run:
    """A run by one command, which can be started again."""

    name: str
    data: str
    storage: str
    kimg: float
    folder: Path
    process: Any = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"{self.storage}/{self.name}"

    def start(self) -> None:
        self.process = self.command()

    def command(self) -> Any:
        """The process of the command, started."""
        process = _CONTEXT.Process(target=_train, args=(replace(self, process=None),), daemon=True)
        process.start()
        return process

    def steps(self) -> list[int]:
        """The steps so far in the order in which they were logged, repeated ones again."""
        data = self.steps_file.read_bytes() if self.steps_file.exists() else b""
        return [int.from_bytes(data[at : at + 8], "big") for at in range(0, len(data) - 7, 8)]

    @property
    def steps_file(self) -> Path:
        return self.folder / f"{self.name}.steps"

    def wait_for(self, step: int, after: int = 0) -> None:
        """Waits until this step or a later one is logged, not counting the first `after` steps of the file.

        Returns where the run has ended as well.

        Raises TimeoutError if that takes longer than two minutes.
        """
        deadline = time.monotonic() + PATIENCE_S
        while max(self.steps()[after:], default=0) < step and self.process.exitcode != 0:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: no step {step} after {PATIENCE_S:.0f} s; see {self.folder / 'log'}")
            time.sleep(0.005)

    def end(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)
        self.process.join(PATIENCE_S)


def _train(run: Run) -> None:
    import benchmarks.chaos

    benchmarks.chaos.StepFile.path = run.steps_file
    log = os.open(run.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(run.environment)
    overrides = [*RUN, f"data.url={run.data}", f"training.kimg={run.kimg}", f"evaluation.every_kimg={run.kimg}"]
    try:
        train_run(load_config("quickstart", overrides), name=run.name, storage=run.storage, ray=False)
    except Interrupted:
        sys.exit(143)
    except UserError as error:
        print(f"error: {error}", flush=True)
        sys.exit(2)


# A fault takes the run and a random stream, and returns whether the process goes on by itself.
Fault = Callable[[Run, random.Random], bool]


def kill(run: Run, _: random.Random) -> bool:
    run.end(signal.SIGKILL)
    return False


def terminate(run: Run, _: random.Random) -> bool:
    run.end(signal.SIGTERM)
    return False


def freeze(run: Run, rng: random.Random) -> bool:
    os.kill(run.process.pid, signal.SIGSTOP)
    time.sleep(rng.uniform(0.5, 3))
    os.kill(run.process.pid, signal.SIGCONT)
    return True


def damage(run: Run, rng: random.Random) -> bool:
    """Flips a bit of a file of the newest checkpoint."""
    run.end(signal.SIGKILL)
    checkpoints = Storage.open(run.url).child("checkpoints")
    newest = checkpoints.child(max(checkpoints.list()))
    name = rng.choice(sorted(newest.list()))
    data = bytearray(newest.read_bytes(name))
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    newest.write_bytes(name, bytes(data))
    return False


def second_command(run: Run, _: random.Random) -> bool:
    """It has to end with exit code 2 while the first one trains."""
    other = run.command()
    other.join(PATIENCE_S)
    if other.exitcode != 2:
        raise AssertionError(f"a second command on the same run ended with {other.exitcode}")
    return True


def store_away(handle: server.StoreHandle, run: Run, rng: random.Random) -> bool:
    port = int(handle.endpoint.rpartition(":")[2])
    server.down(Path(handle.directory))
    time.sleep(rng.uniform(1, 10))
    server.up(Path(handle.directory), port)
    return True


def _state_difference(run: Run, calm: Run, step: int) -> str | None:
    """The first difference of the first states from this step on, to the bit; None without one."""
    stores = [CheckpointStore(Storage.open(each.url)) for each in (run, calm)]
    later = sorted({name for name in stores[0].names() if name >= checkpoint_name(step)} & {*stores[1].names()})
    if not later:
        return "no state"
    found, wanted = (store.read(later[0]) for store in stores)
    tensors, others = dict(_flat(found.tensors)), dict(_flat(wanted.tensors))
    if tensors.keys() != others.keys():
        return "other tensors"
    for name, value in others.items():
        if not torch.equal(tensors[name], value):
            return name
    return None if found.manifest.progress == wanted.manifest.progress else "progress"


def _flat(tree: Any, name: str = "") -> list[tuple[str, Tensor]]:
    if isinstance(tree, Tensor):
        return [(name, tree)]
    if isinstance(tree, dict):
        return [found for key, branch in tree.items() for found in _flat(branch, f"{name}.{key}")]
    return []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-ray", action="store_true", required=True, help="one process, without Ray")
    parser.add_argument("--rounds", type=int, default=20, help="faults of all kinds")
    parser.add_argument("--kills", type=int, help="so many kills, and nothing else")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("chaos-output"), help="folder of the server, logs and results")
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True)
    _CONTEXT.set_forkserver_preload(["distgan.launch.local", "distgan.training.train"])
    handle = server.up(out / "store")
    try:
        server.make_buckets(handle, ["chaos"])
        os.environ.update(handle.environment())
        return _compare(arguments, out, handle)
    finally:
        server.down(out / "store")


def _compare(arguments: argparse.Namespace, out: Path, handle: server.StoreHandle) -> int:
    rng, rounds = random.Random(arguments.seed), arguments.kills or arguments.rounds
    console.print(machine())
    data, storage = "s3://chaos/data", "s3://chaos/runs"
    pack(BrickSource(0, 512, 16, 1), Storage.open(data), PackOptions(image_size=16, channels=1))
    steps = STEPS_A_KILL if arguments.kills else STEPS_A_ROUND
    kimg = rounds * steps * BATCH / 1000
    environment = handle.environment()
    calm = Run("calm", data, storage, kimg, out, environment=environment)
    run = Run("disturbed", data, storage, kimg, out, environment=environment)
    began = time.monotonic()
    calm.start()
    calm.process.join()
    console.print(f"undisturbed: {calm.steps()[-1]} steps in {time.monotonic() - began:.1f} s")

    faults: list[Fault] = [kill, terminate, freeze, damage, second_command, partial(store_away, handle)]
    rows: list[tuple[int, tuple[str, ...]]] = []
    table = Table("fault", "step", "continues", "s lost", "steps repeated", "next state")
    began = time.monotonic()
    run.start()
    for number in range(rounds):
        step = number * steps + rng.randrange(1, steps)
        fault = kill if arguments.kills else rng.choice(faults)
        run.wait_for(step)
        row = _disturb(run, fault, rng)
        rows.append((run.steps()[-1], row))
        console.print(f"{number + 1}: {', '.join(row)}")
    run.process.join(PATIENCE_S)
    seconds = time.monotonic() - began
    holes = _metrics_difference(run, calm)
    equal = 0
    for step, row in rows:
        found = _state_difference(run, calm, step)
        equal += found is None
        table.add_row(*row, found or "equal")
    final = _state_difference(run, calm, calm.steps()[-1])
    console.print(table)
    console.print(f"disturbed: {len(run.steps())} steps for {run.steps()[-1]} in {seconds:.1f} s")
    console.print(f"final states {'equal' if final is None else f'differ: {final}'}; metrics {holes or 'equal'}")
    console.print(f"{equal} of {rounds} equal")
    return 0 if equal == rounds and final is None and holes is None else 1


def _disturb(run: Run, fault: Fault, rng: random.Random) -> tuple[str, ...]:
    before = run.steps()
    began = time.monotonic()
    itself = fault(run, rng)
    logged = run.steps()
    if not itself:
        run.start()
    run.wait_for(max(logged) + 1, after=len(logged))
    seconds = time.monotonic() - began
    repeated = sum(step <= max(logged) for step in run.steps()[len(logged) :])
    name = getattr(fault, "__name__", "store_away").replace("_", " ")
    return name, str(before[-1]), "by itself" if itself else "same command", f"{seconds:.1f}", str(repeated)


def _metrics_difference(run: Run, calm: Run) -> str | None:
    """What is wrong with the steps in `metrics.jsonl`; None where they are those of the undisturbed run."""
    found, wanted = (_losses(each) for each in (run, calm))
    steps = [step for step, _ in found]
    if steps != [step for step, _ in wanted]:
        missing = {step for step, _ in wanted} - set(steps)
        return f"have {len(steps) - len(set(steps))} steps twice and lack {len(missing)}"
    return None if found == wanted else "have other numbers"


def _losses(run: Run) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in Storage.open(run.url).read_bytes("metrics.jsonl").splitlines()]
    return [(row["step"], row["loss/discriminator"]) for row in rows if row.get("event") == "step"]


if __name__ == "__main__":
    sys.exit(main())
