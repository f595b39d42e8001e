"""Connects to a Ray cluster, or starts one on this machine and stops it again."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import ray

from distgan.errors import UserError
from distgan.launch.device import cluster_address
from distgan.launch.head import check_head

_OBJECT_STORE_BYTES = 100_000_000

# No reports home, no chatter, workers that Ray's own services do not push aside, no connection but the one asked for.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",
}
# Whoever watches for a cloud's notice that a machine is taken away is a process more on this one.
# A search has several processes a trial, most of which idle: Ray would warn of their number.
_ALONE = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", "RAY_worker_maximum_startup_concurrency": "16"}


@contextmanager
def ray_cluster(address: str | None, sources: Sequence[str] = ()) -> Iterator[bool]:
    """Inside, Ray is connected to `address`, to RAY_ADDRESS, or to a cluster of its own on this machine.

    `sources` are files and folders of Python modules that workers, wherever they are, can import.
    Yields whether the cluster is its own. Raises UserError where the address cannot be used.
    """
    address = cluster_address(address)
    own = address is None
    for key, value in (_QUIET | _ALONE if own else _QUIET).items():
        os.environ.setdefault(key, value)
    if address is not None:
        check_head(address)
    runtime = {"py_modules": list(sources)} if sources else None
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
                runtime_env=runtime,
            )
        else:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=runtime)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"Ray at {address or 'this machine'}: cannot be used: {reason:.400}; "
            f"check --address and that the cluster runs Ray {ray.__version__}"
        ) from None
    try:
        yield own
    finally:
        ray.shutdown()
