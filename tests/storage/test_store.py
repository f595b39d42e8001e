"""The embedded S3 server: start, stop, data and access."""

from __future__ import annotations

import dataclasses
import http.client
import importlib
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest

from distgan.errors import UserError
from distgan.storage.s3_server import security, server
from distgan.storage.s3_server.server import StoreHandle, down, make_buckets, status, up
from distgan.storage.storage import Storage

pytestmark = pytest.mark.timeout(90)


def _processes_in(directory: Path) -> list[int]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("cwd").readlink() == directory:
                found.append(int(process.name))
        except OSError:
            continue
    return found


def _use(handle: StoreHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in handle.environment().items():
        monkeypatch.setenv(name, value)


@pytest.mark.slow
def test_data_and_credentials_outlive_a_stop_and_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "store, with a comma"
    try:
        with ThreadPoolExecutor(2) as pool:
            first, same = pool.map(up, [directory, directory])
        assert first == same == status(directory)
        _use(first, monkeypatch)
        storage = Storage.open("s3://bricks/run")
        storage.ensure()
        storage.write_bytes("kept", b"through a stop")
        assert down(directory)
        assert status(directory) is None
        assert _processes_in(directory) == []
        assert not down(directory)

        second = up(directory)
        assert dataclasses.replace(second, pid=first.pid) == first
        assert storage.read_bytes("kept") == b"through a stop"
        storage.write_bytes("kept", b"through a crash")
        os.kill(second.pid, signal.SIGKILL)
        os.waitid(os.P_PID, second.pid, os.WEXITED | os.WNOWAIT)
        assert status(directory) is None

        third = up(directory)
        assert dataclasses.replace(third, pid=first.pid) == first
        assert storage.read_bytes("kept") == b"through a crash"
    finally:
        down(directory)
    assert _processes_in(directory) == []


def test_up_is_idempotent(object_store: StoreHandle) -> None:
    port = int(object_store.endpoint.rpartition(":")[2])
    assert up(object_store.directory) == object_store == up(object_store.directory, port=port)
    with pytest.raises(UserError, match=f"runs at {object_store.endpoint}"):
        up(object_store.directory, port=port + 1)


def test_files_are_for_this_user_only(object_store: StoreHandle) -> None:
    for path in object_store.directory.iterdir():
        allowed = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == allowed, path
    assert object_store.secret_key not in repr(object_store)
    assert object_store.secret_key not in (object_store.directory / "weed.log").read_text()
    assert object_store.secret_key.encode() not in Path(f"/proc/{object_store.pid}/cmdline").read_bytes()


def test_a_shell_can_source_the_environment(object_store: StoreHandle) -> None:
    names = sorted(object_store.environment())
    script = f". {object_store.directory}/env.sh; " + "; ".join(f'echo "${name}"' for name in names)
    shown = subprocess.run(["sh", "-c", script], env={}, capture_output=True, text=True, check=True, timeout=10)
    assert shown.stdout.splitlines() == [object_store.environment()[name] for name in names]


def test_it_listens_on_the_loopback_interface_only(object_store: StoreHandle) -> None:
    inodes = set()
    for descriptor in Path(f"/proc/{object_store.pid}/fd").iterdir():
        target = str(descriptor.readlink())
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    listening = "0A"
    addresses = []
    for table in ("tcp", "tcp6"):
        rows = [line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
        addresses += [row[1].split(":")[0] for row in rows if row[3] == listening and row[9] in inodes]
    assert len(addresses) == 8
    assert set(addresses) == {"0100007F"}


def _message(*fields: bytes) -> bytes:
    """A protobuf message of short strings (or messages), numbered from 1."""
    return b"".join(bytes([number << 3 | 2, len(field)]) + field for number, field in enumerate(fields, start=1))


_IDENTITY = _message(_message(b"stranger", _message(b"STRANGERSKEY", b"strangers-secret"), b"Admin"))
_CALLS = {
    "/messaging_pb.SeaweedS3IamCache/PutIdentity": _IDENTITY,
    "/filer_pb.SeaweedFiler/ListEntries": _message(b"/buckets"),
    "/filer_pb.SeaweedFiler/DeleteEntry": _message(b"/buckets/inside", b"kept"),
    "/master_pb.Seaweed/VolumeList": b"",
    "/volume_server_pb.VolumeServer/VolumeServerStatus": b"",
}
_KEPT = ("/buckets/inside/kept", "/inside/kept")
_REQUESTS = (
    *(("GET", path) for path in ("/", "/buckets/", *_KEPT, "/dir/status", "/dir/assign")),
    *((verb, path) for verb in ("PUT", "POST", "DELETE", "OPTIONS") for path in _KEPT),
)


def _answers_http(address: str, port: int, encrypted: bool) -> list[str]:
    """The requests that are granted without credentials. OPTIONS comes from web pages."""
    trusting = ssl._create_unverified_context()
    granted = []
    for verb, path in _REQUESTS:
        if encrypted:
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                address, port, timeout=5, context=trusting
            )
        else:
            connection = http.client.HTTPConnection(address, port, timeout=5)
        try:
            page = {"Origin": "https://a.page", "Access-Control-Request-Method": "DELETE"}
            connection.request(verb, path, b"overwritten" if verb[0] == "P" else None, page)
            answer = connection.getresponse()
            if answer.status < 400:
                granted.append(f"{verb} {path}: {answer.status}")
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
    return granted


def _answers_grpc(address: str, port: int, certificate: bytes | None) -> list[str]:
    target = f"{address}:{port}"
    if certificate is None:
        channel = grpc.insecure_channel(target)
    else:
        name = [("grpc.ssl_target_name_override", "127.0.0.1")]
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(certificate), options=name)
    granted = []
    with channel:
        for method, message in _CALLS.items():
            try:
                list(channel.unary_stream(method)(message, timeout=5))
                granted.append(method)
            except grpc.RpcError as error:
                # A server that took the message and found it wanting would have let a better one in.
                if error.code() != grpc.StatusCode.UNAVAILABLE:
                    granted.append(f"{method}: {error.code()}")
    return granted


