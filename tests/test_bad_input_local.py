"""What a user may get wrong with `cluster/local` and the address of `distgan store`: one line, exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import Cli, one_line
from local_cluster import command

pytestmark = pytest.mark.timeout(60)


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
