"""Unavailable storage: what is retried, for how long, and a run that outlives outages."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chaos.proxy import Proxy
from distgan.errors import UserError
from distgan.storage.retry import WAIT_S, Retry
from distgan.storage.storage import Storage, UnavailableError
from distgan.tracking.run_folder import RunReporter
from distgan.training.events import Event, Notice, StepMetrics
from distgan.training.run_spec import RunSpec
from distgan.training.train import train
from runs import ALONE, newest, pack_bricks, tiny_config

pytestmark = pytest.mark.timeout(60)


class Clock:
    """A clock that advances by waiting, and records the pauses."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        self.pauses.append(seconds)
        return False


def away_until(clock: Clock, end: float, kind: type[UserError] = UnavailableError) -> Callable[[], str]:
    def action() -> str:
        if clock.now < end:
            raise kind("s3://b/x: the server cannot be reached")
        return "answer"

    return action


def test_ten_minutes_are_waited_for_with_growing_pauses() -> None:
    clock, lines = Clock(), list[str]()
    waiting = Retry(lines.append, clock=clock, wait=clock.wait)
    assert waiting(away_until(clock, WAIT_S - 1)) == "answer"
    assert lines == ["s3://b/x: the server cannot be reached; waiting for it, 10 min at most"]
    assert clock.pauses[0] == 0.5
    assert clock.now <= WAIT_S
    begin, retries = clock.now, Retry.count
    with pytest.raises(UnavailableError, match="cannot be reached; waited 10 min for it"):
        waiting(away_until(clock, 1e9))
    assert clock.now - begin == pytest.approx(WAIT_S)
    assert len(lines) == 2
    assert Retry.count - retries == 64


def test_permanent_errors_are_raised_at_once() -> None:
    clock, lines = Clock(), list[str]()
    with pytest.raises(UserError, match="cannot be reached"):
        Retry(lines.append, clock=clock, wait=clock.wait)(away_until(clock, 1, UserError))
    assert clock.now == 0
    assert not lines


def test_a_wish_to_stop_ends_the_waiting() -> None:
    clock = Clock()
    with pytest.raises(UnavailableError, match="stopped while waiting"):
        Retry(stop=lambda: clock.now > 5, clock=clock, wait=clock.wait)(away_until(clock, 1e9))
    assert 5 < clock.now < 8


def test_waiting_ends_in_other_threads_too() -> None:
    logged = threading.Event()
    waiting, errors = Retry(lambda _: logged.set()), list[UserError]()

    def call() -> None:
        try:
            waiting(away_until(Clock(), 1))
        except UnavailableError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert logged.wait(10)
    waiting.cancel()
    thread.join(10)
    assert len(errors) == 1


@pytest.mark.parametrize("mode", ["refuse", "503", "hang"])
def test_what_may_pass_is_told_apart(mode: str, proxy: Proxy, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage.open(bucket)
    storage.write_bytes("x", b"abc")
    proxy.switch(mode)
    actions: list[Callable[[], Any]] = [
        lambda: storage.read_bytes("x"), lambda: storage.read_range("x", 0, 2), lambda: storage.size("x"),
        lambda: storage.write_bytes("x", b"abc"), storage.list, lambda: storage.delete("y"),
    ]  # fmt: skip
    for action in actions:
        with pytest.raises(UnavailableError):
            action()
    back = Retry(lambda _: proxy.switch("on"))
    assert back(lambda: storage.read_range("x", 0, 2)) == b"ab"
    with pytest.raises(UserError) as lasting:
        Retry()(Storage.open(f"{bucket}-2").require)
    assert not isinstance(lasting.value, UnavailableError)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UserError) as lasting:
        Retry()(lambda: storage.read_bytes("x"))
    assert not isinstance(lasting.value, UnavailableError)


@pytest.mark.timeout(150)
@pytest.mark.usefixtures("one_thread")
def test_a_run_outlives_outages(proxy: Proxy, bucket: str, tmp_path: Path) -> None:
    """The server fails after three of the updates, and is back once the run waits for it, or after three seconds.

    What still waits for the outage before begins no new one, and says nothing.
    """
    outages, changes = {2: "refuse", 4: "503", 6: "hang"}, ["data.memory_mb=0", "checkpoint.every_kimg=0.032"]
    data = Storage.open(pack_bricks(tmp_path, samples=80))
    for name in data.list():
        Storage.open(f"{bucket}/data").write_bytes(name, data.read_bytes(name))
    config = tiny_config("quickstart", f"{bucket}/data", 8, *changes)
    seen: list[Event] = []
    waits, repairs = threading.Event(), list[threading.Thread]()

    def repair() -> None:
        waits.wait(3)
        proxy.switch("on")

    def sink(event: Event) -> None:
        seen.append(event)
        if isinstance(event, StepMetrics) and event.step in outages:
            for earlier in repairs:
                earlier.join(10)
            waits.clear()
            proxy.switch(outages[event.step])
            repairs.append(threading.Thread(target=repair))
            repairs[-1].start()
        if isinstance(event, Notice) and "waiting for it" in event.text:
            waits.set()

    with contextlib.closing(RunReporter(Storage.open(f"{bucket}/run"), sink, lambda: False)) as reporter:
        summary = train(RunSpec(config, "run", bucket), ALONE, reporter)
    assert summary.reason == "budget"
    assert any(isinstance(event, Notice) and "waiting for it" in event.text for event in seen)
    assert proxy.met >= {"503", "hang"}
    rows = [json.loads(line) for line in Storage.open(bucket).read_bytes("run/metrics.jsonl").splitlines()]
    assert [row["step"] for row in rows if row["event"] == "step"] == list(range(1, 9))
    assert any(row.get("storage/retries", 0) > 0 for row in rows)
    assert {"config.yaml", "curves.png", "summary.json"} < set(Storage.open(f"{bucket}/run").list())
    assert newest(bucket)[1]["step"] == 8
