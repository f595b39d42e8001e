"""What Ray prints about a lost node is one line."""

from __future__ import annotations

import pytest

from distgan.launch.ray_errors import shorten_ray_messages
from distgan.launch.ray_internals import worker as ray_worker

# As Ray 2.60 tells it.
LOST = (
    "Raylet is terminated. Termination is unexpected. Possible reasons include: (1) SIGKILL by the user or system OOM "
    "killer, (2) Invalid memory access. Last 20 lines of the Raylet logs:\n    [state-dump] NodeManager - 1 total\n"
)


def tell(message: str, pid: object = "raylet") -> None:
    data = {"lines": [message], "pid": pid, "ip": "10.0.0.1", "is_err": False}
    ray_worker.print_to_stdstream(data, ignore_prefix=False)


def test_a_lost_node_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(ray_worker, "print_to_stdstream", ray_worker.print_to_stdstream)
    shorten_ray_messages()
    tell(LOST)
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert told.rstrip().endswith("Raylet is terminated. Termination is unexpected.")

    tell("A worker died or was killed while executing a task by an unexpected system error. To troubleshoot")
    assert capsys.readouterr().out == ""

    tell("x" * 5000)
    assert 300 < len(capsys.readouterr().out) < 400

    tell("one\ntwo", pid=17)
    assert "two" in capsys.readouterr().out, "what workers print is not cut"
