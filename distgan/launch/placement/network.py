"""The network interface between workers, which gloo and NCCL guess, often wrongly."""

from __future__ import annotations

import ipaddress
import os
import socket

import psutil

from distgan.errors import UserError

# An equals sign has NCCL take the name as a whole, not as a prefix.
_VARIABLES = {"GLOO_SOCKET_IFNAME": "{}", "NCCL_SOCKET_IFNAME": "={}"}


def use_interface(wanted: str | None, address: str | None) -> str | None:
    """Chooses the interface of this process's process groups: `wanted`, else the one with `address`.

    Variables of the environment win. Returns the interface; None where no interface has the address, as behind NAT:
    the libraries choose then. Call it before the process group is made. Raises UserError for an interface that this
    node does not have.
    """
    if wanted is not None:
        _check(wanted)
    name = wanted if wanted is not None else interface_of(address) if address is not None else None
    if name is not None:
        for variable, form in _VARIABLES.items():
            os.environ.setdefault(variable, form.format(name))
    return name


def interface_of(address: str) -> str | None:
    """The interface of this node with an IPv4 or IPv6 address; None where there is none."""
    try:
        wanted = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    found = _addresses()
    for name, own in found.items():
        if wanted in own:
            return name
    # The loopback interface has all of 127.0.0.0/8, and lists one address only.
    loopbacks = [name for name, own in found.items() if any(one.is_loopback for one in own)]
    return loopbacks[0] if wanted.is_loopback and loopbacks else None


def own_address_towards(host: str, port: int) -> str | None:
    """The address of this node on the route to a host; None where there is no route.

    Nothing is sent.
    """
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(place)
            return str(probe.getsockname()[0])
    except (OSError, UnicodeError, OverflowError):
        return None


def _check(name: str) -> None:
    found = _addresses()
    if found.get(name):
        return
    listed = ", ".join(f"{other} ({', '.join(map(str, own))})" for other, own in found.items() if own)
    problem = "has no address" if name in found else "is not there"
    raise UserError(
        f"placement.interface={name:.40}: {problem} on {socket.gethostname()}, which has {listed:.400}; name one of "
        f"them, or leave the key out for the one with the node's address"
    )


def _addresses() -> dict[str, list[ipaddress.IPv4Address | ipaddress.IPv6Address]]:
    """The addresses of each interface of this node."""
    families = (socket.AF_INET, socket.AF_INET6)
    return {
        name: [ipaddress.ip_address(one.address.partition("%")[0]) for one in entries if one.family in families]
        for name, entries in psutil.net_if_addrs().items()
    }