def test_no_port_answers_without_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = up(tmp_path / "store", host="127.0.0.9")
    try:
        _use(handle, monkeypatch)
        storage = Storage.open("s3://inside")
        storage.ensure()
        storage.write_bytes("kept", b"as it was")
        certificate = (tmp_path / "store" / "inner" / "certificate.pem").read_bytes()
        listening = {
            (connection.laddr.ip, connection.laddr.port)
            for connection in psutil.Process(handle.pid).net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        assert {address for address, _ in listening} == {"127.0.0.1", "127.0.0.9"}
        granted = {}
        for address, port in sorted(listening):
            for encrypted in (False, True):
                granted[address, port, encrypted] = [
                    *_answers_http(address, port, encrypted),
                    *_answers_grpc(address, port, certificate if encrypted else None),
                ]
        assert {key: found for key, found in granted.items() if found} == {}
        sockets = [connection.laddr for connection in psutil.Process(handle.pid).net_connections("unix")]
        assert {stat.S_IMODE(Path(name).stat().st_mode) for name in sockets if name.startswith("/")} == {0o700}
        assert storage.read_bytes("kept") == b"as it was"
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "STRANGERSKEY")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "strangers-secret")
        with pytest.raises(UserError, match="the access key is not known"):
            storage.read_bytes("kept")
    finally:
        down(tmp_path / "store")


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} on 127.0.0.1 cannot be used"):
            up(tmp_path / "store", port=port)
    with pytest.raises(UserError, match="port 70000 is not a port number"):
        up(tmp_path / "store", port=70000)
    assert status(tmp_path / "store") is None


@pytest.mark.parametrize("name", ["sleep", "weed"])
def test_a_foreign_process_with_our_number_is_left_alone(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "store"
    directory.mkdir()
    with subprocess.Popen([name, "60"], executable="/bin/sleep", cwd=tmp_path) as foreign:
        try:
            state = {"access_key": "a", "secret_key": "b", "ports": {"s3.port": 1}, "pid": foreign.pid}
            (directory / "state.json").write_text(json.dumps(state))
            assert status(directory) is None
            assert not down(directory)
            assert foreign.poll() is None
        finally:
            foreign.kill()


def test_a_server_that_stops_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "store" / "data").mkdir(parents=True)
    (tmp_path / "store" / "data" / "filerldb2").write_text("a file where the server wants a folder")
    with pytest.raises(
        UserError, match=r"the store stopped while it started; last line of weed.log there: F.*filerldb2"
    ):
        up(tmp_path / "store")
    assert _processes_in(tmp_path / "store") == []


def test_a_server_that_is_late_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the store is not ready in time"):
        up(tmp_path / "store", timeout=0.2)
    assert status(tmp_path / "store") is None
    assert _processes_in(tmp_path / "store") == []


def test_no_binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"pip install 'distgan\[store\]'"):
        up(tmp_path / "store")


def test_no_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, security.__name__)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(UserError, match=r"pip install 'distgan\[store\]'"):
        importlib.reload(server)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot hold a store"):
        up(tmp_path / "file" / "store")
    assert not down(tmp_path / "none")
    assert status(tmp_path / "none") is None


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(UserError, match=r"state\.json: cannot be read"):
        status(tmp_path)


def test_buckets_are_made_once_and_a_refused_name_is_one_line(object_store: StoreHandle) -> None:
    make_buckets(object_store, ["test-one", "test-two"])
    make_buckets(object_store, ["test-one"])
    for name in ("test-one", "test-two"):
        Storage.open(f"s3://{name}").require()
    with pytest.raises(UserError, match="the buckets Not_Allowed! cannot be made"):
        make_buckets(object_store, ["Not_Allowed!"])
