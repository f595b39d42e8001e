"""Data on plain web servers, and file systems of other libraries: works, or is one line."""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import proxy_bypass_environment

import fsspec
import pytest
from botocore.utils import get_environ_proxies
from fsspec.spec import AbstractFileSystem
from requests.utils import should_bypass_proxies

import distgan
from distgan.data.blocks import BlockReader
from distgan.data.index import Index
from distgan.data.verify import verify
from distgan.errors import UserError
from distgan.storage import urls
from distgan.storage.s3_server.security import secure
from distgan.storage.storage import NotFoundError, Storage, UnavailableError
from toy_data import pack_numbered
from web_files import web_server

pytestmark = pytest.mark.timeout(30)
_FILE = bytes(range(100))


class _Handler(BaseHTTPRequestHandler):
    status = 200
    ranges = True
    endless = False
    file = _FILE

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        status, body = self.status, self.file
        wanted = self.headers.get("Range")
        if wanted and self.ranges and status == 200:
            start, end = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
            status, body = (206, self.file[start : end + 1]) if start < len(self.file) else (416, b"")
        self.send_response(status)
        if not self.endless:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        try:
            self.wfile.write(body)
            while self.endless:
                self.wfile.write(bytes(2**16))
        except OSError:  # the client has enough
            pass


@contextmanager
def _server(encrypted_by: Path | None = None, **what: Any) -> Iterator[Storage]:
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), what)) as server:
        if encrypted_by is not None:
            secure(encrypted_by)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            inner = encrypted_by / "inner"
            context.load_cert_chain(inner / "certificate.pem", inner / "key.pem")
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Storage.open(f"http{'s' if encrypted_by else ''}://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()


def test_a_server_with_ranges() -> None:
    with _server() as storage:
        assert storage.read_bytes("a") == _FILE
        assert storage.read_ranges([("a", 90, 200), ("a", 3, 5), ("a", 100, 101)]) == [_FILE[90:], _FILE[3:5], b""]
        assert storage.exists("a")


def test_a_server_without_ranges_gives_whole_files_and_the_start_of_them() -> None:
    with _server(ranges=False) as storage:
        assert storage.read_bytes("a") == _FILE
        assert storage.read_range("a", 0, 10) == _FILE[:10]
        with pytest.raises(UserError, match=r"/a: the server sends only whole files.* copy the data to a disk"):
            storage.read_range("a", 3, 5)


def test_data_on_a_server_without_ranges_is_told_as_such(tmp_path: Path) -> None:
    pack_numbered(tmp_path, 20)
    with web_server(tmp_path, ranges=False) as (url, _):
        storage = Storage.open(url)
        index = Index.load(storage)
        with pytest.raises(UserError, match=r"shard-00000\.tar: the server sends only whole files") as caught:
            BlockReader(storage, index).read(index.blocks)
        assert verify(storage) == [str(caught.value)]
    with web_server(tmp_path) as (url, _):
        assert verify(Storage.open(url)) == []


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, r"access denied \(HTTP 401\)"),
        (403, r"access denied \(HTTP 403\)"),
        (418, r"the server refuses \(HTTP 418\)"),
        (429, r"overloaded or failing \(HTTP 429\)"),
        (500, r"overloaded or failing \(HTTP 500\)"),
        (503, r"overloaded or failing \(HTTP 503\)"),
    ],
)
def test_a_status_is_in_the_message(status: int, message: str, tmp_path: Path) -> None:
    with _server(status=status) as storage:
        for read in (
            lambda: storage.read_bytes("a"),
            lambda: storage.read_range("a", 1, 2),
            lambda: storage.exists("a"),
            lambda: storage.download("a", tmp_path / "a"),
        ):
            with pytest.raises(UserError, match=f"^{storage.url}/a: .*{message}"):
                read()


