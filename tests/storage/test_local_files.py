"""Temporary folders of processes that were killed are removed, and no others."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from distgan.storage import local_files
from distgan.storage.local_files import OwnedFolder

pytestmark = pytest.mark.timeout(60)

HOLD = """
import sys
from distgan.storage.local_files import OwnedFolder
print(OwnedFolder("x-").path, flush=True)
sys.stdin.read()
"""


def test_folders_of_killed_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(local_files, "_ABANDONED_S", -1.0)
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        held = Path(other.stdout.readline().strip())
        mine = OwnedFolder("x-")
        assert set(tmp_path.iterdir()) == {held, mine.path}
        other.kill()
    kept = mine.keep()
    again = OwnedFolder("x-")
    assert set(tmp_path.iterdir()) == {kept, again.path}
    again.remove()
    assert set(tmp_path.iterdir()) == {kept}


def test_a_folder_may_be_new_and_not_locked_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    young = Path(tempfile.mkdtemp(prefix="x-"))
    OwnedFolder("x-").remove()
    assert young.exists()
