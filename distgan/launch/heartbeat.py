"""Signs of life of a run's workers on Ray, by which a hang is found."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from typing import Any, Self

import ray
from ray.exceptions import RayError

from distgan.launch.hangs import BEAT_S, Beat
from distgan.launch.signals import sigterms
from distgan.storage.retry import Retry
from distgan.training.meter import Meter


class Heartbeat:
    """While it is open, a thread sends beats. It ends this process where its group hangs."""

    def __init__(self, mailbox: Any, rank: int, meter: Meter) -> None:
        self._mailbox, self._rank, self._meter = mailbox, rank, meter
        node: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        self._place = f"worker {rank} on {node}"
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closed.set()

    def _run(self) -> None:
        with suppress(RayError):  # the driver is gone, and Ray ends this process
            while not self._closed.wait(BEAT_S):
                meter = self._meter
                beat = Beat(self._place, meter.activity + Retry.count, meter.current_phase, meter.steps, sigterms())
                if ray.get(self._mailbox.beat.remote(self._rank, beat)) and not self._closed.is_set():
                    os.kill(os.getpid(), signal.SIGKILL)
