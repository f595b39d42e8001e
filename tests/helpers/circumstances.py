"""Circumstances that a command line can meet: damaged data sets and runs, servers that misbehave, full disks."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distgan.data.index import INDEX_NAME, TABLE_NAME, Index
from distgan.search.plan import SearchOptions
from distgan.search.planning import plan_search
from distgan.storage.storage import Storage
from distgan.training.manifest import with_checksum


@dataclass
class Place:
    """Where a case takes place.

    Attributes:
        tmp: an empty folder, the command's working directory.
        words: what `{word}` stands for in the case's command line and message.
    """

    tmp: Path
    request: pytest.FixtureRequest
    patch: pytest.MonkeyPatch
    words: dict[str, str] = field(default_factory=dict)

    def copy(self, fixture: str) -> Path:
        """A copy of what a fixture of the module has made, as `{mine}`."""
        mine = self.tmp / "mine"
        if not mine.exists():
            shutil.copytree(self.request.getfixturevalue(fixture), mine)
        self.words["mine"] = str(mine)
        return mine

    def finally_do(self, action: Callable[[], object]) -> None:
        self.request.addfinalizer(action)


Make = Callable[[Place], object]


def nothing(place: Place) -> None:
    pass


def all_of(*makes: Make) -> Make:
    return lambda place: [make(place) for make in makes]


def files(**contents: bytes) -> Make:
    """Files in the working directory, each under its name with `_` for `.`."""

    def make(place: Place) -> None:
        for name, content in contents.items():
            path = place.tmp / name.replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    return make


def environment(**variables: str) -> Make:
    return lambda place: [place.patch.setenv(name, value) for name, value in variables.items()]


# Data sets.


def index_text(content: bytes) -> Make:
    return lambda place: (place.copy("data") / INDEX_NAME).write_bytes(content)


def header(**changes: Any) -> Make:
    """Other values in `index.json`."""

    def make(place: Place) -> None:
        path = place.copy("data") / INDEX_NAME
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return make


def table(change: Callable[[bytes], bytes]) -> Make:
    """Another `index.table`, of which the header does not know."""

    def make(place: Place) -> None:
        path = place.copy("data") / TABLE_NAME
        path.write_bytes(change(path.read_bytes()))

    return make


def columns(**changes: Callable[[np.ndarray], Any]) -> Make:
    """Other numbers in `index.table`, with a header that agrees."""

    def make(place: Place) -> None:
        storage = Storage.open(str(place.copy("data")))
        index = Index.load(storage)
        changed = {name: change(getattr(index, name).copy()) for name, change in changes.items()}
        _save(storage, dataclasses.replace(index, **changed))

    return make


def put(place: int, value: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(column: np.ndarray) -> np.ndarray:
        column[place] = value
        return column

    return change


def shard(change: Callable[[bytes], bytes] | None) -> Make:
    """Other bytes in the first shard, of which the index does not know; None removes it."""

    def make(place: Place) -> None:
        path = place.copy("data") / "shard-00000.tar"
        if change is None:
            path.unlink()
        else:
            path.write_bytes(change(path.read_bytes()))

    return make


def flipped(place: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def image(content: bytes) -> Make:
    """Another first image, in a shard and index that agree."""

    def make(place: Place) -> None:
        folder = place.copy("data")
        storage = Storage.open(str(folder))
        index = Index.load(storage)
        path = folder / index.header.shards[0].name
        start, length = int(index.offsets[0]), int(index.lengths[0])
        assert len(content) <= length
        data = path.read_bytes()
        data = data[:start] + content.ljust(length, b"\0") + data[start + length :]
        path.write_bytes(data)
        first = index.header.shards[0].model_copy(update={"sha256": hashlib.sha256(data).hexdigest()})
        shards = [first, *index.header.shards[1:]]
        checksums = index.checksums.copy()
        for block in index.blocks:
            if block.shard == 0:
                checksums[block.number] = zlib.crc32(data[block.start : block.end])
        changed = index.header.model_copy(update={"shards": shards})
        _save(storage, dataclasses.replace(index, header=changed, checksums=checksums))

    return make


def _save(storage: Storage, index: Index) -> None:
    digest = hashlib.sha256(index.table_bytes()).hexdigest()
    dataclasses.replace(index, header=index.header.model_copy(update={"table_sha256": digest})).save(storage)


def foreign(*members: tuple[str, bytes], sparse: bool = False) -> Make:
    """The folder `foreign` with one shard of other software."""

    def make(place: Place) -> None:
        folder = place.tmp / "foreign"
        folder.mkdir()
        with tarfile.open(folder / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
            for name, content in members:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                if sparse:
                    member.pax_headers = {"GNU.sparse.map": f"0,{len(content)}", "GNU.sparse.size": "9999"}
                archive.addfile(member, io.BytesIO(content))

    return make


# Runs.

CHECKPOINT = "checkpoints/step-000000002"


def manifest(**changes: Any) -> Make:
    """Other values in the newest checkpoint's manifest; `config` and `progress` are merged into theirs."""

    def make(place: Place) -> None:
        path = place.copy("run") / CHECKPOINT / "manifest.json"
        content = json.loads(path.read_text())
        for name, value in changes.items():
            content[name] = content[name] | value if isinstance(content[name], dict) else value
        path.write_text(json.dumps(with_checksum(content)))

    return make


def checkpoint_file(name: str, change: Callable[[bytes], bytes] | None) -> Make:
    """Other bytes in a file of every checkpoint; None removes it."""

    def make(place: Place) -> None:
        for path in place.copy("run").glob(f"checkpoints/*/{name}"):
            if change is None:
                path.unlink()
            else:
                path.write_bytes(change(path.read_bytes()))

    return make


