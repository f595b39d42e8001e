"""Connects to a Ray cluster, or starts one on this machine and stops it again."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._common.utils import get_default_system_temp_dir
from ray._private import ray_constants
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from ray.exceptions import AuthenticationError

from distgan.data.temporary import private_folder
from distgan.errors import UserError
from distgan.launch.device import cluster_address
from distgan.launch.head import check_head
from distgan.launch.ray_messages import shorten_ray_messages
from distgan.launch.signals import keeping_sigterm

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
    runtime = _runtime(sources)
    shorten_ray_messages()
    try:
        with keeping_sigterm():
            if own:
                _stay_on_loopback()
                ray.init(
                    address="local",
                    num_cpus=len(os.sched_getaffinity(0)),
                    object_store_memory=_OBJECT_STORE_BYTES,
                    include_dashboard=True,
                    dashboard_host="127.0.0.1",
                    _temp_dir=_session_folder(),
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    runtime_env=runtime,
                )
            else:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=runtime)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError, AuthenticationError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"Ray at {address or 'this machine'}: cannot be used: {reason:.400}; "
            f"check --address and that the cluster runs Ray {ray.__version__}"
        ) from None
    try:
        yield own
    finally:
        ray.shutdown()
        if own:
            _stay_on_loopback(False)


def _runtime(sources: Sequence[str]) -> dict[str, Any] | None:
    """Ray's environment with these sources, or None.

    A submitted job has one already, which holds the folder that it runs in; what is not in there is added to it.
    """
    given = os.environ.get(RAY_JOB_CONFIG_JSON_ENV_VAR)
    if given is None:
        return {"py_modules": list(sources)} if sources else None
    here = Path.cwd().resolve()
    outside = [source for source in sources if here not in Path(source).resolve().parents]
    if not outside:
        return None
    os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"
    return {"py_modules": [*(json.loads(given)["runtime_env"].get("py_modules") or []), *outside]}


def _session_folder() -> str:
    """Where Ray keeps sockets, logs and shipped code: in a folder of this user's, since Ray opens its own to everyone.

    The path is short: that of a socket may have 107 bytes, of which Ray takes about 64.
    """
    place: str = get_default_system_temp_dir()  # type: ignore[no-untyped-call]
    return str(private_folder(Path(place, f"distgan-{os.getuid()}")) / "ray")


def _stay_on_loopback(stay: bool = True) -> None:
    """Whether what Ray starts listens on 127.0.0.1 alone.

    By default most of its ports are open on all addresses of a machine. Ray has a switch for systems whose firewalls
    ask about such ports; it reads it once, as it is imported.
    """
    ray_constants.ENABLE_RAY_CLUSTER = not stay
    os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = str(int(not stay))
