"""A run of one worker in a thread of the actor that calls it, in the place of a group of workers of Ray Train."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any

import ray.util
import torch

from distgan.config.load import build_config
from distgan.distributed import Distributed, choose_device
from distgan.errors import UserError
from distgan.launch.async_evaluator import TaskOptions, ray_evaluator
from distgan.launch.failures import WorkerError
from distgan.launch.heartbeat import Heartbeat
from distgan.launch.mailbox import Background
from distgan.launch.placement.capacity import local_cpus
from distgan.launch.ray_errors import is_broken_connection
from distgan.launch.ray_internals import draining_notice
from distgan.launch.reporter import RayReporter
from distgan.launch.signals import count_sigterms
from distgan.training.events import EvaluationResult, Event, Notice
from distgan.training.meter import Meter
from distgan.training.run_spec import RunSpec
from distgan.training.train import KeptParts, train

_POLL_S = 0.5


@dataclass(frozen=True)
class WorkerPlace:
    """What the only worker of a run has of its host.

    Attributes:
        use_gpu: whether its actor has a GPU.
        runs_per_host: how many such runs share the host's processors.
        threads: if the user's environment sets them.
        evaluation: what an asynchronous evaluation gets; None without one.
    """

    use_gpu: bool
    runs_per_host: int = 1
    threads: int | None = None
    evaluation: TaskOptions | None = None

    def distributed(self) -> Distributed:
        return Distributed(
            rank=0,
            size=1,
            device=choose_device("cuda" if self.use_gpu else "cpu", 0),
            local_size=self.runs_per_host,
            processors=local_cpus(),
            threads=self.threads,
        )


class ActorRun:
    """A run in a thread of this actor, started at once. After each evaluation it waits for `proceed`.

    Call it in the actor's main thread. SIGTERM then has the state saved, and does not end the process.

    Args:
        mailbox: a handle to a `RunMailbox`.
        kept: from runs of this process that have ended.
        on_end: called in the thread when the run has ended, however it did.
    """

    def __init__(
        self, spec: RunSpec, mailbox: Any, place: WorkerPlace, kept: KeptParts, on_end: Callable[[], object]
    ) -> None:
        self._spec, self._mailbox, self._place = spec, mailbox, place
        self._kept, self._on_end = kept, on_end
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._error: Exception | None = None
        self._stop, self._may_proceed = threading.Event(), threading.Semaphore(0)
        count_sigterms()
        _forget_last_run()
        self._background = Background(self._train)

    def proceed(self) -> None:
        """The run goes on after one of its evaluations."""
        self._may_proceed.release()

    def ask_to_stop(self) -> None:
        """The run saves its state and ends."""
        self._stop.set()

    def ended(self, within_s: float) -> bool:
        """Whether the run has ended; waits up to `within_s` seconds for it."""
        return self._background.ended(within_s)

    def take(self) -> tuple[list[Event], Exception | None]:
        """The events since the last call, and the error that no restart can fix, if any."""
        error, found = self._error, []
        while True:
            try:
                found.append(self._events.get_nowait())
            except Empty:
                return found, error

    def raise_error(self) -> None:
        """Raises why the run has to begin again in another process, if it does."""
        self._background.raise_error()

    def _train(self) -> None:
        try:
            distributed = self._place.distributed()
            config = build_config(self._spec.config.model_dump(mode="json"), "job", trust_code=True)
            spec, meter = replace(self._spec, config=config), Meter()
            with closing(_ActorReporter(spec, self._mailbox, self._put, self._stop.is_set)) as reporter:
                task = self._place.evaluation
                evaluator = (
                    None
                    if task is None
                    else ray_evaluator(spec, distributed, task, lambda line: reporter.event(Notice(line)))
                )
                reporter.wait = lambda: self._wait(meter)
                with Heartbeat(self._mailbox, 0, meter):
                    train(spec, distributed, reporter, evaluator, meter, self._kept)
        except UserError as error:
            self._error = error
        except Exception as error:
            if is_broken_connection(error):
                raise
            node: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
            failure = WorkerError.of(error, 0, node)
            ray.get(self._mailbox.put_error.remote(failure))
            raise failure from None  # after some errors of a GPU nothing in its process works
        finally:
            self._on_end()

    def _put(self, event: Event) -> None:
        self._events.put(event)
        self._mailbox.put.remote(event)

    def _wait(self, meter: Meter) -> None:
        while not (self._stop.is_set() or self._may_proceed.acquire(timeout=_POLL_S)):
            meter.activity += 1  # else it looks like a hang


class _ActorReporter(RayReporter):
    """Waits after each evaluation until the actor's caller has taken it: a scheduler may end the run there."""

    wait: Callable[[], None]

    def __init__(
        self, spec: RunSpec, mailbox: Any, sink: Callable[[Event], None], stop_asked: Callable[[], bool]
    ) -> None:
        super().__init__(spec, mailbox, sink, stop_asked, draining_notice)

    def evaluated(self, event: EvaluationResult) -> None:
        self.wait()


def _forget_last_run() -> None:
    """Frees what the last run of this process has left, and what torch counts of it."""
    gc.collect()
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()  # it compiles a function for a few networks only
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
