"""Where Ray keeps its sockets and files on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distgan.errors import UserError
from distgan.launch.cluster import _temporary_folder

LONG = "long" * 20


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)


def test_by_default_it_is_that_of_the_system() -> None:
    assert _temporary_folder() == Path("/tmp")


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_short_folder_is_taken_and_made(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "/dev/shm/distgan-t")
    try:
        assert _temporary_folder() == Path("/dev/shm/distgan-t")
    finally:
        Path("/dev/shm/distgan-t").rmdir()


@pytest.mark.parametrize(("folder", "reason"), [(LONG, "paths of sockets"), ("file", "File exists"), ("/proc", "")])
def test_what_ray_cannot_use_is_told(
    folder: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """TMPDIR, which many programs share, is done without; RAY_TMPDIR was meant."""
    place = Path("/dev/shm/distgan-f")
    place.mkdir()
    try:
        (place / "file").write_text("")
        path = folder if folder.startswith("/") else f"{place}/{folder}"
        monkeypatch.setenv("TMPDIR", path)
        assert _temporary_folder() == Path("/tmp")
        (said,) = caplog.messages
        assert said.startswith(f"TMPDIR={path}: Ray cannot use it: ")
        assert reason in said
        assert said.endswith("; its files are in /tmp")
        assert os.environ["TMPDIR"] == "/tmp"
        monkeypatch.setenv("RAY_TMPDIR", path)
        with pytest.raises(UserError, match=r"^RAY_TMPDIR=.*; set RAY_TMPDIR to a folder with a short path"):
            _temporary_folder()
    finally:
        (place / "file").unlink()
        place.rmdir()
