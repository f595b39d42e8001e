"""Free TCP ports of this machine's addresses."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from distgan.errors import UserError

LOOPBACK = "127.0.0.1"


def choose_ports(
    names: Sequence[str],
    preferred: Mapping[str, int],
    fixed: Mapping[str, int],
    hosts: Mapping[str, str] | None = None,
) -> dict[str, int]:
    """A different free port for each name: the fixed one, else the preferred one if it is free, else any.

    `hosts` maps names to their addresses, by default 127.0.0.1. Another process may take a port after the return.

    Raises:
        UserError: a fixed port is in use, not allowed to this user, or not a port number; an address that this
            machine does not have.
    """
    hosts = hosts or {}
    ports: dict[str, int] = {}
    with ExitStack() as held:
        for name in sorted(names, key=lambda name: (name not in fixed, name not in preferred)):
            host = hosts.get(name, LOOPBACK)
            _check_address(host)
            if name in fixed:
                ports[name] = _bind_fixed(held, fixed[name], host)
            else:
                try:
                    ports[name] = _bind(held, preferred.get(name, 0), host)
                except OSError:
                    ports[name] = _bind(held, 0, host)
    return ports


def _check_address(host: str) -> None:
    try:
        with socket.socket() as bound:
            bound.bind((host, 0))
    except OSError as error:
        raise UserError(f"{host}: cannot be listened on ({error.strerror}); name an address of this machine") from error


def _bind_fixed(held: ExitStack, port: int, host: str) -> int:
    if not 1 <= port <= 65535:
        raise UserError(f"port {port} is not a port number; choose one from 1 to 65535")
    try:
        return _bind(held, port, host)
    except OSError as error:
        raise UserError(f"port {port} on {host} cannot be used ({error.strerror}); choose another") from error


def _bind(held: ExitStack, port: int, host: str) -> int:
    bound = held.enter_context(socket.socket())
    if port:
        # Also a port that was closed a moment ago, as the server does.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((host, port))
    return int(bound.getsockname()[1])
