"""From a storage URL to the fsspec file system that serves it."""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

from distgan.errors import UserError
from distgan.text import without_credentials

LOCAL_PROTOCOLS = ("file", "local")
S3_PROTOCOLS = ("s3", "s3a")
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "hdfs": "pyarrow"}
_SEND_TIMEOUT_S = 30


def _open_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket whose connection ends where nobody takes what is sent: aiohttp has no limit for that."""
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
    """Refuse names that could leave the folder, and for remote stores those that fsspec reads as patterns."""
    if not name or "\0" in name or any(part in {"", ".", ".."} for part in name.split("/")):
        raise UserError(f"{what}: a name has parts joined by single slashes, none of them `.` or `..`")
    if remote and any(sign in name for sign in "*?[]"):
        raise UserError(f"{what}: the characters * ? [ ] cannot be used in a remote name; rename it")


def filesystem_class(url: str, protocol: str) -> Any:
    if protocol in {"http", "https"}:
        from distgan.data.web_server import WebFileSystem

        return WebFileSystem
    try:
        return fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        hint = f"install {package} (pip install {package})" if package else str(error)
        raise UserError(f"{url}: {protocol}:// needs a package that is not installed; {hint}") from error
    except ValueError as error:
        near = difflib.get_close_matches(protocol, ["file", "memory", *_PACKAGES], n=1, cutoff=0.5)
        installed = [name for name, module in _PACKAGES.items() if importlib.util.find_spec(module)]
        raise UserError(
            f"{url}: unknown protocol {protocol}://; {f'did you mean {near[0]}://? ' if near else ''}"
            f"Installed: {', '.join(['file', 'memory', *installed])}"
        ) from error


def root_of(url: str, protocol: str) -> str:
    """The folder at `url` as its file system calls it. Raises UserError where no URL alone can name one."""
    filesystem = filesystem_class(url, protocol)
    with _needing_no_more(url, protocol):
        return str(filesystem._strip_protocol(url))


@contextmanager
def _needing_no_more(url: str, protocol: str) -> Iterator[None]:
    """Some of fsspec's file systems wrap another one, or want a host or token that no URL carries."""
    try:
        yield
    except (AttributeError, TypeError, ValueError) as error:
        reason = f" ({error})" if isinstance(error, ValueError) else ""
        raise UserError(
            f"{url}: {protocol}:// needs more than a URL{reason}; use a local path, s3:// or gs://"
        ) from error


def filesystem_of(url: str, protocol: str) -> Any:
    """The process's file system for a URL.

    A forked process gets its own, and so does a changed set of AWS variables. fsspec's own cache of instances
    is not used: it makes one a thread.
    """
    filesystem = filesystem_class(url, protocol)
    with _needing_no_more(url, protocol):
        options = filesystem._get_kwargs_from_urls(url)
    variables = sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))
    key = (os.getpid(), protocol, repr(options), tuple(variables) if protocol in S3_PROTOCOLS else ())
    if key not in _filesystems:
        if protocol in S3_PROTOCOLS:
            from distgan.data.s3_session import S3Session

            options |= {"config_kwargs": _S3_CONFIG, "session": S3Session()}
        with _needing_no_more(url, protocol):
            created = filesystem(skip_instance_cache=True, use_listings_cache=False, **options)
        if protocol in S3_PROTOCOLS:
            created.retries = 1  # botocore's standard retries; s3fs would multiply them
        _filesystems.setdefault(key, created)
    return _filesystems[key]
