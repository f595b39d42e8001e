"""Storage on a disk and on a real S3 server."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from distgan.errors import UserError
from distgan.storage.s3_server.server import StoreHandle
from distgan.storage.storage import NotFoundError, Storage, translate_errors
from served import served

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return Storage.open(str(tmp_path / "folder"))
    return Storage.open(f"{request.getfixturevalue('bucket')}/folder")


def test_round_trips(storage: Storage, tmp_path: Path) -> None:
    storage.write_bytes("index.json", b"{}")
    storage.write_bytes("index.json", b'{"shards": []}')
    storage.child("shards").write_bytes("000.tar", bytes(range(100)))
    source = tmp_path / "source"
    source.write_bytes(os.urandom(300_000))
    storage.upload(source, "shards/001.tar")
    target = tmp_path / "new" / "target"
    storage.download("shards/001.tar", target)

    assert storage.read_bytes("index.json") == b'{"shards": []}'
    assert storage.read_bytes("shards/000.tar") == bytes(range(100))
    assert target.read_bytes() == source.read_bytes()
    assert [path.name for path in target.parent.iterdir()] == ["target"]
    assert storage.list() == ["index.json", "shards"]
    assert storage.child("shards").list() == ["000.tar", "001.tar"]
    assert storage.exists("index.json")
    assert storage.exists("shards")
    assert not storage.exists("index")
    storage.require()


def test_an_empty_file_round_trips(storage: Storage) -> None:
    storage.write_bytes("empty", b"")
    assert storage.read_bytes("empty") == b""
    assert storage.read_range("empty", 0, 10) == b""


def test_ranges_come_in_order_and_stop_at_the_end_of_the_file(storage: Storage) -> None:
    contents = {f"{i}.bin": os.urandom(1000) for i in range(3)}
    for name, data in contents.items():
        storage.write_bytes(name, data)
    requests = [(f"{i % 3}.bin", i * 20, i * 20 + 50) for i in range(40)] + [
        ("2.bin", 990, 1200),
        ("0.bin", 1000, 1001),
    ]
    assert storage.read_ranges(requests) == [contents[name][start:end] for name, start, end in requests]
    assert storage.read_ranges([]) == []


def test_a_missing_file_among_ranges_is_named(storage: Storage) -> None:
    storage.write_bytes("there", b"0123")
    with pytest.raises(NotFoundError, match=f"{storage.url}/gone: not found"):
        storage.read_ranges([("there", 0, 2), ("gone", 0, 2)])


def test_missing_files(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=f"{storage.url}/gone: not found"):
        storage.read_bytes("gone")
    with pytest.raises(NotFoundError, match="gone"):
        storage.download("gone", tmp_path / "target")
    assert list(tmp_path.glob("*target*")) == []
    assert storage.list() == []
    assert storage.child("none/such").list() == []


def test_listing_sees_what_another_writer_did(storage: Storage) -> None:
    storage.write_bytes("a", b"1")
    assert storage.list() == ["a"]
    writer = multiprocessing.get_context("fork").Process(target=_write_as_another_process, args=(storage,))
    writer.start()
    writer.join(20)
    assert writer.exitcode == 0
    assert storage.list() == ["a", "b"]
    assert storage.exists("b")


def _write_as_another_process(storage: Storage) -> None:
    Storage.open(storage.url).write_bytes("b", storage.read_bytes("a"))


def test_delete(storage: Storage) -> None:
    for name in ("step-1/model/weights", "step-1/manifest", "step-10/manifest", "step-2"):
        storage.write_bytes(name, b"1")
    storage.delete("step-2")
    storage.delete("step-1")
    storage.delete("step-1")
    storage.delete("never")
    assert storage.list() == ["step-10"]
    assert not storage.exists("step-1")
    assert storage.read_bytes("step-10/manifest") == b"1"


def test_ensure_can_be_repeated(storage: Storage) -> None:
    storage.ensure()
    storage.write_bytes("a", b"1")
    storage.ensure()
    assert storage.list() == ["a"]


def test_threads_share_one_storage(storage: Storage) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: storage.write_bytes(f"{i}", bytes([i]) * 1000), range(24)))
        assert list(pool.map(lambda i: storage.read_bytes(f"{i}")[0], range(24))) == list(range(24))


def test_pickling_keeps_no_connection_or_secret(bucket: str, object_store: StoreHandle) -> None:
    storage = Storage.open(bucket)
    storage.write_bytes("a", b"1")
    pickled = pickle.dumps(storage)
    assert object_store.secret_key.encode() not in pickled
    assert pickle.loads(pickled).read_bytes("a") == b"1"


def test_its_file_system_can_be_pickled(bucket: str) -> None:
    storage = Storage.open(bucket)
    storage.write_bytes("a", b"1")
    traveled = pickle.loads(pickle.dumps(storage.fs))
    assert traveled.cat_file(f"{storage.root}/a") == b"1"
    assert traveled.session is not storage.fs.session


@pytest.mark.parametrize("name", ["", "/etc/passwd", "..", "a/../../b", "a//b", "./a", "a/", "a\0b"])
def test_names_that_leave_the_folder_are_refused(storage: Storage, name: str) -> None:
    for operation in (storage.child, storage.read_bytes, storage.delete, storage.exists):
        with pytest.raises(UserError, match="a name has parts"):
            operation(name)


def test_patterns_are_refused_in_remote_names(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be used in a remote name"):
        Storage.open(bucket).delete("step-*")
    with pytest.raises(UserError, match="cannot be used in a remote name"):
        Storage.open(f"{bucket}/run[1]")
    Storage.open(str(tmp_path / "run[1]")).write_bytes("a*", b"1")
    assert (tmp_path / "run[1]" / "a*").read_bytes() == b"1"


def test_urls_are_normalized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Storage.open("runs/../data/").url == str(tmp_path / "data")
    assert Storage.open(f"file://{tmp_path}/data/").local_path == tmp_path / "data"
    assert Storage.open("/").child("data").url == "/data"
    s3 = Storage.open("s3://bricks/a/b/")
    assert (s3.url, s3.root, s3.is_local, s3.local_path) == ("s3://bricks/a/b", "bricks/a/b", False, None)
    assert Storage.open("s3://bricks").child("a/b") == s3
    assert Storage.open(s3.url) == s3


def test_any_other_file_system_of_fsspec_works() -> None:
    storage = Storage.open("memory://distgan-test/run")
    storage.ensure()
    storage.write_bytes("sub/a", b"0123")
    assert storage.read_range("sub/a", 1, 3) == b"12"
    assert storage.list() == ["sub"]
    storage.delete("sub")
    assert storage.list() == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "not a URL"),
        ("pipe:cat /etc/passwd", "shell pipes are never run"),
        ("pipe://cat", "unknown protocol pipe://"),
        ("s3:/bricks", "write s3://bucket/folder"),
        ("s3://", "a name has parts"),
        ("s3://bricks/../other", "a name has parts"),
        ("s4://bricks", r"did you mean s3://\? Installed: file, memory, s3"),
        ("gs://bricks", "install gcsfs"),
        ("simplecache::s3://bricks", "chained URLs"),
        ("sftp://me:hidden@host/data", "no passwords in a URL"),
        ("simplecache::s3://me:hidden@bricks", "no passwords in a URL"),
        ("s3://me:hid/hidden@bricks/data", "^s3://…: no passwords in a URL"),
        ("s3:/me:hidden@bricks", "^s3:/…: no passwords in a URL"),
        ("https://hidden@host/data", "^https://…: no passwords in a URL"),
        ("https://host/data?X-Amz-Signature=hidden", "^https://…: no passwords in a URL"),
        ("s3://[bricks", "cannot be used in a remote name"),
        ("file://relative/path", "needs an absolute path"),
    ],
)
def test_rejected_urls(url: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Storage.open(url)
    assert "hidden" not in str(caught.value)


def _every_operation(storage: Storage, tmp_path: Path) -> Iterator[pytest.ExceptionInfo[UserError]]:
    """Runs each operation, which must fail, and yields its error."""
    (tmp_path / "source").write_bytes(b"1")
    for operation in (
        lambda: storage.read_bytes("a"),
        lambda: storage.read_range("a", 0, 1),
        lambda: storage.exists("a"),
        lambda: storage.list(),
        lambda: storage.write_bytes("a", b"1"),
        lambda: storage.upload(tmp_path / "source", "a"),
        lambda: storage.download("a", tmp_path / "target"),
        lambda: storage.delete("a"),
        lambda: storage.require(),
    ):
        with pytest.raises(UserError) as caught:
            operation()
        yield caught


def test_a_missing_bucket_and_a_missing_key_differ(object_store: StoreHandle, tmp_path: Path) -> None:
    expected = (
        "s3://no-such-bucket: the bucket does not exist; create it or check the name "
        f"(endpoint {object_store.endpoint})"
    )
    for caught in _every_operation(Storage.open("s3://no-such-bucket/run"), tmp_path):
        assert str(caught.value) == expected
        assert not isinstance(caught.value, NotFoundError)


def test_a_wrong_secret(bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Storage.open(bucket).write_bytes("a", b"1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    for caught in _every_operation(Storage.open(bucket), tmp_path):
        assert "the secret key is wrong; check AWS_SECRET_ACCESS_KEY" in str(caught.value)
        assert bucket in str(caught.value)
        assert "not-the-secret" not in str(caught.value)


def test_an_unknown_access_key(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "NOBODY")
    with pytest.raises(UserError, match="the access key is not known; check AWS_ACCESS_KEY_ID"):
        Storage.open(bucket).require()


def test_no_credentials(bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(UserError, match="no usable credentials; set AWS_ACCESS_KEY_ID"):
        Storage.open(bucket).list()
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(UserError, match="no usable credentials"):
        Storage.open(bucket).list()


def test_credentials_from_a_profile_file(
    bucket: str, object_store: StoreHandle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    profile = tmp_path / "credentials"
    profile.write_text(
        f"[lab]\naws_access_key_id={object_store.access_key}\naws_secret_access_key={object_store.secret_key}\n"
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(profile))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    Storage.open(bucket).require()


def test_an_unreachable_endpoint(object_store: StoreHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        started = time.monotonic()
        with pytest.raises(UserError, match=f"s3://bricks/a: .* cannot be reached.* {endpoint}"):
            Storage.open("s3://bricks").read_bytes("a")
        assert time.monotonic() - started < 20


def test_an_endpoint_that_is_not_a_url(object_store: StoreHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:8333")
    with pytest.raises(UserError, match="AWS_ENDPOINT_URL is not a URL"):
        Storage.open("s3://bricks").list()


def test_an_endpoints_password_is_not_shown(object_store: StoreHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://me:hidden@127.0.0.1:1")
    with pytest.raises(UserError) as caught, translate_errors("s3://bricks/a"):
        raise FileNotFoundError
    assert "(endpoint http://127.0.0.1:1)" in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://me:hid/hidden@127.0.0.1:1", "me:hidden@127.0.0.1:1", "http://127.0.0.1:1?sig=hidden"]
)
def test_an_endpoints_secret_is_not_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    with pytest.raises(UserError) as caught, translate_errors("s3://bricks/a"):
        raise FileNotFoundError
    assert "127.0.0.1:1" in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_what_is_no_regular_file_is_never_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    storage = Storage.open(str(tmp_path))
    for name in ("pipe", "zeros"):
        for read in (
            lambda name=name: storage.read_bytes(name),
            lambda name=name: storage.read_bytes(name, most=10),
            lambda name=name: storage.read_range(name, 0, 10),
            lambda name=name: storage.download(name, tmp_path / "copy"),
        ):
            with pytest.raises(UserError, match=f"{name}: is no regular file"):
                read()


def test_a_file_is_read_up_to_a_limit(storage: Storage) -> None:
    storage.write_bytes("ten", b"0123456789")
    storage.write_bytes("none", b"")
    assert storage.read_bytes("ten", most=10) == b"0123456789"
    assert storage.read_bytes("none", most=10) == b""
    assert storage.read_start("ten", 3) == b"012"
    with pytest.raises(UserError, match="ten: it is larger than 9 bytes"):
        storage.read_bytes("ten", most=9)


def test_a_name_that_cannot_be_a_bucket(object_store: StoreHandle) -> None:
    with pytest.raises(UserError, match="not a valid bucket name"):
        Storage.open("s3://Bad_Bucket!").ensure()


class _BreaksOnce(BaseHTTPRequestHandler):
    """Truncates the first body, as a broken connection does."""

    bodies: list[bytes]

    def do_GET(self) -> None:
        self.send_response(206)
        self.send_header("Content-Length", "10")
        self.end_headers()
        self.wfile.write(self.bodies.pop(0))

    def log_message(self, *args: object) -> None:
        pass


def test_a_body_that_breaks_off_is_read_again(object_store: StoreHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = type("Handler", (_BreaksOnce,), {"bodies": [b"01234", b"0123456789"]})
    with served(handler) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        assert Storage.open("s3://bricks").read_range("a", 0, 10) == b"0123456789"


def test_a_path_below_a_file(tmp_path: Path) -> None:
    """Fails even for root, who may write anywhere."""
    (tmp_path / "file").write_bytes(b"1")
    storage = Storage.open(str(tmp_path / "file" / "run"))
    for operation in (storage.ensure, storage.list, lambda: storage.write_bytes("a", b"1")):
        with pytest.raises(UserError, match=rf"{storage.url}.*: .*choose another place"):
            operation()
    with pytest.raises(UserError, match="this is a file, not a folder"):
        Storage.open(str(tmp_path / "file")).require()
    with pytest.raises(NotFoundError, match="the folder does not exist"):
        Storage.open(str(tmp_path / "none")).require()
    with pytest.raises(UserError, match="this is a folder, not a file"):
        Storage.open(str(tmp_path.parent)).read_bytes(tmp_path.name)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_named() -> None:
    with pytest.raises(UserError, match="/dev/full: no space left on the disk"), translate_errors("/dev/full"):
        Path("/dev/full").write_bytes(b"1")


def test_a_failed_local_write_leaves_the_old_file(tmp_path: Path) -> None:
    storage = Storage.open(str(tmp_path))
    storage.write_bytes("a", b"old")
    with pytest.raises(UserError, match="missing: not found"):
        storage.upload(tmp_path / "missing", "a")
    with pytest.raises(TypeError):
        storage.write_bytes("a", "text")  # type: ignore[arg-type]
    assert storage.read_bytes("a") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_local_reader_never_sees_a_part(tmp_path: Path) -> None:
    storage = Storage.open(str(tmp_path))
    size, seen, stop = 3_000_000, set[bytes](), threading.Event()
    storage.write_bytes("a", bytes(size))

    def read() -> None:
        while not stop.is_set():
            data = storage.read_bytes("a")
            seen.add(data[:1] + data[-1:] if len(data) == size else b"part")
            assert storage.list() == ["a"]

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        for i in range(10):
            storage.write_bytes("a", bytes([i]) * size)
        stop.set()
        reading.result()
    assert seen <= {bytes([i, i]) for i in range(10)}


def test_bugs_are_not_translated() -> None:
    with pytest.raises(ZeroDivisionError), translate_errors("s3://bricks"):
        _ = 1 / 0
