"""Ray's errors about lost processes are one line, also as Ray Train wraps them; a worker's own error passes."""

from __future__ import annotations

import pytest
import torch.distributed as dist
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError, NodeDiedError, OutOfMemoryError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerHealthCheckFailedError,
    WorkerHealthCheckTimeoutError,
)

from distgan.errors import UserError
from distgan.launch.ray_errors import is_broken_connection, losses_text, report_losses

PEER = RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4711")


def killed(message: str = "Worker unexpectedly exits with a connection error code 2.") -> Exception:
    """What Ray Train raises for a killed worker."""
    context = ActorDiedErrorContext(
        class_name="RayTrainWorker", actor_id=b"1" * 16, node_ip_address="10.0.0.2", pid=7, error_message=message
    )
    return WorkerHealthCheckFailedError(
        "A worker health check failed.\nWorker info: Worker(…)", ActorDiedError(context)
    )


NODE = "The actor died because its node has died. Node Id: 5f"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OutOfMemoryError("7 worker(s) were killed"), "ran out of memory"),
        (ActorDiedError(), "its process died"),
        (WorkerGroupError("2 workers failed", {0: PEER, 1: ActorDiedError()}), "worker 1: its process died"),
        (WorkerGroupError("2 workers failed", {0: PEER, 1: killed()}), r"worker 1 on 10\.0\.0\.2: its process died"),
        (WorkerGroupError("1 worker failed", {1: killed(NODE)}), r"worker 1 on 10\.0\.0\.2: its node was lost"),
        (WorkerGroupError("1 worker failed", {1: WorkerHealthCheckTimeoutError("hangs")}), "worker 1: it stopped"),
        (WorkerGroupError("1 worker failed", {1: OutOfMemoryError("killed")}), "ran out of memory"),
        (ControllerError(NodeDiedError("node 7 died")), "its node was lost"),
        (ControllerError(WorkerGroupStartupFailedError("an actor died")), "died while they started"),
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


def test_what_ended_the_controller_on_purpose_is_raised() -> None:
    final = UserError("s3://runs/a: worker 1: its process died; not restarted")
    with pytest.raises(UserError) as caught, lost():
        raise ControllerError(final)
    assert caught.value is final


def lost():  # type: ignore[no-untyped-def]
    return report_losses("s3://runs/a")


@pytest.mark.parametrize(
    ("error", "broken"),
    [
        (PEER, True),
        (RuntimeError("Timed out waiting 1800000ms for recv operation to complete"), True),
        (dist.DistNetworkError("recvValue failed on SocketImpl"), True),
        (dist.DistBackendError("NCCL error: remote process exited"), True),
        (ConnectionResetError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x3 and 2x1)"), False),
        (NotImplementedError("a network over a connection"), False),
        (ZeroDivisionError("division by zero"), False),
    ],
)
def test_a_broken_connection_is_told_from_a_bug(error: Exception, broken: bool) -> None:
    assert is_broken_connection(error) == broken


def test_the_lost_worker_is_named_and_not_its_peers() -> None:
    assert losses_text({0: PEER, 2: killed(), 1: killed(NODE)}) == (
        "worker 1 on 10.0.0.2: its node was lost, worker 2 on 10.0.0.2: its process died"
    )
    assert str(losses_text({0: PEER})).startswith("worker 0 lost its connection to the others: ")
    assert losses_text({0: KeyError("ours"), 1: PEER}) == losses_text({1: PEER})
    assert losses_text({0: KeyError("ours")}) is None
