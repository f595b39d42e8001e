"""What a user may get wrong with `cluster/local` and the address of `distgan store`: one line, exit code 2."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster.local import lifecycle, network
from cluster.local.state import Node, State
from command_line import Cli, one_line
from distgan.errors import UserError
from local_cluster import command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("0.0.0.0", "--host 0.0.0.0: stands for more than one machine; name one address of this machine"),
        ("224.0.0.1", "--host 224.0.0.1: stands for more than one machine; name one address of this machine"),
        ("localhost", "--host localhost: not an IPv4 address; write one address of this machine"),
        ("", "--host : not an IPv4 address; write one address of this machine"),
        ("203.0.113.9", "203.0.113.9: cannot be listened on (Cannot assign requested address); "
                        "name an address of this machine"),
    ],
)  # fmt: skip
def test_addresses_of_the_store(cli: Cli, host: str, message: str) -> None:
    assert one_line(cli("store", "up", "--dir", "store", "--host", host)) == message


@pytest.mark.parametrize(
    ("count", "message"),
    [
        ("0", "0 nodes: a local cluster has 1 to 9"),
        ("10", "10 nodes: a local cluster has 1 to 9"),
        ("three", "invalid int value: 'three'"),
    ],
)
def test_numbers_of_nodes(tmp_path: Path, count: str, message: str) -> None:
    done = command("up", tmp_path / "cluster", count)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert not (tmp_path / "cluster").exists()


@pytest.mark.parametrize("name", ["up", "down", "status"])
@pytest.mark.parametrize("text", ["{", "[]", '{"tag": "../../x", "nodes": [], "starters": {}, "gateway": "x"}'])
def test_a_damaged_state(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    done = command(name, tmp_path, *(["2"] if name == "up" else []))
    assert done.returncode == 2
    assert done.stderr == (
        f"cluster/local/{name}: error: {tmp_path}/state.json: cannot be read as a local cluster's state; "
        "restore or remove it\n"
    )


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = command("up", tmp_path / "file" / "cluster", "2")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "cannot hold a cluster's state" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_sudo_makes_belongs_to_who_called_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", "12345")
    monkeypatch.setenv("SUDO_GID", "12345")
    directory = tmp_path / "new" / "cluster"
    monkeypatch.setattr(network, "can_have_namespaces", lambda: False)
    monkeypatch.setattr(network, "on_loopback", lambda tag, count: State(tag, [Node(1, "127.0.0.2")], "0.0.0.0"))
    with pytest.raises(UserError, match="stands for more than one machine"):
        lifecycle.up(directory, 1)
    (directory / "store").mkdir(exist_ok=True)
    lifecycle.down(directory)
    made = [tmp_path / "new", *(tmp_path / "new").rglob("*")]
    assert len(made) > 3
    assert {path.stat().st_uid for path in made} == {12345}
    assert tmp_path.stat().st_uid == 0