def state(change: Callable[[bytes], bytes]) -> Make:
    """Another state in every checkpoint, with manifests that agree."""

    def make(place: Place) -> None:
        for folder in place.copy("run").glob("checkpoints/*"):
            content = change((folder / "state.pt").read_bytes())
            (folder / "state.pt").write_bytes(content)
            path = folder / "manifest.json"
            agreeing = {"state_bytes": len(content), "state_sha256": hashlib.sha256(content).hexdigest()}
            path.write_text(json.dumps(with_checksum(json.loads(path.read_text()) | agreeing)))

    return make


# Disks.


def full_disk(place: Place) -> None:
    """`{full}`: a folder on a full disk: a file system of 16 KiB, or one whose writes fail where nobody may mount."""
    folder = place.tmp / "full"
    folder.mkdir()
    place.words["full"] = str(folder)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", folder], stderr=subprocess.DEVNULL, check=False
    )
    if mounted.returncode == 0:
        place.finally_do(lambda: subprocess.run(["umount", "--lazy", folder], check=True))
    else:

        def fail(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        place.patch.setattr(os, "fsync", fail)


def link_to_full_device(name: str) -> Make:
    return lambda place: (place.tmp / name).symlink_to("/dev/full")


# Servers. None of them outlives its case.


def no_server(place: Place) -> None:
    """The endpoint of a port where nobody listens."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    place.finally_do(bound.close)
    _endpoint(place, bound)


def silent_server(place: Place) -> None:
    """An endpoint, and `{port}`, that accepts and never answers; with less patience than usual."""
    listening = socket.create_server(("127.0.0.1", 0))
    place.finally_do(listening.close)
    _endpoint(place, listening)
    _impatient(place)


def web_server(place: Place) -> None:
    """An endpoint that answers everything with a page for people."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    place.finally_do(lambda: (server.shutdown(), thread.join(), server.server_close()))
    _endpoint(place, server.socket)


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        page = b"<html>Please log in</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page)

    do_HEAD = do_PUT = do_POST = do_GET  # noqa: N815

    def log_message(self, *args: object) -> None:
        pass


def _endpoint(place: Place, bound: socket.socket) -> None:
    place.words["port"] = str(bound.getsockname()[1])
    place.patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{place.words['port']}")


def _impatient(place: Place) -> None:
    from distgan.storage import urls

    patience = {"read_timeout": 0.3, "connect_timeout": 0.3, "retries": {"mode": "standard", "total_max_attempts": 1}}
    place.patch.setattr(urls, "_S3_CONFIG", urls._S3_CONFIG | patience)
    place.patch.setattr(urls, "_SEND_TIMEOUT_S", 0.3)


def ray_of_another_version(place: Place) -> None:
    """`{port}`: the head of a Ray cluster that says it is version 1.2.3."""
    from distgan.launch.ray_internals import gcs_service_pb2, gcs_service_pb2_grpc

    class Head(gcs_service_pb2_grpc.NodeInfoGcsServiceServicer):  # type: ignore[misc]
        def CheckAlive(self, request: object, context: object) -> object:
            return gcs_service_pb2.CheckAliveReply(ray_version="1.2.3")

    _grpc_server(place, partial(gcs_service_pb2_grpc.add_NodeInfoGcsServiceServicer_to_server, Head()))


def other_grpc_server(place: Place) -> None:
    """`{port}`: a gRPC server that is no head of a Ray cluster."""
    _grpc_server(place, lambda server: None)


def _grpc_server(place: Place, add_service: Callable[[Any], object]) -> None:
    import grpc

    server = grpc.server(ThreadPoolExecutor(1))
    add_service(server)
    place.words["port"] = str(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    place.finally_do(lambda: server.stop(None).wait())


def impatient_ray(place: Place) -> None:
    from distgan.launch import cluster

    place.patch.setattr(cluster, "_REACHABLE_S", 0.5)


def port_in_use(place: Place) -> None:
    """`{port}`, where another server listens."""
    taken = socket.create_server(("127.0.0.1", 0))
    place.finally_do(taken.close)
    place.words["port"] = str(taken.getsockname()[1])


def bucket(place: Place) -> None:
    """`{bucket}`: an empty bucket of a real S3 server."""
    place.words["bucket"] = place.request.getfixturevalue("bucket")


def s3(place: Place) -> None:
    """The AWS variables of a real S3 server, whose folder is `{store}`."""
    place.words["store"] = str(place.request.getfixturevalue("object_store").directory)


def data_in_bucket(change: Callable[[bytes], bytes]) -> Make:
    """`{bucket}/data`: a data set with changed bytes in its first shard."""

    def make(place: Place) -> None:
        bucket(place)
        shard(change)(place)
        storage = Storage.open(f"{place.words['bucket']}/data")
        for path in filter(Path.is_file, place.copy("data").iterdir()):
            storage.upload(path, path.name)

    return make


def search_begun(change: Callable[[bytes], bytes] | None = None) -> Make:
    """A search of quickstart without trials as `begun`, its record perhaps changed."""

    def make(place: Place) -> None:
        data = str(place.request.getfixturevalue("data"))
        search = plan_search(SearchOptions("quickstart", "begun", str(place.tmp), [f"data.url={data}"]))
        search.record.save(search.search)
        if change is not None:
            file = place.tmp / "begun" / "search.json"
            file.write_bytes(change(file.read_bytes()))

    return make
