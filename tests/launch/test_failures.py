"""Lost workers restart, up to a number of times without a new checkpoint; errors that would come again do not."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError
from ray.train import ControllerError, PreemptionError, PreemptionInfo, WorkerGroupError
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupFailedError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)
from ray.train.v2._internal.execution.controller.state import (
    ErroredState,
    ReschedulingState,
    RestartingState,
    RunningState,
    TrainControllerState,
)

from distgan.errors import UserError
from distgan.launch import failures
from distgan.launch.failures import FailurePolicy, WorkerError
from distgan.launch.run_mailbox import KeptSteps, RunMailbox
from distgan.training.events import Attempt, CheckpointSaved, Notice, RunStarted, StepMetrics

KILLED = {1: WorkerHealthCheckFailedError("A worker health check failed.", ActorDiedError())}

STARTED = RunStarted(
    name="a", resumed=False, step=0, kimg=0.5, budget_kimg=9, workers=2, groups=4, threads=1, device="cpu",
    batch_size=16, generator_parameters=1, discriminator_parameters=1, data_url="s3://data", data_samples=64,
    metric="fid", configuration="",
)  # fmt: skip

GONE = "worker 1: its process died"


class Remote:
    """The methods of an object as those of an actor."""

    def __init__(self, actor: object) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        class Method:
            remote = staticmethod(getattr(self._actor, name))

        return Method


@pytest.fixture(autouse=True)
def values_are_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures.ray, "get", lambda value: value)


def fail(mailbox: RunMailbox, errors: dict[int, Exception] = KILLED) -> None:  # type: ignore[assignment]
    update(mailbox, RestartingState(WorkerGroupError("workers failed", errors)))


def update(mailbox: RunMailbox, state: TrainControllerState) -> None:
    FailurePolicy(Remote(mailbox)).after_controller_state_update(RunningState(), state)


def test_failures_in_a_row_are_counted_and_a_checkpoint_forgives_them() -> None:
    mailbox = RunMailbox("s3://runs/a", most=2)
    mailbox.put(STARTED)
    for kimg in (1.5, 2.5, 3.5):
        for _ in range(2):
            fail(mailbox)
        mailbox.put(CheckpointSaved(int(kimg), kimg, "step"))
    fail(mailbox)
    fail(mailbox)
    with pytest.raises(UserError) as error:
        fail(mailbox)
    assert str(error.value) == (
        f"s3://runs/a: {GONE}; restarted 2 times without a new checkpoint (scale.max_failures); look at that node; "
        "the same command resumes from 3.5 kimg"
    )
    told = [event.text for event in mailbox.take()[0] if isinstance(event, Notice)]
    assert told[2] == f"{GONE}; restart 1 of 2 without a new checkpoint, from 1.5 kimg"
    assert len(told) == 8


def test_no_restart_at_all() -> None:
    with pytest.raises(UserError, match=rf"^runs/a: {GONE}; not restarted \(scale.max_failures=0\); .* from 0 kimg$"):
        fail(RunMailbox("runs/a", most=0))


def test_each_attempt_is_kept_with_its_reason() -> None:
    mailbox = RunMailbox("runs/a", most=3)
    mailbox.put(STARTED)
    fail(mailbox)
    fail(mailbox)  # before the workers have begun
    mailbox.put(STARTED)
    whole = Attempt(STARTED.workers, STARTED.kimg)
    assert mailbox.attempts() == [
        Attempt(STARTED.workers, STARTED.kimg, GONE),
        Attempt(0, STARTED.kimg, GONE),
        whole,
    ]


def test_goodput_counts_steps_that_were_kept() -> None:
    """A row is 1 kimg in 10 s. The checkpoint of 2 kimg is complete after the row of 3 kimg, which is repeated."""
    now = [100.0]
    kept = KeptSteps(lambda: now[0])
    kept.add(replace(STARTED, kimg=0.0))
    for step in (1, 2, 3):
        kept.add(StepMetrics(step, float(step), 100.0, {}))
    kept.add(CheckpointSaved(2, 2.0, "step-2"))
    kept.add(StepMetrics(4, 4.0, 100.0, {}))
    kept.add(replace(STARTED, kimg=2.0, resumed=True))
    assert kept.before == 20.0
    kept.add(StepMetrics(3, 3.0, 100.0, {}))
    kept.add(CheckpointSaved(3, 3.0, "step-3"))
    kept.add(replace(STARTED, kimg=3.0, resumed=True))
    kept.add(CheckpointSaved(1, 1.0, "step-1"))  # of the first group, told late
    now[0] = 160.0
    assert (kept.before, kept.elapsed) == (30.0, 60.0)
    kept.add(replace(STARTED, kimg=0.0))  # all checkpoints were damaged
    assert kept.before == 0.0


def test_a_preemption_does_not_count() -> None:
    preempted = ActorDiedError()
    preempted._preempted = True
    mailbox = RunMailbox("runs/a", most=0)
    fail(mailbox, {1: WorkerHealthCheckFailedError("failed", preempted)})
    assert [event.text for event in mailbox.take()[0]] == [f"{GONE}; restarting, from 0 kimg"]  # type: ignore[attr-defined]


def test_a_preempted_node_is_named_and_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures.ray, "nodes", lambda: [{"NodeID": "5f", "NodeManagerAddress": "10.0.0.2"}])
    mailbox = RunMailbox("runs/a", most=0)
    update(mailbox, RestartingState(PreemptionError(PreemptionInfo(None, {"5f": [1, 3]}))))
    assert [event.text for event in mailbox.take()[0]] == [  # type: ignore[attr-defined]
        "node 10.0.0.2 (workers 1, 3) was preempted; restarting, from 0 kimg"
    ]


def test_workers_that_die_at_each_start_end_the_run() -> None:
    mailbox = RunMailbox("runs/a", most=1)
    mailbox.put(STARTED)
    state = ReschedulingState(ControllerError(WorkerGroupStartupFailedError("an actor died")))
    update(mailbox, state)
    with pytest.raises(UserError, match=r"^runs/a: workers died while they started; restarted 1 time without"):
        update(mailbox, state)


def test_a_wait_for_places_and_other_states_are_no_failures() -> None:
    mailbox = RunMailbox("runs/a", most=0)
    update(mailbox, ReschedulingState(ControllerError(WorkerGroupStartupTimeoutError(2))))
    update(mailbox, ErroredState(ControllerError(KeyError("ours"))))
    update(mailbox, RunningState())
    assert mailbox.take()[0] == mailbox.attempts() == []


def test_an_error_that_a_worker_has_told_ends_the_run() -> None:
    mailbox, error = RunMailbox("runs/a", most=3), UserError("data.url: there is nothing")
    mailbox.put_error(error)
    with pytest.raises(UserError) as caught:
        fail(mailbox)
    assert caught.value is error
    assert mailbox.take()[0] == []


def test_an_unknown_error_ends_the_run() -> None:
    with pytest.raises(KeyError):
        fail(RunMailbox("runs/a", most=3), {0: KeyError("of Ray's own code")})


def test_a_workers_error_has_its_traceback_in_another_process() -> None:
    try:
        raise ZeroDivisionError("division by zero")
    except ZeroDivisionError as error:
        told = pickle.loads(pickle.dumps(WorkerError.of(error, 1, "10.0.0.2")))
    first, *rest = str(told).splitlines()
    assert re.fullmatch(
        r"worker 1 on 10\.0\.0\.2 raised ZeroDivisionError: division by zero \(test_failures\.py, line \d+\); "
        "such an error is not retried",
        first,
    )
    assert 'raise ZeroDivisionError("division by zero")' in "\n".join(rest)
