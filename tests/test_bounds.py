"""Limits for untrusted input, checked before the work is done."""

from __future__ import annotations

import io
import os
import re
import time
import zipfile
from pathlib import Path

import pytest

from distgan.bounds import (
    NOT_YAML,
    check_unpacked,
    check_zip,
    parse_json,
    parse_yaml,
    read_bytes,
    read_text,
    time_limit,
    yaml_reason,
)
from distgan.errors import UserError

pytestmark = pytest.mark.timeout(30)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("ä")
    assert read_text(tmp_path / "text") == "ä"
    assert read_bytes(tmp_path / "text", 2) == b"\xc3\xa4"
    with pytest.raises(UserError, match="text: it is larger than 1 bytes"):
        read_bytes(tmp_path / "text", 1)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for name in ("pipe", "zeros"):
        with pytest.raises(UserError, match=f"{name}: is no regular file"):
            read_bytes(tmp_path / name)
    with pytest.raises(IsADirectoryError):
        read_bytes(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ("[" * 60 + "]" * 60, "nested too deeply"),
        ('{"a":' * 60 + "1" + "}" * 60, "nested too deeply"),
        ("[NaN]", "NaN is no number"),
        ("-Infinity", "-Infinity is no number"),
        ("1e999", "1e999 is too large"),
        ("1" + "0" * 400, "is too large"),
        (str(2**64), "is too large"),
        ("1" * 10_000, "is too large"),
        ("{", "Expecting property name"),
    ],
)
def test_json_beyond_the_bounds(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(text)


def test_json_within_the_bounds() -> None:
    text = '{"a": [1, -2.5e3, null, true], "b": {"c": "NaN"}, "d": 18446744073709551615}'
    assert parse_json(text) == {"a": [1, -2500.0, None, True], "b": {"c": "NaN"}, "d": 2**64 - 1}


def aliases(levels: int, width: int) -> str:
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (aliases(10, 9), "more than 10,000 values, each alias"),
        (aliases(3, 101), "more than 10,000 values"),
        ("a: &a {b: 1}\nc:\n  <<: [" + "*a," * 5000 + "*a]", "more than 10,000 values"),
        ("a: &a [*a]", "an alias .* inside of what it stands for"),
        ("\n".join(f"k{n}: 1" for n in range(5001)), "more than 10,000 values"),
        ("[" * 60 + "]" * 60, "nested too deeply"),
        ("{a: " * 2000, "nested too deeply"),
        ("a: " + "1:" * 5000 + "1", "a number of 10,001 characters"),
        ("a: 0x" + "f" * 3000, "a number of 3,002 characters"),
        ("a: !!int '" + "1" * 200 + "'", "a number of 200 characters"),
    ],
)
def test_yaml_beyond_the_bounds(text: str, reason: str) -> None:
    with pytest.raises(NOT_YAML) as caught:
        parse_yaml(text)
    assert re.search(reason, yaml_reason(caught.value))


def test_yaml_within_the_bounds() -> None:
    text = "a: &a {b: 1e-4, c: [1, 2]}\nd: *a\ne: {<<: *a, c: null}\nf: 0x10\ng: '" + "1" * 200 + "'"
    a = {"b": "1e-4", "c": [1, 2]}
    assert parse_yaml(text) == {"a": a, "d": a, "e": {"b": "1e-4", "c": None}, "f": 16, "g": "1" * 200}


def test_archives_are_checked_by_their_directory() -> None:
    def archive(size: int, method: int) -> io.BytesIO:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method, compresslevel=1) as written:
            written.writestr("a", bytes(size))
        return file

    check_zip(archive(2**20, zipfile.ZIP_DEFLATED), "a.npz")
    with pytest.raises(UserError, match=r"a\.npz: unpacks to 1,048,576 bytes, more than the 1,000 that are read"):
        check_zip(archive(2**20, zipfile.ZIP_DEFLATED), "a.npz", 1000)
    with pytest.raises(UserError, match="its compression is not supported"):
        check_zip(archive(100, zipfile.ZIP_BZIP2), "a.npz")
    check_unpacked("honest", 2**26, 2**30)
    with pytest.raises(UserError, match="its 1,048,576 bytes would unpack to 1,073,741,824"):
        check_unpacked("bomb", 2**20, 2**30)


@pytest.mark.timeout(10)
def test_a_slow_pattern_ends() -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError), time_limit(0.05):
        re.search("(a+)+$", "a" * 60 + "b")
    with time_limit(0.05):
        assert re.search("a+$", "aab" * 20 + "a")
    assert time.monotonic() - started < 8
