"""The network of a local cluster where the machine has a firewall for bridges, as it has with Docker."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from pathlib import Path

import pytest

from cluster.local import firewall, network
from cluster.local.network import can_have_namespaces
from cluster.local.state import Node, State
from distgan.errors import UserError

BRIDGED = State("0123abcd", [Node(1, "10.0.0.11", "distgan-1", "dv-1")], "10.0.0.1", "10.0.0.0/24", "dg0123abcd")
RULE = "FORWARD --in-interface dg0123abcd --out-interface dg0123abcd --jump ACCEPT"


@pytest.mark.skipif(not can_have_namespaces(), reason="needs root and iproute2")
def test_a_way_that_is_closed_is_told_at_once() -> None:
    state = network.with_namespaces(secrets.token_hex(4), 2)
    try:
        network.make_network(state)
        with socket.create_server((state.gateway, 0)) as server:
            address = f"{state.gateway}:{server.getsockname()[1]}"
            for node in state.nodes:
                firewall.check_reaches(state, node, address)
            subprocess.run(["ip", "link", "set", state.nodes[1].interface, "down"], check=True, timeout=10)
            with pytest.raises(UserError, match=rf"^node 2 .* does not reach {address}: a firewall .*--no-namespaces$"):
                firewall.check_reaches(state, state.nodes[1], address)
            firewall.check_reaches(state, state.nodes[0], address)
    finally:
        network.remove_network(state)


@pytest.mark.parametrize(
    ("setting", "asked"),
    [("1\n", [f"--insert {RULE}", f"--delete {RULE}"]), ("0\n", [f"--delete {RULE}"]), (None, [f"--delete {RULE}"])],
)
def test_a_filtered_bridge_is_opened_and_closed(
    setting: str | None, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = tmp_path / "iptables"
    stand_in.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\nexit 1\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(firewall, "BRIDGES_ARE_FILTERED", tmp_path / "setting")
    if setting is not None:
        (tmp_path / "setting").write_text(setting)
    firewall.open_bridge(BRIDGED)
    firewall.close_bridge(BRIDGED)
    lines = (tmp_path / "asked").read_text().splitlines()
    assert [line.removeprefix("--wait 5 ") for line in lines] == asked


def test_without_a_bridge_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = network.on_loopback("0123abcd", 2)
    monkeypatch.setattr(firewall, "_iptables", lambda *arguments: pytest.fail("asked"))
    (tmp_path / "setting").write_text("1\n")
    monkeypatch.setattr(firewall, "BRIDGES_ARE_FILTERED", tmp_path / "setting")
    firewall.open_bridge(state)
    firewall.close_bridge(state)
    firewall.check_reaches(state, state.nodes[1], "127.0.0.1:1")
