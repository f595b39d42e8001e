"""Connects to a Ray cluster, or starts one on this machine and stops it again."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import grpc
import pyarrow.fs
import ray
from ray.exceptions import AuthenticationError

from distgan.errors import UserError
from distgan.launch import ray_internals
from distgan.launch.jobs.profiles import find_token
from distgan.launch.local import cluster_address
from distgan.launch.ray_errors import shorten_ray_messages
from distgan.launch.signals import preserve_sigterm
from distgan.storage.local_files import private_folder
from distgan.storage.storage import Storage

_FOLDER = "ray"

RayStorage = tuple[str, pyarrow.fs.FileSystem | None]


@contextmanager
def ray_storage(run: Storage) -> Iterator[RayStorage]:
    """A folder of the run where Ray Train keeps its state, as a path and a file system; removed afterwards.

    Ray reads it only while one command runs, to restart a lost controller or lost workers. Leave the context after Ray
    has ended. Storage that refuses to delete keeps the folder, and the next command of the run removes it.
    """
    storage = run.child(_FOLDER)
    try:
        if storage.is_local:
            yield str(storage.local_path), None
        else:  # through the same fsspec as everything else
            yield storage.root, pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(storage.fs))
    finally:
        with suppress(UserError):
            run.delete(_FOLDER)


_REACHABLE_S = 10.0


def check_head(address: str) -> None:
    """Raises UserError within seconds where no head with this environment's version of Ray answers."""
    if address == "auto":
        try:
            address = ray_internals.head_address(address)
        except ConnectionError:
            raise UserError("--address auto: no Ray runs on this machine; start one, or give HOST:PORT") from None
    if "://" in address:
        raise UserError(
            f"--address {address}: give HOST:PORT of the cluster's head, on a machine that is in the cluster"
        )
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()):
        raise UserError(f"--address {address}: write HOST:PORT, as in 10.0.0.1:6379, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACHABLE_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise UserError(
            f"Ray at {address}: nothing answers there ({error}); check --address and that the cluster is up"
        ) from None
    version = _version(address)
    if version and version != ray.__version__:
        raise UserError(
            f"Ray at {address}: the cluster runs Ray {version}, and here is {ray.__version__}; install one version"
        )


def _version(address: str) -> str:
    """Ray's version at a head, which gets this user's token where it asks for one."""
    reply = _ask(address)
    if reply is None and not ray_internals.sends_token() and find_token() is not None:
        ray_internals.send_token()
        reply = _ask(address)
    if reply is None and find_token() is None:
        raise UserError(
            f"Ray at {address}: it asks for a token and there is none here; set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, "
            f"or copy the cluster's token to ~/.ray/auth_token"
        )
    if reply is None:
        raise UserError(
            f"Ray at {address}: the token is not that of this cluster; look at RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or "
            f"~/.ray/auth_token"
        )
    return reply


def _ask(address: str) -> str | None:
    """Ray's version at a head; None where it refuses the token, or asks for one."""
    try:
        return ray_internals.head_version(address, _REACHABLE_S)
    except AuthenticationError:  # in token mode, without one
        return None
    except grpc.RpcError as error:
        if error.code() in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}:
            return None
        raise UserError(
            f"Ray at {address}: what listens there does not answer as the head of a Ray cluster does "
            f"({error.code().name}); check --address"
        ) from None


_HEAD_CHECK_S = 3.0


class HeadWatch:
    """Notices that the head of the connected cluster does not answer any more.

    Ray itself ends this process without a word after 60 s, and workers cannot be restarted before.

    Args:
        patience_s: a head that a cluster's operator restarts is back by then.
    """

    def __init__(self, patience_s: float) -> None:
        self._address: str = ray.get_runtime_context().gcs_address
        self._patience_s = patience_s
        self._answered = self._checked = time.monotonic()

    def check(self) -> None:
        """Asks the head every few seconds. Raises UserError where it has been silent for too long."""
        if time.monotonic() < self._checked + _HEAD_CHECK_S:
            return
        if ray_internals.head_answers(self._address, _HEAD_CHECK_S):
            self._answered = time.monotonic()
        self._checked = time.monotonic()
        silent = self._checked - self._answered
        if silent > self._patience_s:
            raise UserError(
                f"Ray at {self._address}: the head of the cluster has not answered for {silent:.0f} s; start the "
                f"cluster again; the same command resumes from the last checkpoint"
            )


_OBJECT_STORE_BYTES = 100_000_000

# The longest path of a socket, and what Ray appends to its folder: a session's name and `sockets/plasma_store`.
_SOCKET_BYTES, _RAY_BYTES = 107, 64

