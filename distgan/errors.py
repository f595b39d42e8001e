"""The one exception for mistakes and circumstances that a user can mend."""

from __future__ import annotations


class UserError(Exception):
    """Something outside distgan is wrong: an argument, a file, a server, a credential.

    The message is one line that says what is wrong, where, and what to do. The command line prints it and
    exits with code 2; a traceback is kept for our own bugs.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class DivergedError(UserError):
    """A run's numbers are not finite any more."""
