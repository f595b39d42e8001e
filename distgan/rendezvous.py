"""The store through which the workers of a process group find each other, on one address in the place of all."""

from __future__ import annotations

import errno
import ipaddress
import socket
from datetime import timedelta
from typing import Any

import torch.distributed as dist


def join_store(host: str, port: int, rank: int, size: int, timeout_s: float) -> Any:
    """torch's store of a group of `size` workers at `host`:`port`; rank 0 holds it and waits for the others.

    The store asks nobody for a token, and torch's own rendezvous has it listen on every address of the machine. Here
    it listens on `host` alone; on every address only where `host` is none of this machine's (behind a translation of
    addresses), or a name that leads to loopback here and to this machine from others. Raises OSError or RuntimeError
    where the workers do not meet.
    """
    timeout = timedelta(seconds=timeout_s)
    if rank != 0:
        return dist.TCPStore(host, port, size, False, timeout)  # type: ignore[attr-defined]
    listener = _listen(host, port)
    # torch takes the socket over.
    return dist.TCPStore(  # type: ignore[attr-defined]
        host, listener.getsockname()[1], size, True, timeout, master_listen_fd=listener.detach()
    )


def _listen(host: str, port: int) -> socket.socket:
    family, _, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    loopback = ipaddress.ip_address(str(place[0]).partition("%")[0]).is_loopback
    if loopback and host != "localhost" and not _is_address(host):
        return _listen_everywhere(port)
    try:
        return socket.create_server((str(place[0]), port), family=family)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        return _listen_everywhere(port)


def _listen_everywhere(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
