"""Trials that run in Tune's own actor, one after another, without Ray: their bits, their ends and their errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from distgan.config.schema import Config
from distgan.errors import UserError
from distgan.launch import actor_run
from distgan.launch.hangs import Beat
from distgan.launch.placement.resources import Resources
from distgan.search.ray import trial as module
from distgan.search.ray.search_mailbox import SearchMailbox, TrialStarted
from distgan.search.ray.trial import TrialRun
from distgan.training import loop
from distgan.training.run_spec import RunSpec
from driven import Actor
from runs import assert_same_bits, newest, pack_bricks, run, tiny_config

pytestmark = pytest.mark.timeout(100)


@pytest.fixture
def mailbox(monkeypatch: pytest.MonkeyPatch) -> SearchMailbox:
    monkeypatch.setattr(ray, "get", lambda value: value)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(current_actor="actor"))
    monkeypatch.setattr(actor_run, "local_cpus", lambda: 1)
    monkeypatch.setattr(actor_run, "draining_notice", lambda: None)
    monkeypatch.setattr(actor_run, "count_sigterms", lambda: None)
    monkeypatch.setattr(module, "_POLL_S", 0.01)
    return SearchMailbox()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return pack_bricks(tmp_path_factory.mktemp("data"))


def config_of(data: str, rate: float, *more: str) -> Config:
    """Of 8 steps, evaluated after each fourth."""
    return tiny_config(
        "quickstart", data, 8, f"optimizer.generator.lr={rate}", "evaluation.every_kimg=0.064", "tracking=[]", *more
    )


@pytest.fixture
def planned(mailbox: SearchMailbox, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The `config` of a trial."""

    def planned(number: int, config: Config) -> dict[str, Any]:
        return {
            "number": number,
            "spec": RunSpec(config, f"{number:04d}", str(tmp_path)),
            "in_actor": True,
            "versions": {},
            "resources": Resources(worker_cpus=1.0),
            "runs_per_host": 1,
            "threads": None,
            "start_kimg": 0.0,
            "exempt": False,
            "mailbox": Actor(mailbox),
        }

    return planned


def actor(config: dict[str, Any]) -> TrialRun:
    found = TrialRun.__new__(TrialRun)  # without the folders that Tune makes
    found.setup(config)
    return found


def results(trial: TrialRun) -> list[dict[str, Any]]:
    """Up to the end of the trial."""
    found = [trial.step()]
    while not found[-1].get("done"):
        found.append(trial.step())
    return found


