"""A shell that still has the variables of a cluster that is gone: what reaches Ray says so in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import Cli
from distgan.errors import UserError
from distgan.launch import ray_internals
from distgan.launch.cluster import ray_cluster
from toy_data import pack_numbered

pytestmark = pytest.mark.timeout(60)

ON_RAY = [
    "doctor",
    "doctor --address 127.0.0.1:1",
    "train quickstart {data} --workers 2 --storage runs",
    "train quickstart {data} --workers 2 --storage runs --address auto",
    "tune quickstart {data} --storage runs",
    "data stats data --workers 2",
]
THROUGH_THE_DASHBOARD = [
    "jobs list --address http://127.0.0.1:1",
    "jobs list",
    "submit --address http://127.0.0.1:1 -- train quickstart data.url=s3://bricks --storage s3://runs",
]


@pytest.fixture
def gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a local cluster that was ended, whose `env.sh` was sourced before; Ray cannot start."""
    folder = tmp_path / "cluster"
    for name in [name for name in os.environ if name.startswith(("RAY_AUTH", "RAY_ADDRESS", "DISTGAN_CLUSTER"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "token"))
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setattr("ray.init", None)
    ray_internals.Config.initialize("")
    yield folder
    monkeypatch.undo()
    ray_internals.Config.initialize("")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack_numbered(tmp_path / "data", 100, size=32)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("line", ON_RAY + THROUGH_THE_DASHBOARD)
def test_its_token_is_missed(line: str, cli: Cli, gone: Path, here: None) -> None:
    result = cli(*line.format(data="data.url=data image_size=32 channels=1").split())
    assert result.code == 2
    assert result.err.splitlines()[-1] == (
        f"distgan: error: RAY_AUTH_TOKEN_PATH={gone}/token: there is no such file; is the cluster down? open a new "
        "shell, or `unset RAY_API_SERVER_ADDRESS RAY_AUTH_MODE RAY_AUTH_TOKEN_PATH`"
    )


@pytest.mark.parametrize("line", ["jobs list", "jobs list --cluster lab"])
def test_its_profiles_are_missed(line: str, cli: Cli, gone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTGAN_CLUSTERS", str(gone / "clusters.toml"))
    monkeypatch.setenv("DISTGAN_CLUSTER", "local")
    result = cli(*line.split())
    assert result.code == 2
    assert result.err.startswith(f"distgan: error: DISTGAN_CLUSTERS={gone}/clusters.toml: there is no such file; is ")
    assert result.err.endswith(" RAY_AUTH_MODE RAY_AUTH_TOKEN_PATH DISTGAN_CLUSTER DISTGAN_CLUSTERS`\n")


def test_a_token_in_a_variable_needs_no_file(gone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    with pytest.raises(UserError, match="nothing answers there"), ray_cluster("127.0.0.1:1"):
        pass


def test_a_cluster_without_a_token_needs_no_file(gone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    ray_internals.Config.initialize("")
    with pytest.raises(UserError, match="nothing answers there"), ray_cluster("127.0.0.1:1"):
        pass


def test_a_local_cluster_is_hinted_at(cli: Cli, gone: Path, here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name)
    assert "source" not in cli("jobs", "list").err
    environment = Path(".distgan/cluster/env.sh")
    environment.parent.mkdir(parents=True)
    environment.touch()
    assert cli("jobs", "list").err.endswith("; for the one of cluster/local/up: source .distgan/cluster/env.sh\n")
