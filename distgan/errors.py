"""The exceptions of the package: for what a user can fix, and for a stop by a signal."""

from __future__ import annotations

from typing import Any

from distgan.text import printable, without_credentials


class UserError(Exception):
    """Something outside distgan is wrong: an argument, a file, a server, a credential.

    The message is one line: what is wrong, where, and what to do. The command line prints it and exits with code 2;
    tracebacks are for our own bugs. The message is safe to print (`printable`) and shows no secrets of URLs.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(without_credentials(" ".join(message.split()))))


class DivergedError(UserError):
    """A run's numbers are no longer finite."""


class Interrupted(KeyboardInterrupt):
    """A signal stopped the work, and its state is saved. Calling again resumes it.

    Attributes:
        exit_code: the shell's: 128 and the number of the signal.
        result: what the call would have returned, as far as there is one.
    """

    def __init__(self, exit_code: int, result: Any = None) -> None:
        super().__init__("stopped by a signal")
        self.exit_code = exit_code
        self.result = result
