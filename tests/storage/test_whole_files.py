"""Files that appear whole take the place of files only; folders that are this user's."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from distgan.errors import UserError
from distgan.inference.data_statistics import check_out
from distgan.inference.report import check_json_path
from distgan.storage.local_files import private_folder, replacing

pytestmark = pytest.mark.timeout(20)


def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    """As the devices of a machine do, whose places root may write to."""
    pipe = tmp_path / "x.npz"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="no regular file"), replacing(pipe):
        pass
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.parametrize("answer", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_sync_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int
) -> None:
    """As CIFS and FUSE of a folder, or of all files."""

    def refused(descriptor: int) -> None:
        raise OSError(answer, os.strerror(answer))

    monkeypatch.setattr(os, "fsync", refused)
    with replacing(tmp_path / "x") as partial:
        partial.write_text("one")
    assert (tmp_path / "x").read_text() == "one"


def test_a_disk_that_fails_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failed)
    with pytest.raises(OSError, match="Input/output"), replacing(tmp_path / "x") as partial:
        partial.write_text("one")


def test_a_file_is_replaced_and_left_by_what_fails(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for text in ("one", "two"):
        with replacing(path) as partial:
            partial.write_text(text)
    with pytest.raises(FileNotFoundError), replacing(path):
        (tmp_path / "missing").read_bytes()
    assert path.read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("check", [check_json_path, check_out])
def test_results_go_to_no_pipe_link_or_folder(check: Callable[[str], None], tmp_path: Path) -> None:
    places = [tmp_path / f"{kind}.npz" for kind in ("pipe", "link", "broken", "folder", "file", "new")]
    pipe, link, broken, folder, file, new = places
    os.mkfifo(pipe)
    file.touch()
    link.symlink_to(pipe)
    broken.symlink_to(new)
    folder.mkdir()
    for refused in (pipe, link, broken, folder):
        with pytest.raises(UserError, match=f"{refused.name}: give the name of"):
            check(str(refused))
    with pytest.raises(UserError, match="too long"):
        check(f"{'x' * 300}.npz")
    for fine in (file, new):
        check(str(fine))


def test_a_private_folder_is_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mine"
    assert private_folder(folder) == folder
    folder.chmod(0o755)
    assert private_folder(folder) == folder
    (tmp_path / "link").symlink_to(folder)
    linked = private_folder(tmp_path / "link")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    others = private_folder(folder)
    assert len({folder, linked, others}) == 3
    for made in (folder, linked, others):
        assert stat.S_IMODE(made.lstat().st_mode) == 0o700
