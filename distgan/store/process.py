"""Signals for a background process that an earlier command started, and never for another one."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def is_running(pid: int, program: str, directory: Path) -> bool:
    """Whether process `pid` lives, runs `program` and has `directory` as its working directory.

    Process ids are used again, so a number in a file alone says nothing.
    """
    process = Path("/proc") / str(pid)
    try:
        executable = process.joinpath("cmdline").read_bytes().split(b"\0")[0]
        return Path(os.fsdecode(executable)).name == program and process.joinpath("cwd").readlink() == directory
    except OSError:
        return False


def terminate(pid: int, program: str, directory: Path, signals: Sequence[signal.Signals], seconds: float) -> bool:
    """Send each signal in turn, waiting up to `seconds` after each, until the process has ended.

    False, and no signal, where `is_running` is false. The process is held by a descriptor from before the
    check, so the signals cannot reach one that took its number afterwards.
    """
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not is_running(pid, program, directory):
            return False
        ended = select.poll()
        ended.register(process, select.POLLIN)
        for number in signals:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, number)
            if ended.poll(seconds * 1000):
                break
        return True
    finally:
        os.close(process)
