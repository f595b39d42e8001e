"""Standard streams that may fail: a closed pipe, a closed terminal, a full disk."""

from __future__ import annotations

import io
import os
import select
import sys
import threading
from typing import Any, TextIO

from distgan.launch.print_once import print_once
from distgan.launch.signals import output_closed

_OUT = 1


class _Stream(io.FileIO):
    """A stream to a file descriptor that drops what it cannot write.

    Attributes:
        write_error: the first error.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number, "wb", closefd=False)
        self.write_error: OSError | None = None
        self._pipe_closed = False

    def write(self, data: Any) -> int:
        try:
            written = super().write(data)
            while written is None:  # a full pipe that another program has made non-blocking
                select.select([], [self], [])
                written = super().write(data)
            return written
        except OSError as error:
            self.write_error = self.write_error or error
            main = threading.current_thread() is threading.main_thread()
            if isinstance(error, BrokenPipeError) and self.fileno() == _OUT and main and not self._pipe_closed:
                self._pipe_closed = True
                output_closed()
            return memoryview(data).nbytes


_out: _Stream | None = None

_is_log = False


def protect_streams() -> None:
    """Replaces standard output and error with streams that raise no OSError.

    A closed pipe at the output acts as a signal (`signals.output_closed`); `exit_code` reports other errors.
    """
    global _out
    for number in range(3):  # a file that is opened later must not get the number of a closed stream
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    # Streams that were replaced, as in a test, are left alone.
    if sys.stdout is sys.__stdout__:
        _out = _Stream(_OUT)
        sys.stdout = _text(_out, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Stream(2), sys.stderr)


def output_is_log() -> None:
    """The command also writes its output to files, so a lost output is only a warning."""
    global _is_log
    _is_log = True


def exit_code(code: int) -> int:
    """The command's exit code; 2, with a message, if its output was lost."""
    sys.stdout.flush()
    lost = None if _out is None else _out.write_error
    if lost is None or isinstance(lost, BrokenPipeError):
        return code
    reason = f"standard output: {lost.strerror}; the output is incomplete"
    if _is_log:
        print(f"distgan: warning: {reason}", file=sys.stderr)
        return code
    print_once(reason)
    return code or 2


def _text(stream: _Stream, before: TextIO | None) -> TextIO:
    """A text stream like `before` (None: it was closed); characters outside its encoding are escaped."""
    errors = getattr(before, "errors", None) or "strict"
    return io.TextIOWrapper(
        io.BufferedWriter(stream),
        encoding=getattr(before, "encoding", "utf-8"),
        errors="backslashreplace" if errors == "strict" else errors,
        line_buffering=getattr(before, "line_buffering", False),
        write_through=getattr(before, "write_through", False),
    )
