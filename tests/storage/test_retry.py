"""Unavailable storage: what is retried, for how long, and a run that outlives outages."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from distgan.errors import UserError
from distgan.storage import retry, urls
from distgan.storage.retry import WAIT_S, Retry
from distgan.storage.s3_server.server import StoreHandle
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
    before, begin, retries = len(clock.pauses), clock.now, Retry.count
    with pytest.raises(UnavailableError, match="cannot be reached; waited 10 min for it"):
        waiting(away_until(clock, 1e9))
    assert clock.now - begin == pytest.approx(WAIT_S)
    assert len(lines) == 2
    assert Retry.count - retries == len(clock.pauses) - before


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


class Proxy:
    """A proxy of an S3 server that can be switched to refuse connections, to answer 503 or not to answer.

    Attributes:
        met: modes in which an answer came while they lasted; "refuse" has none.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target, self._mode = target, "on"
        self.met: set[str] = set()
        self._open: set[socket.socket] = set()
        self._answers = threading.Event()
        self._answers.set()
        self._listen(0)

    def _listen(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def switch(self, mode: str) -> None:
        before, self._mode = self._mode, mode
        if mode == "hang":
            self._answers.clear()
        else:
            self._answers.set()
        if mode in {"refuse", "503"}:
            if mode == "refuse":
                self._close(self._listener)
            for connection in list(self._open):
                self._close(connection)
        elif before == "refuse":
            self._listen(self.port)

    def close(self) -> None:
        self.switch("refuse")

    @staticmethod
    def _close(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(self._target)
                self._open |= {client, server}
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._copy, args=ends, daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.met.add(self._mode)
                self._answers.wait(30)
                if self._mode == "503":
                    source.sendall(
                        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                    )
                    break
                sink.sendall(data)
        self._close(source)
        self._close(sink)


@pytest.fixture
def proxy(object_store: StoreHandle, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    address = urlsplit(object_store.environment()["AWS_ENDPOINT_URL"])
    assert address.hostname is not None
    assert address.port is not None
    proxy = Proxy((address.hostname, address.port))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    quick = {"connect_timeout": 1, "read_timeout": 0.5, "retries": {"total_max_attempts": 1}}
    monkeypatch.setattr(urls, "_S3_CONFIG", urls._S3_CONFIG | quick)
    monkeypatch.setattr(retry, "_FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(retry, "_LONGEST_PAUSE_S", 0.1)
    yield proxy
    proxy.close()


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
    assert {"config.yaml", "curves.png", "summary.json"} < set(Storage.open(f"{bucket}/run").list())
    assert newest(bucket)[1]["step"] == 8
