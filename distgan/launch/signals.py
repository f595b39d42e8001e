"""Ctrl-C, SIGTERM, a closed terminal and a lost output as a wish to stop; Ctrl-C after that as an order."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn


def end_on_signals() -> None:
    """From now on SIGTERM and SIGHUP end the program in order: what was started is stopped, files are removed."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    for number in _asked_to_end():
        signal.signal(number, end)


def output_gone() -> None:
    """To be called, by the main thread, where nobody reads the output any more: as SIGTERM, with SIGPIPE's number.

    Nothing happens under nohup.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if callable(handler) and signal.SIGHUP in _asked_to_end():
        handler(signal.SIGPIPE, None)


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
    """Inside, the first signal that asks to end is noted, and SIGINT after it raises KeyboardInterrupt.

    The others come twice where nobody means it: from `timeout`, or as a terminal closes. In another thread than the
    main one, which alone can handle signals, nothing is noted.
    """
    wish = StopWish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return

    def note(number: int, frame: FrameType | None) -> None:
        if wish.wished and number == signal.SIGINT:
            raise KeyboardInterrupt
        wish.signal = wish.signal or number

    kept = {number: signal.signal(number, note) for number in (signal.SIGINT, *_asked_to_end())}
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


def _asked_to_end() -> list[signal.Signals]:
    """SIGTERM and SIGHUP; not the latter under nohup."""
    hung_up = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGTERM, *hung_up]
