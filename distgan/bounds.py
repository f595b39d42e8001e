"""Limits for what others wrote: how much of a file is read, how deep it nests, how much it unpacks to.

They hold before the work: a file is judged by its kind and size, a tree while it grows, an archive by what it
announces. What is refused is a `UserError`, or a `ValueError` where the caller says whose text it was.
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

MOST_RECORD_BYTES = 2**27  # of an index or a record, which grow with their data

MOST_UNPACKED_BYTES = 2**32

_MOST_NODES = 10_000  # of a YAML text, each alias counted in full

_MOST_DEPTH = 50

_LONGEST_NUMBER = 100

# Images pack to a tenth or a half. What unpacks to far more is made to fill a memory.
_MOST_RATIO, _ALWAYS_ALLOWED_BYTES = 200, 2**26

# What PyYAML raises for text: its own errors, and Python's for scalars such as 2020-99-99.
NOT_YAML = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


def open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
    """Opens a file to read from, and never waits for one. Raises UserError for a pipe, a device or the like.

    Raises OSError for what cannot be opened, a folder among it.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        check_regular(path, os.fstat(handle).st_mode)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_regular(path: str | os.PathLike[str], mode: int | None = None) -> None:
    """Raises UserError where `path` is a pipe, a device or the like, OSError where nothing can be seen there."""
    mode = os.stat(path).st_mode if mode is None else mode  # noqa: PTH116 - a string often
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(mode):
        raise UserError(f"{os.fspath(path)}: is no regular file but a pipe, a device or the like; give a file")


def read_bytes(path: Path, most_bytes: int = MOST_TEXT_BYTES) -> bytes:
    """A whole file. Raises UserError for a larger one and for what is no regular file, OSError as `open` does."""
    with open_regular(path) as file:
        data = file.read(min(most_bytes + 1, os.fstat(file.fileno()).st_size))
    check_size(data, str(path), most_bytes)
    return data


def read_text(path: Path, most_bytes: int = MOST_TEXT_BYTES) -> str:
    """A whole file of UTF-8. Raises UnicodeDecodeError for other bytes; otherwise as `read_bytes`."""
    return read_bytes(path, most_bytes).decode("utf-8")


def check_size(data: bytes, where: str, most_bytes: int) -> None:
    """Raises UserError for data of more than so many bytes."""
    if len(data) > most_bytes:
        raise UserError(f"{where}: it is larger than {most_bytes:,} bytes, which no such file is; give another")


def parse_json(data: bytes | str) -> Any:
    """The value of a JSON text. Raises ValueError, saying why, also for NaN, infinities and endless nesting."""
    try:
        value = json.loads(data, parse_constant=_no_number, parse_float=_finite, parse_int=_whole)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level = [value]
    for _ in range(_MOST_DEPTH):
        level = [inner for outer in level if isinstance(outer, dict | list) for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError("it is nested too deeply")


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. Raises one of `NOT_YAML`, also for one that expands or nests beyond the bounds."""
    return yaml.load(text, _BoundedLoader)


def yaml_reason(error: Exception) -> str:
    """Where a text is no YAML, and why, in few words."""
    mark = getattr(error, "problem_mark", None)
    place = f" in line {mark.line + 1}" if mark is not None else ""
    return f"{place}: {getattr(error, 'problem', None) or error!s:.100}"


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in the block after so many seconds, also inside of a regular expression.

    It has no effect beyond the main thread, the only one that a signal reaches.
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
    """Raises UserError where `packed` bytes announce more than is allowed, or than such files hold."""
    if unpacked > most_bytes:
        raise UserError(f"{where}: unpacks to {unpacked:,} bytes, more than the {most_bytes:,} that are read; split it")
    if unpacked > max(_ALWAYS_ALLOWED_BYTES, packed * _MOST_RATIO):
        raise UserError(f"{where}: its {packed:,} bytes would unpack to {unpacked:,}; get it again from its maker")


def check_zip(file: IO[bytes], where: str, most_bytes: int = MOST_UNPACKED_BYTES) -> None:
    """Judges a zip archive, such as an `.npz` file, by its directory; a reader never takes more than that announces.

    Raises UserError for more bytes than are allowed, and what zipfile raises for no zip.
    """
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    if any(info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED} for info in members):
        raise UserError(f"{where}: compressed in a way that is not read here; write it again")
    packed = file.seek(0, io.SEEK_END)
    file.seek(0)
    check_unpacked(where, packed, sum(info.file_size for info in members), most_bytes)


class _BoundedLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which counts what it composes; an alias counts as much as what it stands for."""

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
            if id(node) not in self._sizes:  # it is not at its end
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


def _whole(text: str) -> int:
    if len(text) > _LONGEST_NUMBER or not -(2**63) <= (number := int(text)) < 2**64:
        raise ValueError(f"the number {text:.30} is too large")
    return number