_log = logging.getLogger(__name__)

# No usage reports, no chatter, workers as urgent as Ray's own services, no connection but the one asked for.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",
}

# The watcher for a cloud's preemption notices would be one more process on this machine.
# Ray Train looks after its workers every 2 s; it would notice that late that they have ended.
# A search has several processes a trial, most of them idle: Ray would warn of their number.
_ALONE = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_worker_maximum_startup_concurrency": "16",
}


@contextmanager
def ray_cluster(address: str | None, sources: Sequence[str] = (), dashboard: bool = False) -> Iterator[bool]:
    """Connects to Ray at `address` or RAY_ADDRESS, or starts a cluster on this machine and stops it afterwards.

    Yields whether the cluster was started here. Raises UserError where the address or the token cannot be used.

    Args:
        sources: files and folders of Python modules that the workers of any node can import.
        dashboard: whether a cluster that is started here has Ray's dashboard, a dozen processes. A search needs it:
            without it Ray does not free the places of the Ray Train runs of trials that are stopped.
    """
    address = cluster_address(address)
    own = address is None
    if ray_internals.sends_token():
        find_token()  # Ray's own message about a file that is not there is long and cut off
    for key, value in (_QUIET | _ALONE if own else _QUIET).items():
        os.environ.setdefault(key, value)
    if address is not None:
        check_head(address)
    folder = _session_folder() if own else None
    runtime = _runtime(sources)
    shorten_ray_messages()
    with ray_internals.loopback_only() if own else nullcontext():
        try:
            with preserve_sigterm():
                if folder is not None:
                    ray_internals.start_local(
                        folder,
                        num_cpus=len(os.sched_getaffinity(0)),
                        object_store_memory=_OBJECT_STORE_BYTES,
                        include_dashboard=dashboard,
                        dashboard_host="127.0.0.1",
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


def _runtime(sources: Sequence[str]) -> dict[str, Any] | None:
    """Ray's runtime environment with these sources, or None.

    A submitted job has one already, which holds its working folder; sources outside that folder are added to it.
    """
    given = ray_internals.submitted_environment()
    if given is None:
        return {"py_modules": list(sources)} if sources else None
    here = Path.cwd().resolve()
    outside = [source for source in sources if here not in Path(source).resolve().parents]
    if not outside:
        return None
    os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"
    return {"py_modules": [*(given.get("py_modules") or []), *outside]}


def _session_folder() -> Path:
    """Ray's folder for sockets, logs and shipped code. It is below a private one, as Ray opens its own to everyone."""
    return private_folder(_temporary_folder() / f"distgan-{os.getuid()}") / "ray"


def _temporary_folder() -> Path:
    """RAY_TMPDIR or TMPDIR, by default /tmp.

    Where Ray cannot use TMPDIR, another folder replaces it, also for processes started from here: Ray's have sockets
    there too. Raises UserError where Ray cannot use RAY_TMPDIR, or no folder.
    """
    fallback, ray_folder = os.environ.get("TMPDIR") or "/tmp", os.environ.get("RAY_TMPDIR")
    remedy = "set RAY_TMPDIR to a folder with a short path that you can write"
    if ray_folder and (reason := _folder_problem(Path(ray_folder))):
        raise UserError(f"RAY_TMPDIR={ray_folder:.300}: Ray cannot use it: {reason}; {remedy}")
    if reason := _folder_problem(Path(fallback)):
        others = [ray_folder] if ray_folder else ["/tmp", "/var/tmp", "/dev/shm"]
        found = next((folder for folder in others if _folder_problem(Path(folder)) is None), None)
        if found is None:
            raise UserError(f"TMPDIR={fallback:.300}: Ray cannot use it: {reason}; {remedy}")
        _log.warning("TMPDIR=%.300s: Ray cannot use it: %s; its files are in %s", fallback, reason, found)
        fallback = os.environ["TMPDIR"] = found
    return Path(ray_folder or fallback).absolute()


def _folder_problem(folder: Path) -> str | None:
    """Why Ray cannot keep sockets and files below a folder, which is made if missing; None where it can."""
    folder = folder.absolute()
    most = _SOCKET_BYTES - _RAY_BYTES - len(f"/distgan-{os.getuid()}/ray")
    if len(os.fsencode(folder)) > most:
        return f"its path has {len(os.fsencode(folder))} bytes, and the paths of sockets leave room for {most}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        Path(tempfile.mkdtemp(dir=folder)).rmdir()
    except OSError as error:
        return error.strerror or str(error)
    return None
