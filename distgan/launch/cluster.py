"""Connects to a Ray cluster, or starts one on this machine and stops it again."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from distgan.errors import UserError

_OBJECT_STORE_BYTES = 100_000_000
_REACHABLE_S = 10.0

# For a cluster of our own: no reports home, no chatter, and workers that its own services do not push aside.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
}


@contextmanager
def ray_cluster(address: str | None) -> Iterator[bool]:
    """Inside, Ray is connected to `address`, to RAY_ADDRESS, or to a cluster of its own on this machine.

    Yields whether the cluster is its own. Raises UserError where the address cannot be used.
    """
    for key, value in _QUIET.items():
        os.environ.setdefault(key, value)
    address = address or os.environ.get("RAY_ADDRESS") or None
    own = address in {None, "local"}
    if not own:
        _check_reachable(str(address))
    try:
        if own:
            ray.init(
                address="local",
                num_cpus=len(os.sched_getaffinity(0)),
                object_store_memory=_OBJECT_STORE_BYTES,
                include_dashboard=True,
                dashboard_host="127.0.0.1",
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        else:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"Ray at {address or 'this machine'}: cannot be used: {reason}; "
            f"check --address and that the cluster runs Ray {ray.__version__}"
        ) from None
    try:
        yield own
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raises UserError at once where nothing listens; Ray itself would try for minutes."""
    if address == "auto":
        return
    if "://" in address:
        raise UserError(
            f"--address {address}: give HOST:PORT of the cluster's head, on a machine that is in the cluster"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--address {address}: write HOST:PORT, as in 10.0.0.1:6379, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=_REACHABLE_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"Ray at {address}: nothing answers there ({error}); check --address and that the cluster is up"
        ) from None
