"""Distributed GAN training: Ray Train, WebDataset shards from object storage, runs that resume to the bit."""

import os
from collections.abc import MutableMapping

__version__ = "0.1.0"

# `[::1]` is how urllib and botocore compare it; requests and httpx know networks.
_LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]", "127.0.0.0/8")


def reach_loopback_directly(environment: MutableMapping[str, str]) -> None:
    """Add loopback to `NO_PROXY` where a proxy is set: no proxy reaches this machine's own servers.

    S3 on loopback, Ray's dashboard and the libraries behind other protocols read it, here and in child processes.
    """
    if not any(name.lower() in {"http_proxy", "https_proxy", "all_proxy"} for name in environment):
        return
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    names = [name.strip() for name in given.split(",") if name.strip()]
    if "*" in names:
        return
    exempt = ",".join([*names, *(name for name in _LOOPBACK if name not in names)])
    environment.update(no_proxy=exempt, NO_PROXY=exempt)


reach_loopback_directly(os.environ)
