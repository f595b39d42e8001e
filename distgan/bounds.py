"""Limits for untrusted input: how much of a file is read, how deep it nests, how much it unpacks to.

They are checked before the work: a file by its kind and size, a tree while it grows, an archive by its directory. What
is refused raises a `UserError`, or a `ValueError` if the caller names the source.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import signal
import stat
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn

import yaml
from yaml.composer import ComposerError

from distgan.errors import UserError

MOST_TEXT_BYTES = 1_000_000

MOST_RECORD_BYTES = 2**27  # of an index or a record, which grow with the data

MOST_UNPACKED_BYTES = 2**32

_MOST_NODES = 10_000  # of a YAML text, each alias counted in full

_MOST_DEPTH = 50

_LONGEST_NUMBER = 100

# Images compress to a tenth or a half. Far higher ratios are made to exhaust the memory.
_MOST_RATIO, _ALWAYS_ALLOWED_BYTES = 200, 2**26

# What PyYAML raises for bad text: its own errors, and Python's for scalars such as 2020-99-99.
NOT_YAML = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """Opens a file for reading, without blocking. Raises UserError for a pipe, a device or the like.

    Raises OSError for what cannot be opened, folders included.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        check_regular(path, os.fstat(handle).st_mode)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_regular(path: str | os.PathLike[str], mode: int | None = None) -> None:
    """Raises UserError if `path` is a pipe, a device or the like, and OSError if it cannot be accessed."""
    mode = os.stat(path).st_mode if mode is None else mode  # noqa: PTH116 - often a string
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        raise UserError(f"{os.fspath(path)}: is no regular file but a pipe, a device or the like; give a file")


def read_bytes(path: Path, most_bytes: int = MOST_TEXT_BYTES) -> bytes:
    """The content of a file. Raises UserError for a larger or irregular file, and OSError as `open` does."""
    with open_regular(path) as file:
        data = file.read(min(most_bytes + 1, os.fstat(file.fileno()).st_size))
    check_size(data, str(path), most_bytes)
    return data


def read_text(path: Path, most_bytes: int = MOST_TEXT_BYTES) -> str:
    """A whole UTF-8 file. Raises UnicodeDecodeError for other bytes; else like `read_bytes`."""
    return read_bytes(path, most_bytes).decode("utf-8")


def check_size(data: bytes, where: str, most_bytes: int) -> None:
    """Raises UserError for more than `most_bytes` of data."""
    if len(data) > most_bytes:
        raise UserError(f"{where}: it is larger than {most_bytes:,} bytes, which no such file is; give another")


def parse_json(data: bytes | str) -> Any:
    """The value of a JSON text. Raises ValueError with the reason, also for NaN, infinities and deep nesting."""
    try:
        value = json.loads(data, parse_constant=_no_number, parse_float=_finite, parse_int=_integer)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(_MOST_DEPTH):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError("it is nested too deeply")


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. Raises one of `NOT_YAML`, also for text that expands or nests beyond the limits."""
    return yaml.load(text, _BoundedLoader)


def yaml_reason(error: Exception) -> str:
    """Position and reason of one of `NOT_YAML`, in a few words."""
    mark = getattr(error, "problem_mark", None)
    place = f" in line {mark.line + 1}" if mark is not None else ""
    return f"{place}: {getattr(error, 'problem', None) or error!s:.100}"


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the block after `seconds`, even within a regular expression.

    Works in the main thread only, where Python delivers signals; elsewhere it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check_unpacked(where: str, packed: int, unpacked: int, most_bytes: int = MOST_UNPACKED_BYTES) -> None:
    """Raises UserError if `packed` bytes would unpack to more than `most_bytes`, or at an implausible ratio."""
    if unpacked > most_bytes:
        raise UserError(f"{where}: unpacks to {unpacked:,} bytes, more than the {most_bytes:,} that are read; split it")
    if unpacked > max(_ALWAYS_ALLOWED_BYTES, packed * _MOST_RATIO):
        raise UserError(f"{where}: its {packed:,} bytes would unpack to {unpacked:,}; get it again from its maker")


def check_zip(file: IO[bytes], where: str, most_bytes: int = MOST_UNPACKED_BYTES) -> None:
    """Checks a zip archive, such as an `.npz` file, by the sizes in its directory, which no reader exceeds.

    Raises UserError for more than `most_bytes`, and what zipfile raises for another kind of file.
    """
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    if any(info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED} for info in members):
        raise UserError(f"{where}: its compression is not supported; write it again")
    packed = file.seek(0, io.SEEK_END)
    file.seek(0)
    check_unpacked(where, packed, sum(info.file_size for info in members), most_bytes)


class _BoundedLoader(yaml.SafeLoader):
    """PyYAML's safe loader with limits on nodes and depth; an alias counts as much as its target."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._nodes, self._depth = 0, 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        is_alias, before, event = self.check_event(yaml.AliasEvent), self._nodes, self.peek_event()  # type: ignore[no-untyped-call]
        self._nodes, self._depth = self._nodes + 1, self._depth + 1
        self._check(event)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias:
            if id(node) not in self._sizes:  # its target is not complete
                raise _refused("an alias (*name) inside of what it stands for", event)
            self._nodes += self._sizes[id(node)]
            self._check(event)
        else:
            self._sizes[id(node)] = self._nodes - before
        digits = node.value if isinstance(node, yaml.ScalarNode) and node.tag.endswith((":int", ":float")) else ""
        if len(digits) > _LONGEST_NUMBER:
            raise _refused(f"a number of {len(digits):,} characters", event)
        return node

    def _check(self, event: yaml.Event) -> None:
        if self._nodes > _MOST_NODES:
            problem = f"it holds more than {_MOST_NODES:,} values, each alias (*name) counted in full"
            raise _refused(problem, event)
        if self._depth > _MOST_DEPTH:
            raise _refused("it is nested too deeply", event)


def _refused(problem: str, event: yaml.Event) -> ComposerError:
    return ComposerError(None, None, problem, event.start_mark)  # type: ignore[arg-type]


def _inside(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text:.30} is too large")
    return number


def _integer(text: str) -> int:
    if len(text) > _LONGEST_NUMBER or not -(2**63) <= (number := int(text)) < 2**64:
        raise ValueError(f"the number {text:.30} is too large")
    return number
