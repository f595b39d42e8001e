"""Ctrl-C and SIGTERM as a wish to stop; said twice, as an order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class StopWish:
    """Which signal asked to stop, if any."""

    signal: int | None = None

    @property
    def wished(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """The shell's convention for a program that a signal ended; 0 without one."""
        return 0 if self.signal is None else 128 + self.signal


@contextmanager
def stop_on_signals() -> Iterator[StopWish]:
    """Inside, the first SIGINT or SIGTERM is noted and the second raises KeyboardInterrupt."""
    wish = StopWish()

    def note(number: int, frame: FrameType | None) -> None:
        if wish.wished:
            raise KeyboardInterrupt
        wish.signal = number

    kept = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wish
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


@contextmanager
def keeping_sigterm() -> Iterator[None]:
    """Inside, others may handle SIGTERM; afterwards it is handled as before.

    `ray.init` has it end the process at once, and its C++ part prints a stack trace, which may itself crash.
    """
    kept = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, kept)
