"""Free TCP ports on 127.0.0.1."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from distgan.errors import UserError


def choose_ports(names: Sequence[str], preferred: Mapping[str, int], fixed: Mapping[str, int]) -> dict[str, int]:
    """A different free port for each name: the fixed one, else the preferred one if it is free, else any.

    The ports are free when the function returns; another process may take one afterwards.

    Raises:
        UserError: a fixed port is in use, not allowed to this user, or not a port number.
    """
    ports: dict[str, int] = {}
    with ExitStack() as held:
        for name in sorted(names, key=lambda name: (name not in fixed, name not in preferred)):
            if name in fixed:
                ports[name] = _bind_fixed(held, fixed[name])
            else:
                try:
                    ports[name] = _bind(held, preferred.get(name, 0))
                except OSError:
                    ports[name] = _bind(held, 0)
    return ports


def _bind_fixed(held: ExitStack, port: int) -> int:
    if not 1 <= port <= 65535:
        raise UserError(f"port {port} is not a port number; choose one from 1 to 65535")
    try:
        return _bind(held, port)
    except OSError as error:
        raise UserError(f"port {port} on 127.0.0.1 cannot be used ({error.strerror}); choose another") from error


def _bind(held: ExitStack, port: int) -> int:
    bound = held.enter_context(socket.socket())
    if port:
        # A port that was closed a moment ago is free again, as it is for the server.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return int(bound.getsockname()[1])
