"""Signals: the first one asks a run to stop and save its state; Ctrl-C after it stops at once."""

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
    """From now on SIGTERM and SIGHUP raise SystemExit, so that processes are stopped and temporary files removed."""

    def end(number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    for number in _stop_signals():
        signal.signal(number, end)


def output_closed() -> None:
    """Acts as SIGTERM does, with SIGPIPE's exit code; for the main thread, when nobody reads the output any more.

    Does nothing under nohup.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if callable(handler) and signal.SIGHUP in _stop_signals():
        handler(signal.SIGPIPE, None)


@dataclass
class StopRequest:
    """The signal that asked to stop, if any."""

    signal: int | None = None

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number, as in the shell; 0 without a signal."""
        return 0 if self.signal is None else 128 + self.signal


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Inside, the first signal is kept as a request, and SIGINT after it raises KeyboardInterrupt.

    A second SIGTERM or SIGHUP is ignored: `timeout` and a closing terminal send two. Only the main thread can handle
    signals; in another one there is never a request.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, frame: FrameType | None) -> None:
        if stop.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.signal = stop.signal or number

    kept = {number: signal.signal(number, note) for number in (signal.SIGINT, *_stop_signals())}
    try:
        yield stop
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


_received = 0


def count_sigterms() -> None:
    """From now on SIGTERM does not end this process, but counts in `sigterms`, from 0. For the main thread.

    A process of Ray's on this machine has SIGTERM blocked until then.
    """
    global _received
    _received = 0

    def count(number: int, frame: FrameType | None) -> None:
        global _received
        _received += 1

    signal.signal(signal.SIGTERM, count)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def sigterms() -> int:
    """How many SIGTERM there were since `count_sigterms`."""
    return _received


@contextmanager
def preserve_sigterm() -> Iterator[None]:
    """Restores the handler of SIGTERM afterwards.

    `ray.init` installs one that ends the process at once, and whose C++ part prints a stack trace and may crash.
    """
    kept = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, kept)


def _stop_signals() -> list[signal.Signals]:
    """SIGTERM and SIGHUP; under nohup SIGTERM alone."""
    sighup = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGTERM, *sighup]
