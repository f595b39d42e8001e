"""Ray's errors about lost processes are one line; a worker's own error passes unchanged."""

from __future__ import annotations

import pytest
from ray.exceptions import ActorDiedError, NodeDiedError, OutOfMemoryError
from ray.train import ControllerError, WorkerGroupError

from distgan.errors import UserError
from distgan.launch.ray_errors import report_losses

PEER = RuntimeError("Connection closed by peer")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OutOfMemoryError("7 worker(s) were killed"), "ran out of memory"),
        (ActorDiedError(), "killed or a node was lost"),
        (WorkerGroupError("2 workers failed", {0: PEER, 1: ActorDiedError()}), "killed or a node was lost"),
        (WorkerGroupError("1 worker failed", {1: OutOfMemoryError("killed")}), "ran out of memory"),
        (ControllerError(NodeDiedError("node 7 died")), "killed or a node was lost"),
    ],
)
def test_a_loss_is_one_line(error: Exception, reason: str) -> None:
    with pytest.raises(UserError, match=f"^s3://runs/a: .*{reason}.*last checkpoint$") as caught, lost():
        raise error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [WorkerGroupError("1 worker failed", {0: KeyError("ours")}), ControllerError(PEER)])
def test_errors_that_are_no_losses_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, lost():
        raise error
    assert caught.value is error


def lost():  # type: ignore[no-untyped-def]
    return report_losses("s3://runs/a")
