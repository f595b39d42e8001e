"""From a storage URL to the fsspec file system that serves it."""

from __future__ import annotations

import difflib
import importlib.util
import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urljoin

import aiohttp
import fsspec
from aiobotocore.session import AioSession
from botocore.handlers import add_expect_header
from fsspec.implementations.http import HTTPFileSystem

from distgan.errors import UserError
from distgan.text import without_credentials


class S3Session(AioSession):  # type: ignore[misc]
    """A session without `Expect: 100-continue`, whose answer aiohttp waits for without a limit.

    Unpickling makes a new one: credentials come from the environment of the process that unpickles it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unregister("before-call.s3", add_expect_header)

    def __reduce__(self) -> tuple[type[S3Session], tuple[()]]:
        return S3Session, ()


LOCAL_PROTOCOLS = ("file", "local")

S3_PROTOCOLS = ("s3", "s3a")

WEB_PROTOCOLS = ("http", "https")

_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "hdfs": "pyarrow"}

_EXTRAS = {"hf": "hub"}

_SEND_TIMEOUT_S = 30


def _open_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket with a limit for unacknowledged data: aiohttp has none for sending."""
    family, kind, protocol, *_ = address
    opened = socket.socket(family, kind, protocol)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(_SEND_TIMEOUT_S * 1000))
    return opened


_S3_CONFIG = {
    "connect_timeout": 5,
    "read_timeout": 30,
    "retries": {"mode": "standard", "total_max_attempts": 3},
    "max_pool_connections": 32,
    "connector_args": {"socket_factory": _open_socket},
}

_filesystems: dict[tuple[object, ...], Any] = {}


def split_url(url: str) -> tuple[str, str]:
    """Protocol and path of a URL; a plain path has protocol `file`."""
    if not url or "\0" in url:
        raise UserError(f"{url!r} is not a URL; give a local path or a URL such as s3://bucket/folder")
    if url.encode(errors="replace").decode() != url:
        raise UserError(f"{url!r}: not UTF-8; rename it")
    protocol, separator, rest = url.partition("://")
    if without_credentials(url) != url:
        scheme = re.match("[A-Za-z0-9+.-]*(:/*)?", url)
        assert scheme is not None
        raise UserError(f"{scheme[0]}…: no passwords in a URL; use the environment or a profile file")
    if "::" in url:
        raise UserError(f"{url}: chained URLs (`::`) are not supported; give the URL of the folder itself")
    if separator and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", protocol):
        if protocol in LOCAL_PROTOCOLS and not rest.startswith("/"):
            raise UserError(f"{url}: a {protocol}:// URL needs an absolute path; write {protocol}:///folder")
        return protocol, rest
    word, colon, _ = url.partition(":")
    if colon and word in {"pipe", *fsspec.available_protocols()}:
        raise UserError(f"{url}: not a URL of a folder (shell pipes are never run); write s3://bucket/folder")
    return "file", url


def check_name(what: str, name: str, remote: bool) -> None:
    """Raises UserError for names that could leave the folder, or that fsspec reads as patterns in remote stores."""
    if not name or "\0" in name or any(part in {"", ".", ".."} for part in name.split("/")):
        raise UserError(f"{what}: a name has parts joined by single slashes, none of them `.` or `..`")
    if remote and any(sign in name for sign in "*?[]"):
        raise UserError(f"{what}: the characters * ? [ ] cannot be used in a remote name; rename it")


def plain_name(name: str, protocol: str) -> str:
    """A name as a user types it in a URL, without the percent escapes that web addresses have."""
    return unquote(name, errors="surrogateescape") if protocol in WEB_PROTOCOLS else name


def escaped_name(name: str, protocol: str) -> str:
    """A name as it stands in a URL: the reverse of `plain_name`."""
    return quote(name, safe=_LITERAL, errors="surrogateescape") if protocol in WEB_PROTOCOLS else name


# Characters of a web address that need no escape. A plus is escaped: some stores read it as a space.
_LITERAL = "/!$&'()*,;=:@~"


