"""An error that many processes meet is printed once; one that a single process meets is printed too."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch.distributed as dist

from distgan.launch.print_once import print_once

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> dist.TCPStore:
    """The store of an agent as torchrun's, and the environment of its processes."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=5))
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_RESTART_COUNT": "0"}
    for name, value in {**variables, "TORCHELASTIC_USE_AGENT_STORE": "True"}.items():
        monkeypatch.setenv(name, value)
    return store


@pytest.mark.usefixtures("agent")
def test_each_mistake_is_told_once(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for message in ("one", "café", "one", "two", "café", "two"):
        print_once(message)
    assert [line.split(": ")[2] for line in capsys.readouterr().err.splitlines()] == ["one", "café", "two"]
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    print_once("one")
    assert capsys.readouterr().err == "distgan: error: one\n"


@pytest.mark.parametrize("port", ["1", "many", None])
def test_where_nobody_can_be_asked_all_are_told(
    port: str | None, agent: dist.TCPStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distgan.launch.print_once._ANSWER_S", 0.2)
    if port is None:
        monkeypatch.delenv("MASTER_PORT")
    else:
        monkeypatch.setenv("MASTER_PORT", port)
    for _ in range(2):
        print_once("one")
    assert capsys.readouterr().err.count("distgan: error: one\n") == 2
