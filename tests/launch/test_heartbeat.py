"""Workers that do nothing any more are found, told apart from those that wait for something, and named."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from typing import ClassVar

import pytest

from distgan.launch.hangs import BEAT_S, Beat, HangWatch
from distgan.launch.run_mailbox import RunMailbox
from distgan.training.events import Notice
from distgan.training.meter import Meter

LIMIT_S = 300.0

IDLE = Beat("worker 0 on 10.0.0.1", activity=7, phase="training", steps=9)


class Group:
    """Two workers and the clock of their watch."""

    def __init__(self) -> None:
        self.now = 0.0
        self.watch = HangWatch(LIMIT_S, lambda: self.now)

    def passes(self, seconds: float, *beats: Beat | None) -> bool:
        """The time passes with such beats of ranks 0, 1, …; None for a frozen one. Returns whether they hang."""
        until = self.now + seconds
        while self.now < until:
            self.now += BEAT_S
            hung = [self.watch.beat(rank, beat) for rank, beat in enumerate(beats) if beat is not None]
            if any(hung):
                return True
        return False


OTHER = replace(IDLE, place="worker 1 on 10.0.0.2")


def test_a_frozen_worker_is_named() -> None:
    group = Group()
    group.passes(2 * BEAT_S, IDLE, OTHER)
    assert not group.passes(LIMIT_S - BEAT_S, IDLE, None)
    assert group.passes(2 * BEAT_S, IDLE, None)
    assert re.fullmatch(r"worker 1 on 10\.0\.0\.2: no answer since \d\d:\d\d:\d\d", str(group.watch.hang))


def test_a_worker_that_reads_for_ever_is_named() -> None:
    group = Group()
    assert group.passes(LIMIT_S + 9, IDLE, replace(OTHER, phase="data wait"))
    assert re.fullmatch(
        r"worker 1 on 10\.0\.0\.2: no progress since \d\d:\d\d:\d\d, in data wait", str(group.watch.hang)
    )


def test_where_all_wait_for_each_other_all_are_named() -> None:
    group = Group()
    assert group.passes(LIMIT_S + 9, IDLE, OTHER)
    assert str(group.watch.hang).startswith("worker 0 on 10.0.0.1, worker 1 on 10.0.0.2: no progress since ")


class TestNoHang:
    CASES: ClassVar = {
        "another worker evaluates": replace(OTHER, phase="evaluation"),
        "another worker writes a checkpoint": replace(OTHER, phase="checkpoint"),
        "the first step": replace(OTHER, steps=0),
    }

    @pytest.mark.parametrize("other", CASES.values(), ids=CASES)
    def test_what_may_take_long(self, other: Beat) -> None:
        assert not Group().passes(3 * LIMIT_S, IDLE, other)

    def test_a_worker_that_waits_for_storage(self) -> None:
        """Each retry is an activity."""
        group = Group()
        for retry in range(4):
            assert not group.passes(LIMIT_S - BEAT_S, IDLE, replace(OTHER, activity=7 + retry, phase="data wait"))

    def test_a_machine_that_slept(self) -> None:
        group = Group()
        group.passes(LIMIT_S - BEAT_S, IDLE, OTHER)
        group.now += 3 * LIMIT_S
        assert not group.passes(LIMIT_S - BEAT_S, IDLE, OTHER)

    def test_the_group_after_a_restart(self) -> None:
        group = Group()
        assert group.passes(LIMIT_S + 9, IDLE, OTHER)
        group.watch.restart()
        assert not group.passes(LIMIT_S, IDLE, OTHER)


def test_a_hang_is_the_reason_of_the_restart_and_counts() -> None:
    mailbox = RunMailbox("runs/a", most=1, hang_s=-1)
    assert mailbox.beat(1, OTHER)
    assert mailbox.lost("worker 0 on 10.0.0.1: its process died", counts=False) is None
    (event,), _ = mailbox.take()
    assert isinstance(event, Notice)
    assert re.fullmatch(r"worker 1 on .*: no progress since .*; restart 1 of 1 without a new checkpoint, from 0 kimg",
                        event.text)  # fmt: skip


HUNG = """
import time
from distgan.launch import heartbeat
from distgan.training.meter import Meter

class Mailbox:
    class beat:
        remote = staticmethod(lambda rank, beat: print(rank, beat.place, flush=True) or beat.activity > 0)

heartbeat.BEAT_S, heartbeat.ray.get = 0.01, lambda value: value
heartbeat.ray.util.get_node_ip_address = lambda: "10.0.0.2"
meter = Meter()
with heartbeat.Heartbeat(Mailbox, 1, meter), meter.phase("training"):
    time.sleep(60)
"""


def test_a_worker_whose_group_hangs_ends_though_its_thread_does_not() -> None:
    ended = subprocess.run([sys.executable, "-c", HUNG], capture_output=True, text=True, timeout=50)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert "1 worker 1 on 10.0.0.2" in ended.stdout


def test_a_sigterm_is_told_once() -> None:
    mailbox = RunMailbox("runs/a", most=1)
    for count in (0, 1, 1):
        mailbox.beat(1, replace(OTHER, sigterms=count))
    assert mailbox.terminated() == [OTHER.place]
    assert mailbox.terminated() == []


def test_the_meter_shows_what_the_training_does() -> None:
    meter = Meter()
    seen = [(meter.current_phase, meter.activity)]
    with meter.phase("training"):
        with suppress(ZeroDivisionError), meter.phase("data wait"):
            seen.append((meter.current_phase, meter.activity))
            raise ZeroDivisionError
        seen.append((meter.current_phase, meter.activity))
    seen.append((meter.current_phase, meter.activity))
    assert seen == [("", 0), ("data wait", 2), ("training", 3), ("", 4)]