def filesystem_class(url: str, protocol: str) -> Any:
    if protocol in WEB_PROTOCOLS:
        return WebFileSystem
    try:
        found = fsspec.get_filesystem_class(protocol)
        if protocol == "hf":
            _silence_hub()
        return found
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        hint = f"install {package} (pip install {package})" if package else str(error)
        if protocol in _EXTRAS:
            hint = f"pip install 'distgan[{_EXTRAS[protocol]}]'"
        raise UserError(f"{url}: {protocol}:// needs a package that is not installed; {hint}") from error
    except ValueError as error:
        near = difflib.get_close_matches(protocol, ["file", "memory", *_PACKAGES], n=1, cutoff=0.5)
        installed = [name for name, module in _PACKAGES.items() if importlib.util.find_spec(module)]
        raise UserError(
            f"{url}: unknown protocol {protocol}://; {f'did you mean {near[0]}://? ' if near else ''}"
            f"Installed: {', '.join(['file', 'memory', *installed])}"
        ) from error


def _silence_hub() -> None:
    """No progress bars and no warnings of each attempt of a download; its errors are translated."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars

    if not are_progress_bars_disabled():
        disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def root_of(url: str, protocol: str) -> str:
    """The folder's name in its file system. Raises UserError for a protocol that needs more than a URL."""
    filesystem = filesystem_class(url, protocol)
    with _report_missing_options(url, protocol):
        return str(filesystem._strip_protocol(url))


@contextmanager
def _report_missing_options(url: str, protocol: str) -> Iterator[None]:
    """Reports file systems of fsspec that wrap another one, or need a host or token besides the URL."""
    try:
        yield
    except (AttributeError, TypeError, ValueError) as error:
        reason = f" ({error})" if isinstance(error, ValueError) else ""
        raise UserError(
            f"{url}: {protocol}:// needs more than a URL{reason}; use a local path, s3:// or gs://"
        ) from error


def filesystem_of(url: str, protocol: str) -> Any:
    """The process's file system for a URL.

    A forked process and a changed set of AWS variables get their own. fsspec's instance cache is not used: it makes
    one a thread.
    """
    filesystem = filesystem_class(url, protocol)
    with _report_missing_options(url, protocol):
        options = filesystem._get_kwargs_from_urls(url)
    variables = sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))
    key = (os.getpid(), protocol, repr(options), tuple(variables) if protocol in S3_PROTOCOLS else ())
    if key not in _filesystems:
        if protocol in S3_PROTOCOLS:
            options |= {"config_kwargs": _S3_CONFIG, "session": S3Session()}
        with _report_missing_options(url, protocol):
            created = filesystem(skip_instance_cache=True, use_listings_cache=False, **options)
        if protocol in S3_PROTOCOLS:
            created.retries = 1  # botocore's standard retries; s3fs would multiply them
        _filesystems.setdefault(key, created)
    return _filesystems[key]


def renew_credentials() -> None:
    """From now on this process reads S3 credentials anew. botocore refreshes those of roles, not those of a file."""
    for key in [key for key in _filesystems if key[1] in S3_PROTOCOLS]:
        _filesystems.pop(key, None)


_MOST_BYTES = 2**31

_MOST_FILE_BYTES = 2**34  # of a file downloaded to the disk

# A large file takes as long as it takes, unless nothing comes.
_DOWNLOAD_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)

_MOST_PAGE_BYTES = 2**24  # of a folder's listing page

_MOST_FOLDERS, _MOST_FILES = 100_000, 10_000_000  # that links lead to

_CHUNK_BYTES = 2**20

_LINK = re.compile(r"<a\s[^<>]{0,500}?\bhref\s?=\s?[\"']([^\"'<>\s]{1,1000})", re.IGNORECASE)


