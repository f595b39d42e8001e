"""A folder at a URL: on a disk, in S3 or in anything else that fsspec knows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from botocore import exceptions as boto

from distgan.bounds import check_regular, check_size, open_regular
from distgan.errors import UserError
from distgan.storage.local_files import TEMPORARY, replacing
from distgan.storage.storage_errors import (
    EXPIRED,
    NOT_S3,
    NotFoundError,
    UnavailableError,
    hub_line,
    s3_code,
    translate_errors,
)
from distgan.storage.urls import (
    LOCAL_PROTOCOLS,
    S3_PROTOCOLS,
    WEB_PROTOCOLS,
    check_name,
    escaped_name,
    filesystem_of,
    plain_name,
    renew_credentials,
    root_of,
    split_url,
)

__all__ = ["FileFacts", "NotFoundError", "Storage", "UnavailableError", "translate_errors"]

_WITH_FOLDERS = ("hdfs", "webhdfs", "sftp", "ssh", "smb", "ftp")

_BROKEN_BODY = (
    aiohttp.ClientPayloadError,
    boto.IncompleteReadError,
    boto.ResponseStreamingError,
)

_BODY_ATTEMPTS = 3

# Where file systems of fsspec have a file's ETag: s3, http and gs, az, hf.
_ETAG_KEYS = ("ETag", "etag", "blob_id")


@dataclass(frozen=True)
class FileFacts:
    """What a store says of a file without sending it.

    Attributes:
        size: in bytes; None where a web server does not say.
        etag: changes with the content; None where the store has none, as a disk.
    """

    size: int | None
    etag: str | None


@dataclass(frozen=True)
class Storage:
    """A folder at a URL, and the files below it by name (`index.json`, `shards/000001.tar`).

    An instance holds strings only: it can be pickled, shared between threads and kept across a fork. S3 credentials
    and the endpoint come only from the standard AWS chain (environment, profile files, instance role). Every method
    raises `UserError` for what the store, the network or the disk refuses, and `NotFoundError` for a missing file.

    Attributes:
        url: normalized, without a trailing slash; a local folder is an absolute path.
        protocol: fsspec's name for the kind of storage: `file`, `s3`, `gs`, `memory`.
        root: the folder's name in fsspec's file system: `bucket/prefix` for S3.
    """

    url: str
    protocol: str
    root: str

    @classmethod
    def open(cls, url: str) -> Storage:
        """The folder at `url`, which need not exist and is not contacted.

        Raises:
            UserError: a chained or piped URL, credentials in the URL, a protocol that is unknown or not
                installed, an S3 URL without a bucket.
        """
        protocol, rest = split_url(url)
        if protocol in LOCAL_PROTOCOLS:
            try:
                path = os.path.abspath(Path(rest).expanduser())  # noqa: PTH100 - `..` resolved without symlinks
            except RuntimeError:
                raise UserError(f"{url}: there is no such user; write ./{rest} for a folder of that name") from None
            return cls(path, "file", path)
        check_name(url, rest.strip("/"), remote=True)
        normalized = f"{protocol}://{rest.strip('/')}"
        root = root_of(normalized, protocol)
        if protocol in WEB_PROTOCOLS:
            root = plain_name(root, protocol)
            check_name(url, root.partition("://")[2], remote=False)
        return cls(normalized, protocol, root)

    @property
    def fs(self) -> Any:
        """The fsspec file system: one a process and set of AWS variables, without a listing cache."""
        return filesystem_of(self.url, self.protocol)

    @property
    def is_local(self) -> bool:
        """Whether the folder is on a disk of this machine."""
        return self.protocol == "file"

    @property
    def local_path(self) -> Path | None:
        """The folder as a path; None if it is not local."""
        return Path(self.root) if self.is_local else None

    def child(self, name: str) -> Storage:
        """The folder `name` below this one.

        Raises:
            UserError: `name` is absolute, empty or has a part `.` or `..`.
        """
        root = self._join(self.root, name)
        return Storage(f"{self.url.rstrip('/')}/{escaped_name(name, self.protocol)}", self.protocol, root)

    def exists(self, name: str) -> bool:
        """Whether a file or folder exists. A missing bucket is an error, not False."""
        path = self._path(name)
        with self._errors(name):
            found = self._exists(path)
            if not found and self.protocol in S3_PROTOCOLS:
                self._probe_bucket()
            return found

    def read_bytes(self, name: str, *, most: int | None = None) -> bytes:
        """The whole file. Raises UserError for more than `most` bytes, without reading more."""
        if most is not None:
            data = self.read_start(name, most + 1)
            check_size(data, f"{self.url}/{name}", most)
            return data
        path = self._path(name)
        with self._errors(name):
            if self.is_local:
                check_regular(path)
            return _read_whole(lambda: self.fs.cat_file(path))

    def read_start(self, name: str, count: int) -> bytes:
        """The first `count` bytes of a file; all of a shorter one."""
        if not self.is_local:
            return self.read_range(name, 0, count)
        with self._errors(name), open_regular(self._path(name)) as file:
            return file.read(min(count, os.fstat(file.fileno()).st_size))

    def size(self, name: str) -> int:
        """Bytes of a file. A folder of that name counts as a missing file."""
        found = self.facts(name).size
        if found is None:
            raise UserError(f"{self.url}/{name}: the server does not say how large it is; copy it to a disk")
        return found

    def facts(self, name: str) -> FileFacts:
        """Size and ETag of a file. A folder of that name counts as a missing file."""
        path = self._path(name)
        with self._errors(name):
            try:
                found = self.fs.info(path)
            except NotADirectoryError:
                found = {"type": "nothing"}
            if found["type"] != "file":
                raise NotFoundError(f"{self.url}/{name}: this is no file")
            etag = next((str(found[key]) for key in _ETAG_KEYS if found.get(key)), None)
            return FileFacts(None if found["size"] is None else int(found["size"]), etag)

    def modified(self, name: str) -> float | None:
        """When a file was last written, in seconds since 1970; None where the storage does not say."""
        with self._errors(name):
            try:
                found: float = self.fs.modified(self._path(name)).timestamp()
            except NotImplementedError:
                return None
            return found

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """Bytes `[start, end)` of a file; fewer, or none, if the file ends before."""
        return self.read_ranges([(name, start, end)])[0]

    def read_ranges(self, requests: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Several ranges `(name, start, end)`, requested concurrently, in the order of `requests`."""
        assert all(0 <= start < end for _, start, end in requests)
        paths = [self._path(name) for name, _, _ in requests]
        if not paths:
            return []
        starts = [start for _, start, _ in requests]
        ends = [end for _, _, end in requests]
        if self.is_local:
            for name, path in {name: path for (name, _, _), path in zip(requests, paths, strict=True)}.items():
                with self._errors(name):
                    check_regular(path)
        with self._errors(""):
            found = self.fs.cat_ranges(paths, starts, ends, on_error="return")
        return [
            self._range(request, path, result) if isinstance(result, Exception) else bytes(result)
            for request, path, result in zip(requests, paths, found, strict=True)
        ]

    def write_bytes(self, name: str, data: bytes) -> None:
        """Writes or replaces a file, atomically on disks and object stores."""
        path = self._path(name)
        with self._errors(name):
            if self.is_local:
                with replacing(Path(path)) as temporary:
                    temporary.write_bytes(data)
            else:
                self._make_parents(path)
                self.fs.pipe_file(path, data)

    def upload(self, local: Path, name: str) -> None:
        """Copies a local file here: `write_bytes` for a file that need not fit in memory."""
        path = self._path(name)
        with translate_errors(str(local)), open_regular(local):
            pass
        with self._errors(name):
            if self.is_local:
                with replacing(Path(path)) as temporary:
                    shutil.copyfile(local, temporary)
            else:
                self._make_parents(path)
                self.fs.put_file(str(local), path)

    def download(self, name: str, local: Path, *, most: int | None = None) -> None:
        """Copies a file from here to `local`, atomically; makes the folder of `local`.

        Raises UserError for a file of more than `most` bytes, without copying more.
        """
        path = self._path(name)
        if most is not None and (size := self.facts(name).size) is not None and size > most:
            raise UserError(f"{self.url}/{name}: has {size:,} bytes; at most {most:,} are read; give a smaller file")
        bound = {"most": most} if most is not None and self.protocol in WEB_PROTOCOLS else {}
        with translate_errors(str(local.parent)):
            local.parent.mkdir(parents=True, exist_ok=True)
        with self._errors(name), replacing(local) as temporary:
            if self.is_local:
                check_regular(path)
            self.fs.get_file(path, str(temporary), **bound)

    def find(self) -> list[str]:
        """The names of all files below, in sub-folders too, sorted; none for a missing folder."""
        with self._errors(""):
            try:
                # fsspec leaves out folders that cannot be listed where it asks for one after the other.
                paths = self.fs.find(self.root, **({"on_error": "raise"} if self.protocol in _WITH_FOLDERS else {}))
            except FileNotFoundError as error:
                if hub_line(error) is not None:  # no such repository
                    raise
                paths = []
            if not paths and self.protocol in S3_PROTOCOLS:
                self._probe_bucket()
        prefix = f"{self.root.rstrip('/')}/"
        return sorted(path[len(prefix) :] for path in paths if path.startswith(prefix) and not path.endswith("/"))

    def list(self) -> list[str]:
        """The names of the files and folders directly below, sorted; none for a missing folder."""
        with self._errors(""):
            try:
                paths = self.fs.ls(self.root, detail=False)
            except FileNotFoundError as error:
                if self.protocol in S3_PROTOCOLS:
                    self._probe_bucket()
                if hub_line(error) is not None:  # no such repository
                    raise
                return []
        prefix = f"{self.root.rstrip('/')}/"
        names = {path[len(prefix) :].rstrip("/") for path in paths if path.startswith(prefix)}
        return sorted(name for name in names if name and not name.startswith(TEMPORARY))

    def delete(self, name: str) -> None:
        """Removes a file, or a folder with its content. Does nothing if neither exists."""
        path = self._path(name)
        with self._errors(name):
            try:
                if self.protocol in S3_PROTOCOLS:
                    self._delete_s3(path)
                elif not self.is_local:
                    self.fs.rm(path, recursive=True)
                elif Path(path).is_dir() and not Path(path).is_symlink():
                    shutil.rmtree(path)
                else:
                    Path(path).unlink()
            except FileNotFoundError:
                if self.protocol in S3_PROTOCOLS:
                    self._probe_bucket()

    def require(self) -> None:
        """Checks that the folder exists; for S3, that its bucket exists and the credentials are accepted.

        Raises:
            NotFoundError: a folder that does not exist.
            UserError: a missing bucket, a wrong key, an endpoint that cannot be reached, a file in its place.
        """
        with self._errors(""):
            if self.protocol in S3_PROTOCOLS:
                self._probe_bucket()
            elif not self._exists(self.root):
                raise NotFoundError(f"{self.url}: the folder does not exist; check the name")
            elif not self.fs.isdir(self.root):
                raise UserError(f"{self.url}: this is a file, not a folder")

    def prepare(self) -> None:
        """Makes the folder if it does not exist. A bucket must exist: its name may be a mistake."""
        if self.protocol in S3_PROTOCOLS:
            self.require()
        else:
            self.ensure()

    def ensure(self) -> None:
        """Makes the folder, or the S3 bucket, if it does not exist."""
        with self._errors(""):
            if self.protocol in S3_PROTOCOLS:
                self._make_bucket()
            else:
                self.fs.makedirs(self.root, exist_ok=True)

    def _path(self, name: str) -> str:
        return self._join(self.root, name)

    def _join(self, folder: str, name: str) -> str:
        check_name(f"{self.url}: {name!r}", name, remote=not self.is_local and self.protocol not in WEB_PROTOCOLS)
        return f"{folder.rstrip('/')}/{name}"

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        url = f"{self.url.rstrip('/')}/{name}" if name else self.url
        try:
            with translate_errors(url, self._probe_bucket if self.protocol in S3_PROTOCOLS else None):
                yield
        except UnavailableError as error:
            if s3_code(error.__cause__) == EXPIRED:
                renew_credentials()
            raise

    def _exists(self, path: str) -> bool:
        if self.protocol != "hf":
            return bool(self.fs.exists(path))
        try:
            self.fs.info(path)  # the hub's own `exists` takes every refusal for a missing file
        except FileNotFoundError as error:
            if hub_line(error) is not None:
                raise
            return False
        return True

    def _probe_bucket(self) -> None:
        """Raises botocore's precise error if the bucket is missing or the credentials are refused."""
        answer = self.fs.call_s3("list_objects_v2", Bucket=self.root.split("/")[0], MaxKeys=1)
        if "Name" not in answer:
            raise UserError(f"{self.url}: {NOT_S3}")

    def _delete_s3(self, path: str) -> None:
        """Removes the objects, then the folder markers that some stores keep and list for a while."""
        found = self.fs.find(path, withdirs=True, detail=True)
        self.fs.rm(path, recursive=True)
        folders = [folder for folder, info in found.items() if info["type"] == "directory"]
        for folder in sorted(folders, reverse=True):
            if folder.startswith(path):
                bucket, _, key = folder.partition("/")
                self.fs.call_s3("delete_object", Bucket=bucket, Key=f"{key}/")

    def _make_bucket(self) -> None:
        try:
            self._probe_bucket()
        except FileNotFoundError:
            region = self.fs.s3.meta.region_name
            place = {} if region in {"us-east-1", "aws-global"} else {"LocationConstraint": region}
            options = {"CreateBucketConfiguration": place} if place else {}
            try:
                self.fs.call_s3("create_bucket", Bucket=self.root.split("/")[0], **options)
            except FileExistsError as error:
                if s3_code(error) != "BucketAlreadyOwnedByYou":
                    raise

    def _make_parents(self, path: str) -> None:
        if self.protocol in _WITH_FOLDERS:
            self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)

    def _range(self, request: tuple[str, int, int], path: str, error: Exception) -> bytes:
        """The result for a range whose concurrent request failed with `error`."""
        name, start, end = request
        with self._errors(name):
            if s3_code(error) in {"InvalidRange", "416"}:
                return b""
            if isinstance(error, _BROKEN_BODY):
                return _read_whole(lambda: self.fs.cat_file(path, start=start, end=end))
            raise error


def _read_whole(read: Callable[[], Any]) -> bytes:
    """The bytes of `read`, which is called again if the connection breaks within the body."""
    for _ in range(_BODY_ATTEMPTS - 1):
        try:
            return bytes(read())
        except _BROKEN_BODY:
            continue
    return bytes(read())