def test_trials_of_one_actor_make_the_bits_of_runs_of_their_own(
    data: str, mailbox: SearchMailbox, planned: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    configs = [config_of(data, 4e-4), config_of(data, 8e-4)]
    trial = actor(planned(0, configs[0]))
    found = results(trial)
    assert [one.get("kimg") for one in found] == pytest.approx([0.064, 0.128, 0.128])
    assert (found[-1]["state"], found[-1]["score"]) == ("budget", min(one["value"] for one in found[:-1]))
    kept = trial._kept
    images, evaluator = kept.decoded._found, kept.evaluator._found
    assert trial.reset_config(planned(1, configs[1]))
    assert [one.get("state") for one in results(trial)] == [None, None, "budget"]
    assert images is not None
    assert kept.decoded._found is images
    assert kept.evaluator._found is evaluator
    for number, config in enumerate(configs):
        run(config, str(tmp_path), f"alone-{number}")
        assert_same_bits(newest(str(tmp_path), f"alone-{number}"), newest(str(tmp_path), f"{number:04d}"))
        summary = json.loads((tmp_path / f"{number:04d}" / "summary.json").read_text())
        assert [attempt["failure"] for attempt in summary["attempts"]] == [None]
    began = [event.number for event in mailbox.take()[0] if isinstance(event, TrialStarted)]
    assert began == [0, 1]
    assert mailbox.frozen() == []
    assert not mailbox._beating, "a run that has ended is not watched"


def test_a_trial_that_is_stopped_at_an_evaluation_trains_no_further_than_it_must(
    data: str, planned: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    trial = actor(planned(0, config_of(data, 4e-4)))
    assert trial.step()["kimg"] == pytest.approx(0.064)
    assert trial.reset_config(planned(1, config_of(data, 8e-4)))
    assert json.loads((tmp_path / "0000" / "summary.json").read_text())["reason"] == "interrupted"
    steps = [json.loads(line) for line in (tmp_path / "0000" / "metrics.jsonl").read_text().splitlines()]
    assert max(row["step"] for row in steps if row["event"] == "step") == 5
    # It goes on in another session, which tells Tune what is known first.
    again = actor(planned(0, config_of(data, 4e-4)))
    assert [one.get("replayed") for one in results(again)] == [True, False, None]
    trial.cleanup()


def test_a_user_s_mistake_ends_the_trial_and_not_its_actor(
    data: str, planned: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(loop.Trainer, "run", lambda self: raise_(UserError("s3://data: no such bucket")))
        trial = actor(planned(0, config_of(data, 4e-4)))
        (found,) = results(trial)
    assert (found["state"], found["note"]) == ("failed", "s3://data: no such bucket")
    assert trial.reset_config(planned(1, config_of(data, 8e-4)))
    assert results(trial)[-1]["state"] == "budget"


def test_a_bug_ends_the_trial_in_a_new_actor(
    data: str, planned: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.Trainer, "run", lambda self: raise_(ZeroDivisionError("of a loss")))
    config = planned(0, config_of(data, 4e-4))
    with pytest.raises(actor_run.WorkerError):
        actor(config).step()
    (found,) = results(actor(config))
    assert found["state"] == "failed"
    assert re.search(r"raised ZeroDivisionError: of a loss .*; such an error is not retried$", found["note"])


def raise_(error: Exception) -> None:
    raise error


def test_a_lost_connection_is_tried_again(
    data: str, mailbox: SearchMailbox, planned: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = planned(0, config_of(data, 4e-4))
    with monkeypatch.context() as patched:
        patched.setattr(loop.Trainer, "run", lambda self: raise_(ConnectionError("reset by peer")))
        with pytest.raises(ConnectionError):
            actor(config).step()
    assert mailbox.failure(0) == ""
    assert results(actor(config))[-1]["state"] == "budget"


def test_losses_without_a_checkpoint_are_counted_by_the_search(mailbox: SearchMailbox) -> None:
    reason, rules = "worker 0 on 10.0.0.1: its process died", ("runs/0003", 2, 60.0)
    assert mailbox.lost(3, reason, True, *rules) == "", "it had not begun"
    assert mailbox.begin(3, *rules, "actor") is None
    assert mailbox.lost(3, reason, False, *rules) == "", "a preemption does not count"
    assert mailbox.lost(3, reason, True, *rules) == ""
    failure = mailbox.lost(3, reason, True, *rules)
    assert failure.startswith(f"runs/0003: {reason}; restarted 2 times without a new checkpoint")
    error = mailbox.begin(3, *rules, "actor")
    assert str(error) == failure == mailbox.failure(3)


def test_an_actor_without_a_sign_of_life_is_found_once() -> None:
    now = [0.0]
    mailbox = SearchMailbox(lambda: now[0])
    for number in (0, 1, 2):
        mailbox.begin(number, f"runs/{number}", 3, 30.0, f"actor {number}")
    mailbox.end(2)
    mailbox.lost(3, "worker 0 on 10.0.0.1: its process died", True, "runs/3", 0, 30.0)
    assert mailbox.begin(3, "runs/3", 0, 30.0, "actor 0") is not None, "so no run of it beats in that actor"
    for now[0] in range(0, 36, 3):
        mailbox.tell(0, "beat", 0, Beat("worker 0 on 10.0.0.1", 1))
        found = mailbox.frozen()
        assert found == (["actor 1"] if now[0] == 33 else [])
    now[0] += 1000
    assert mailbox.frozen() == [], "the machine slept"
