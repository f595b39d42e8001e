"""Commands that the user is told to run."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from distgan.data.index import Index
from distgan.errors import UserError
from distgan.launch.jobs.profiles import find_cluster
from distgan.storage.storage import Storage
from distgan.text import command, options


def test_a_command_is_what_the_shell_reads() -> None:
    words = ["data", "index", "s3://my bucket/it's $HOME", "training.kimg=12"]
    assert shlex.split(command(*words)) == ["distgan", *words]


def test_options_without_a_value_are_left_out() -> None:
    assert options(storage="s3://runs", address=None, init_from="-x") == ["--storage", "s3://runs", "--init-from=-x"]


def test_a_path_with_spaces_is_quoted_in_a_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"`distgan data index '/.*/my data'`"):
        Index.load(Storage.open(f"{tmp_path}/my data"))


def test_a_cluster_is_named_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clusters.toml").write_text('[lab]\naddress = "http://10.0.0.1:8265"\n')
    monkeypatch.setenv("DISTGAN_CLUSTERS", str(tmp_path / "clusters.toml"))
    monkeypatch.setenv("DISTGAN_CLUSTER", "lab")
    assert find_cluster(name="lab").named == ("--cluster", "lab")
    assert find_cluster("10.0.0.1:8265").named == ("--address", "10.0.0.1:8265")
    assert find_cluster().named == ()
