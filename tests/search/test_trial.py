"""What Tune hears of a trial's run, with a run that the test tells what to do."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from distgan.config.load import load_config
from distgan.errors import DivergedError, UserError
from distgan.launch.placement.resources import Resources
from distgan.search.ray import trial as module
from distgan.search.ray import trial_runs
from distgan.search.ray.search_mailbox import SearchMailbox, TrialMailbox
from distgan.search.ray.trial import TrialRun
from distgan.training.events import EvaluationResult, RunFinished, StepMetrics
from distgan.training.run_spec import RunSpec
from driven import Actor

pytestmark = pytest.mark.timeout(60)


class Run:
    """The run of a trial: it goes on until it is told to end, and notes whether it was asked to."""

    def __init__(self) -> None:
        self.search = SearchMailbox()
        self.search.begin(7, "runs/0007", 3, 300.0, None)
        self.mailbox = self.search._runs[7]
        self.end = threading.Event()
        self.error: Exception | None = None

    def fit(self) -> None:
        self.end.wait()
        if self.error is not None:
            raise self.error

    def ended(self, reason: str) -> None:
        self.mailbox.put(RunFinished(SimpleNamespace(reason=reason)))  # type: ignore[arg-type]
        self.end.set()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    found = Run()

    @contextmanager
    def no_notes(_: object) -> Iterator[None]:
        yield

    monkeypatch.setattr(trial_runs, "build_ray_trainer", lambda *_: found)
    monkeypatch.setattr(trial_runs, "ray_storage", no_notes)
    monkeypatch.setattr(module.ray, "get", lambda value: value)
    monkeypatch.setattr(module, "_POLL_S", 0.01)
    yield found
    found.end.set()


@pytest.fixture
def begin(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrialRun]:
    """Begins the trial, which knows what earlier sessions have measured."""

    def begin(*known: tuple[float, float]) -> TrialRun:
        monkeypatch.setattr(module, "_measured", lambda spec, start_kimg: known)
        trial = TrialRun.__new__(TrialRun)  # without the folders that Tune makes
        job = RunSpec(load_config("quickstart"), "0007", str(tmp_path))
        trial.setup(
            {
                "number": 7,
                "spec": job,
                "in_actor": False,
                "versions": {},
                "resources": Resources(worker_cpus=1.0),
                "runs_per_host": 1,
                "threads": None,
                "start_kimg": 0.0,
                "exempt": False,
                "mailbox": Actor(run.search),
            }
        )
        trial._begun()
        return trial

    return begin


def evaluated(step: int, value: float) -> EvaluationResult:
    return EvaluationResult(step, step / 10, "fd", value, value, step / 10, True, 0, None, 1.0)


def test_evaluations_come_in_order_and_then_the_end(run: Run, begin: Callable[..., TrialRun]) -> None:
    trial = begin((1.0, 50.0), (2.0, 30.0))
    earlier = [trial.step(), trial.step()]
    assert [(one["kimg"], one["value"], one["score"], one["replayed"]) for one in earlier] == [
        (1.0, 50.0, 50.0, True),
        (2.0, 30.0, 30.0, True),
    ]
    run.mailbox.put(evaluated(0, 99.0))  # of the untrained generator: no evaluation of the trial
    run.mailbox.put(StepMetrics(25, 2.5, 400.0, {}))
    run.mailbox.put(evaluated(30, 40.0))
    now = trial.step()
    assert (now["number"], now["kimg"], now["value"], now["score"], now["replayed"]) == (7, 3.0, 40.0, 30.0, False)
    assert run.search.take()[0] == [(7, 2.5, 400.0)]
    run.ended("plateau")
    last = trial.step()
    assert (last["state"], last["done"], last["score"], last["kimg"]) == ("plateau", True, 30.0, 3.0)
    assert "value" not in last
    trial.cleanup()


@pytest.mark.parametrize(
    ("mistake", "state"),
    [
        (DivergedError("training diverged at step 7"), "diverged"),
        (UserError("s3://data: no such bucket"), "failed"),
    ],
)
def test_a_mistake_of_the_run_ends_the_trial_at_once(
    run: Run, begin: Callable[..., TrialRun], mistake: UserError, state: str
) -> None:
    trial = begin()
    run.mailbox.put_error(mistake)
    result = trial.step()  # though the run has not ended yet
    assert (result["state"], result["note"], result["done"]) == (state, str(mistake), True)
    assert "score" not in result


def test_illness_is_how_a_trial_ended(run: Run, begin: Callable[..., TrialRun]) -> None:
    trial = begin()
    run.ended("mode collapse")
    assert trial.step()["state"] == "mode collapse"


def test_a_trial_that_is_asked_to_stop_goes_on_in_another_session(run: Run, begin: Callable[..., TrialRun]) -> None:
    trial = begin()
    run.mailbox.put(evaluated(10, 40.0))
    trial.step()
    run.search.ask_to_stop()
    stopped = threading.Thread(target=lambda: (wait_until(run.mailbox.stop_asked), run.ended("interrupted")))
    stopped.start()
    run.mailbox.put(evaluated(20, 35.0))
    assert trial.step()["value"] == 35.0
    # It has not told that it started, so nothing can be lost.
    assert trial.step()["state"] == "begun"
    stopped.join()


def test_a_run_that_ends_without_a_word_is_an_error(run: Run, begin: Callable[..., TrialRun]) -> None:
    trial = begin()
    run.end.set()
    with pytest.raises(RuntimeError, match="ended without a summary"):
        trial.step()


def test_what_broke_the_run_is_told(run: Run, begin: Callable[..., TrialRun]) -> None:
    trial = begin()
    run.error = ValueError("a bug")
    run.end.set()
    with pytest.raises(ValueError, match="a bug"):
        trial.step()


def test_cleanup_stops_the_run_and_waits_for_it(run: Run, begin: Callable[..., TrialRun]) -> None:
    trial = begin()
    run.mailbox.put(evaluated(10, 40.0))
    trial.step()
    threading.Thread(target=lambda: (wait_until(run.mailbox.stop_asked), run.end.set())).start()
    trial.cleanup()
    assert run.end.is_set()


def test_a_run_that_lost_its_workers_too_often_has_failed_for_that(run: Run, begin: Callable[..., TrialRun]) -> None:
    trial = begin()
    reason = "worker 1 on 10.0.0.2: its process died"
    found = [run.mailbox.lost(reason, True) for _ in range(4)]
    assert found[:3] == [None, None, None]
    result = trial.step()
    assert (result["state"], result["note"]) == ("failed", found[3])
    assert result["note"].startswith(f"runs/0007: {reason}; restarted 3 times without a new checkpoint")


def test_an_actor_takes_the_next_trial_when_the_run_of_the_last_one_has_ended(
    run: Run, begin: Callable[..., TrialRun]
) -> None:
    trial = begin()
    run.mailbox.put(evaluated(10, 40.0))
    trial.step()
    threading.Thread(target=lambda: (wait_until(run.mailbox.stop_asked), run.end.set())).start()
    assert trial.reset_config({**trial._trial, "number": 8})
    assert run.end.is_set()
    run.end.clear()
    trial._begun()
    run.search.tell(8, "put", evaluated(10, 30.0))
    found = trial.step()
    assert (found["number"], found["score"]) == (8, 30.0)
    run.search.tell(8, "put", RunFinished(SimpleNamespace(reason="budget")))  # type: ignore[arg-type]
    run.end.set()
    assert trial.step()["state"] == "budget"


def test_a_trial_whose_actor_was_lost_begins_without_the_words_to_the_last_one(
    run: Run, begin: Callable[..., TrialRun]
) -> None:
    trial = begin()
    run.search.stop(7)
    run.mailbox.put(evaluated(10, 40.0))
    run.end.set()
    assert trial.reset_config(trial._trial)
    run.end.clear()
    trial._begun()
    assert not run.mailbox.stop_asked()
    assert run.mailbox.take() == ([], None)


def test_a_handle_to_a_runs_mailbox_can_be_sent_to_its_workers() -> None:
    found = pickle.loads(pickle.dumps(TrialMailbox("search", 8)))
    assert (found.beat.search, found.beat.number, found.beat.name) == ("search", 8, "beat")


def test_a_trial_that_has_not_begun_is_not_asked_to_stop() -> None:
    search = SearchMailbox()
    search.stop(9)
    assert search.begin(9, "runs/0009", 3, 300.0, None) is None
    assert not search.tell(9, "stop_asked")


def wait_until(condition: Callable[[], bool]) -> None:
    waiting = threading.Event()
    while not condition():
        waiting.wait(0.01)
