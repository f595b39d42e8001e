"""Workers as plain processes joined by gloo, with a hard time limit: `run_workers` and `run_until_death`."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from distgan.distributed import Distributed

# Forked from a process that has imported torch and started nothing, so a worker costs milliseconds. The second
# module is what torch imports, for seconds, in the first step of an optimizer.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["distgan.training.train", "torch._dynamo"])
# How long the others have to end by themselves once one has died.
_GRACE_S = 3.0

Work = Callable[..., Any]


@dataclass
class Death:
    """How a worker ended without a result: its exit code, and its error where it raised one."""

    exit_code: int | None
    error: BaseException | None = None
    trace: str = ""


def run_workers(work: Work, size: int, *arguments: Any, timeout_s: float = 90) -> list[Any]:
    """`work(world, *arguments)` on `size` processes of one torch thread; their results by rank.

    Raises what a worker raised. `work` is a function at the top of a module.
    """
    results, deaths = _run(work, size, arguments, timeout_s)
    # A worker's own error first, then what gloo says where another has gone.
    for rank, death in sorted(deaths.items(), key=lambda item: isinstance(item[1].error, RuntimeError | None)):
        if death.error is not None:
            death.error.add_note(f"on rank {rank} of {size}:\n{death.trace}")
            raise death.error
        raise AssertionError(f"rank {rank} of {size} ended with exit code {death.exit_code}")
    return [results[rank] for rank in range(size)]


def run_until_death(work: Work, size: int, *arguments: Any, timeout_s: float = 90) -> dict[int, Death]:
    """As `run_workers`, for work in which a worker dies; the others are killed then, as a launcher would."""
    results, deaths = _run(work, size, arguments, timeout_s)
    assert deaths, f"nobody died; the results were {results}"
    return deaths


def _run(
    work: Work, size: int, arguments: tuple[Any, ...], timeout_s: float
) -> tuple[dict[int, Any], dict[int, Death]]:
    results: dict[int, Any] = {}
    deaths: dict[int, Death] = {}
    with tempfile.TemporaryDirectory() as folder:
        pipes = [_CONTEXT.Pipe(duplex=False) for _ in range(size)]
        processes = [
            _CONTEXT.Process(
                target=_worker, args=(work, rank, size, folder, pipe, arguments, dict(os.environ)), daemon=True
            )
            for rank, (_, pipe) in enumerate(pipes)
        ]
        deadline = time.monotonic() + timeout_s
        try:
            for process, (_, pipe) in zip(processes, pipes, strict=True):
                process.start()
                pipe.close()
            readers = {reader: rank for rank, (reader, _) in enumerate(pipes)}
            while readers:
                wait_s = _GRACE_S if deaths else max(0.0, deadline - time.monotonic())
                ready = multiprocessing.connection.wait(list(readers), wait_s)
                if deaths and not ready:
                    break
                assert ready, f"ranks {sorted(readers.values())} of {size} did nothing within {timeout_s} s"
                for reader in ready:
                    assert isinstance(reader, Connection)
                    rank = readers.pop(reader)
                    try:
                        answer = pickle.loads(reader.recv_bytes())
                    except EOFError:
                        processes[rank].join(10)
                        answer = Death(processes[rank].exitcode)
                    (deaths if isinstance(answer, Death) else results)[rank] = answer
        finally:
            for process in processes:
                if deaths or time.monotonic() > deadline:
                    process.kill()
                process.join(10)
                process.kill()
                process.join()
            for reader, _ in pipes:
                reader.close()
    return results, deaths


def _worker(
    work: Work,
    rank: int,
    size: int,
    folder: str,
    pipe: Connection,
    arguments: tuple[Any, ...],
    environment: dict[str, str],
) -> None:
    # The server that forks has the environment of its first use.
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    try:
        if size > 1:
            address = f"file://{Path(folder) / 'rendezvous'}"
            dist.init_process_group("gloo", address, timedelta(seconds=60), world_size=size, rank=rank)
        answer = work(Distributed(rank, size, torch.device("cpu"), size), *arguments)
        if size > 1:
            dist.barrier()
            dist.destroy_process_group()
    except BaseException as error:  # noqa: BLE001 - handed to the parent, which raises it
        answer = Death(None, error, traceback.format_exc())
    pipe.send_bytes(pickle.dumps(answer))
