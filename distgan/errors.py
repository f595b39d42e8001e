"""The one exception for whatever a user can fix."""

from __future__ import annotations

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