class WebFileSystem(HTTPFileSystem):  # type: ignore[misc]
    """fsspec's HTTP file system with five corrections.

    Names are plain, `a b%.tar`, and escaped in requests only. A server that ignores `Range` and sends the whole file is
    an error, not the requested part. What a server sends is bounded. A server that refuses or fails is an error, not a
    missing file, nor a folder without files. Links with a query, as for another order of a list, are no files.
    """

    def encode_url(self, url: str) -> Any:
        """The address to ask for, as yarl.URL, of a URL whose path is plain."""
        scheme, _, rest = url.partition("://")
        host, slash, path = rest.partition("/")
        return super().encode_url(f"{scheme}://{host}").with_path(slash + escaped_name(path, scheme), encoded=True)

    async def _cat_file(self, url: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        if start is None and end is None:
            return await self._read(url, 0, _MOST_BYTES, **kwargs)
        if start is None or end is None or not 0 <= start < end:
            raise NotImplementedError(f"bytes {start} to {end}")
        headers = {"Range": f"bytes={start}-{end - 1}", **kwargs.pop("headers", {})}
        return (await self._read(url, start, end, headers=headers, **kwargs))[: end - start]

    async def _read(self, url: str, start: int, end: int, **options: Any) -> bytes:
        """Bytes `[start, end)`, or a few more; fewer if the file ends before."""
        session = await self.set_session()
        async with session.get(self.encode_url(url), **self.kwargs, **options) as answer:
            if answer.status == 416:  # the range starts after the end
                return b""
            self._raise_not_found_for_status(answer, url)
            if start > 0 and answer.status != 206:
                raise UserError(
                    f"{url}: the server sends only whole files, not parts of them (HTTP ranges); "
                    "use a server that does, or copy the data to a disk"
                )
            found = bytearray()
            while len(found) < end - start and (chunk := await answer.content.read(_CHUNK_BYTES)):
                found += chunk
            if len(found) >= _MOST_BYTES:
                raise UserError(f"{url}: more than {_MOST_BYTES // 2**30} GiB; too large to be read at once")
            return bytes(found)

    async def _get_file(self, rpath: str, lpath: str, *, most: int | None = None, **kwargs: Any) -> None:
        most = _MOST_FILE_BYTES if most is None else most
        session = await self.set_session()
        async with session.get(self.encode_url(rpath), timeout=_DOWNLOAD_TIMEOUT, **self.kwargs) as answer:
            self._raise_not_found_for_status(answer, rpath)
            found = 0
            with Path(lpath).open("wb") as file:
                while chunk := await answer.content.read(_CHUNK_BYTES):
                    found += len(chunk)
                    if found > most:
                        raise UserError(f"{rpath}: more than {most:,} bytes; give a smaller file")
                    file.write(chunk)

    async def _ls_real(self, url: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """The links on the folder's page that lead below it."""
        page = await self._read(url, 0, _MOST_PAGE_BYTES + 1)
        if len(page) > _MOST_PAGE_BYTES:
            raise UserError(f"{url}: the list of its files has more than {_MOST_PAGE_BYTES // 2**20} MiB")
        folder = str(self.encode_url(f"{url.rstrip('/')}/"))
        links = {urljoin(folder, unescape(link)) for link in _LINK.findall(page.decode(errors="ignore"))}
        below = {link[len(folder) :] for link in links if link.startswith(folder) and not {*"?#"} & {*link}} - {""}
        names = sorted(f"{url.rstrip('/')}/{plain_name(name, 'http')}" for name in below)
        if not detail:
            return names
        return [{"name": name, "size": None, "type": "directory" if name.endswith("/") else "file"} for name in names]

    async def _find(self, path: str, **kwargs: Any) -> list[str]:
        """The files to which links lead, from folder to folder."""
        root = path.rstrip("/")
        files, folders, order = set[str](), {root}, [root]
        for folder in order:  # which grows
            try:
                found = await self._ls_real(folder)
            except FileNotFoundError:
                if folder == root:
                    raise
                continue
            inner = {one["name"].rstrip("/") for one in found if one["type"] == "directory"} - folders
            order += sorted(inner)
            folders |= inner
            files.update(one["name"] for one in found if one["type"] == "file")
            if len(folders) > _MOST_FOLDERS or len(files) > _MOST_FILES:
                raise UserError(
                    f"{path}: more than {_MOST_FOLDERS:,} folders or {_MOST_FILES:,} files; copy some to a disk"
                )
        return sorted(files)

    async def _info(self, url: str, **kwargs: Any) -> dict[str, Any]:
        session = await self.set_session()
        options = {"allow_redirects": True, "headers": {"Accept-Encoding": "identity"}, **self.kwargs}
        async with session.head(self.encode_url(url), **options) as answer:
            size, etag = (answer.content_length, answer.headers.get("ETag")) if answer.ok else (None, None)
        if size is None:  # some servers have no HEAD, or no size in its answer
            async with session.get(self.encode_url(url), **options) as answer:
                self._raise_not_found_for_status(answer, url)
                size, etag = answer.content_length, answer.headers.get("ETag")
        return {"name": url, "type": "file", "size": size, "ETag": etag}

    async def _exists(self, path: str, strict: bool = False, **kwargs: Any) -> bool:
        session = await self.set_session()
        async with session.get(self.encode_url(path), **self.kwargs, **kwargs) as answer:
            if answer.status in {404, 410}:
                return False
            answer.raise_for_status()
            return True