@pytest.mark.parametrize("knows_head", [True, False])
def test_the_size_of_a_file(knows_head: bool) -> None:
    head = {"do_HEAD": lambda self: self.do_GET()} if knows_head else {}
    with _server(**head) as storage:
        assert storage.size("a") == len(_FILE)
    with _server(status=503, **head) as storage, pytest.raises(UnavailableError, match="HTTP 503"):
        storage.size("a")
    with _server(status=404, **head) as storage, pytest.raises(NotFoundError):
        storage.size("a")
    with _server(endless=True) as storage, pytest.raises(UserError, match="does not say how large it is"):
        storage.size("a")


def test_a_server_that_fails_for_a_while_is_waited_for() -> None:
    for status, waited in ((429, True), (500, True), (503, True), (403, False)):
        with _server(status=status) as storage, pytest.raises(UserError) as error:
            storage.read_range("a", 0, 9)
        assert isinstance(error.value, UnavailableError) == waited


def test_what_is_not_there() -> None:
    with _server(status=404) as storage:
        assert not storage.exists("a")
        with pytest.raises(NotFoundError):
            storage.read_bytes("a")


def test_an_untrusted_certificate(tmp_path: Path) -> None:
    expected = r"certificate is not trusted \(self-signed certificate\); name a file .* in SSL_CERT_FILE$"
    with _server(encrypted_by=tmp_path) as storage, pytest.raises(UserError, match=expected):
        storage.read_bytes("a")


def test_an_untrusted_certificate_of_an_s3_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    expected = r"certificate is not trusted \(self-signed certificate\); name a file .* in AWS_CA_BUNDLE \(endpoint"
    with _server(encrypted_by=tmp_path) as storage:
        monkeypatch.setenv("AWS_ENDPOINT_URL", storage.url)
        with pytest.raises(UserError, match=expected):
            Storage.open("s3://bucket/folder").read_bytes("a")


@pytest.mark.parametrize(
    ("status", "words", "waited"),
    [(401, "access denied", False), (418, "the server refuses", False), (520, "overloaded or failing", True)],
)
def test_a_status_that_s3_does_not_know_is_in_the_message(
    status: int, words: str, waited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a proxy before the store."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    with _server(status=status, file=b"", do_HEAD=lambda self: self.do_GET()) as storage:
        monkeypatch.setenv("AWS_ENDPOINT_URL", storage.url)
        with pytest.raises(
            UserError, match=rf"^s3://bucket/folder/a: .*{words} .*\(HTTP {status}\).*endpoint"
        ) as caught:
            Storage.open("s3://bucket/folder").read_bytes("a")
        assert isinstance(caught.value, UnavailableError) == waited


def test_https_where_http_is_spoken() -> None:
    with _server() as storage:
        wrong = Storage.open(storage.url.replace("http:", "https:"))
        with pytest.raises(UserError, match="no secure connection with the server"):
            wrong.read_bytes("a")


def test_a_server_that_never_stops_sending_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "_MOST_BYTES", 2**21)
    with _server(endless=True, ranges=False) as storage:
        assert len(storage.read_range("a", 0, 1000)) == 1000
        with pytest.raises(UserError, match="too large to be read at once"):
            storage.read_bytes("a")


def test_a_file_for_the_disk_and_a_list_that_never_end_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urls, "_MOST_FILE_BYTES", 2**21)
    with _server() as storage:
        storage.download("a", tmp_path / "a")
        assert (tmp_path / "a").read_bytes() == _FILE
    with _server(endless=True) as storage:
        with pytest.raises(UserError, match="/a: more than 2,097,152 bytes; give a smaller file"):
            storage.download("a", tmp_path / "b")
        with pytest.raises(UserError, match="the list of its files has more than 16 MiB"):
            storage.list()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_list_of_a_folder_is_what_its_page_links_to() -> None:
    page = b"""<link href="style.css"><a href="../">up</a><a class=x HREF = 'a.tar'>a</a><A href="/data/b.tar">
        <a href="c/"><a href="http://elsewhere.example/d.tar"><a """
    with _server(file=page) as storage:
        assert storage.child("data").list() == ["a.tar", "b.tar", "c"]
    started = time.monotonic()
    for page in (b"<a " * 10**5, b"<a" + b" " * 10**5, b"<a href='" * 10**5):
        with _server(file=page) as storage:
            assert storage.list() == []
    assert time.monotonic() - started < 20


