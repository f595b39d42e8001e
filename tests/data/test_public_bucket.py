"""Data in a bucket that anybody may read, without credentials."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import fsspec
import pytest

from distgan.data.index import Index
from distgan.data.shard_index import index_shards
from distgan.data.shard_source import ShardSource
from distgan.data.verify import verify
from distgan.errors import UserError
from distgan.storage import urls
from distgan.storage.storage import Storage
from runs import run, tiny_config
from served import served
from web_files import FileHandler

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]


class _PublicBucket(FileHandler):
    """A stand-in of an S3 server: anybody may read objects, nobody may list or write, no key is known."""

    def do_GET(self) -> None:
        if (
            "Authorization" in self.headers
            or "list-type" in self.path
            or not Path(self.translate_path(self.path)).is_file()
        ):
            self.refuse()
        else:
            super().do_GET()

    def refuse(self) -> None:
        body = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.refuse()


def test_a_public_bucket_is_read_and_trained_on_without_credentials(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(data, tmp_path / "public" / "data", ignore=shutil.ignore_patterns("statistics"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with served(partial(_PublicBucket, directory=str(tmp_path), asked=[], lists=False, ranges=True)) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        storage = Storage.open("s3://public/data")
        with pytest.raises(UserError, match=r"no usable credentials; .*for a public bucket set FSSPEC_S3_ANON=true"):
            storage.read_bytes("index.json")
        monkeypatch.setattr(urls, "_filesystems", {})  # as in a new process
        conf: dict[str, dict[str, object]] = {}
        fsspec.config.set_conf_env(conf, {"FSSPEC_S3_ANON": "true"})
        monkeypatch.setitem(fsspec.config.conf, "s3", conf["s3"])
        assert verify(storage) == []
        index = Index.load(storage)
        names = ShardSource.parse(f"{storage.url}/shard-{{00000..{len(index.header.shards) - 1:05}}}.tar")
        assert len(index_shards(names, to=Storage.open(str(tmp_path / "index")))) == len(index)
        summary, _ = run(tiny_config("quickstart", storage.url, 2), str(tmp_path / "runs"))
        assert summary.reason == "budget"
        with pytest.raises(UserError, match="access denied"):
            storage.write_bytes("x", b"x")
