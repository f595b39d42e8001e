"""The one exception for mistakes and circumstances that a user can mend."""

from __future__ import annotations

from distgan.text import printable, without_credentials


class UserError(Exception):
    """Something outside distgan is wrong: an argument, a file, a server, a credential.

    The message is one line that says what is wrong, where, and what to do. The command line prints it and
    exits with code 2; a traceback is kept for our own bugs. Whatever names and texts of others it holds, it steers no
    terminal (`printable`), and shows no secrets of URLs.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(without_credentials(" ".join(message.split()))))


class DivergedError(UserError):
    """A run's numbers are not finite any more."""


class DamagedError(UserError):
    """A file is not what distgan, or whoever wrote it, saved there. The message says what is wrong with it."""