def test_a_folder_whose_list_fails_is_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(handler: _Handler) -> None:
        if "gone" in handler.path:
            handler.status = 404
        elif "lost" in handler.path:
            handler.connection.close()
            return
        _Handler.do_GET(handler)

    page = b'<a href="a.png"></a><a href="?C=N;O=D"></a>'
    with _server(file=page + b'<a href="gone/"></a>', do_GET=answer) as storage:
        assert storage.find() == ["a.png"]
        assert storage.child("gone").find() == []
    with _server(file=page + b'<a href="lost/"></a>', do_GET=answer) as storage, pytest.raises(UnavailableError):
        storage.find()
    monkeypatch.setattr(urls, "_MOST_FOLDERS", 100)
    with (
        _server(file=page + b'<a href="below/"></a>') as storage,
        pytest.raises(UserError, match="more than 100 folders"),
    ):
        storage.find()


class _LibraryError(Exception):
    """An error such as those of httpx and gcsfs."""


class _RefusedError(OSError):
    response = type("Response", (), {"status_code": 403})


_ERRORS = {
    "own": _LibraryError("no\nway to https://host/path?sig=secret"),
    "value": ValueError("Unable to connect"),
    "refusal": _RefusedError(),
    "bug": TypeError("not our circumstance"),
}


class _ForeignFileSystem(AbstractFileSystem):  # type: ignore[misc]
    protocol = "foreign"

    def cat_file(self, path: str, *_: object, **__: object) -> bytes:
        raise _ERRORS[path.rpartition("/")[2]]


def test_errors_of_other_libraries_are_one_line() -> None:
    fsspec.register_implementation("foreign", _ForeignFileSystem, clobber=True)
    storage = Storage.open("foreign://place")
    for name, line in {
        "own": "the library behind foreign:// failed (_LibraryError: no way to …); check the URL and the network",
        "value": "the library behind foreign:// failed (ValueError: Unable to connect); check the URL and the network",
        "refusal": "access denied (HTTP 403); check the name and the credentials",
    }.items():
        with pytest.raises(UserError) as caught:
            storage.read_bytes(name)
        assert str(caught.value) == f"foreign://place/{name}: {line}"
    with pytest.raises(TypeError):
        storage.read_bytes("bug")


@pytest.mark.parametrize("host", ["localhost:80", "127.0.0.1:80", "[::1]:80"])
def test_loopback_is_never_asked_through_a_proxy(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = "http://192.0.2.1:3128"
    for given in ({}, {"NO_PROXY": "inside.example"}, {"no_proxy": "*"}):
        environment = {"HTTP_PROXY": proxy, "all_proxy": proxy, **given}
        distgan.reach_loopback_directly(environment)
        with monkeypatch.context() as patch:
            for name in ("NO_PROXY", "no_proxy"):
                patch.delenv(name, raising=False)
            for name, value in environment.items():
                patch.setenv(name, value)
            assert proxy_bypass_environment(host)
            assert should_bypass_proxies(f"http://{host}/", None)
            assert get_environ_proxies(f"http://{host}/") == {}
            assert proxy_bypass_environment("inside.example") == bool(given)
            assert proxy_bypass_environment("outside.example") == ("no_proxy" in given)
    untouched = {"PATH": "/bin"}
    distgan.reach_loopback_directly(untouched)
    assert untouched == {"PATH": "/bin"}


def test_a_store_on_loopback_is_reached_whatever_the_proxy(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    script = f"from distgan.storage.storage import Storage; Storage.open({bucket!r}).require()"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=25)
