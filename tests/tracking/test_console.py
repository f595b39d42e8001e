"""What a terminal shows of a run: its phase, what is due, tables in few columns, lines in the place of a bar."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from distgan.text import plural
from distgan.tracking import progress_bars
from distgan.tracking.console import Display, Terminal, next_evaluation
from distgan.tracking.narrow import NarrowTable
from distgan.tracking.progress_bars import feature_bars
from distgan.training.events import PhaseStarted, RunStarted
from example_events import METRIC, evaluated, trained

STARTED = RunStarted(
    "toy", False, 0, 0.0, 100.0, 2, 4, 1, "cpu", 128, 3_600_000, 812_000, "s3://bucket/bricks", 40_000, METRIC,
    "seed: 1\n",
    evaluation_every_kimg=30.0,
)  # fmt: skip


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(live: bool, clock: Clock) -> tuple[Display, io.StringIO]:
    output = io.StringIO()
    console = Console(file=output, width=100, force_terminal=live, force_interactive=live, color_system=None)
    return Display(console, clock), output


def last_panel(output: io.StringIO) -> str:
    text = output.getvalue()
    return text[text.rindex("run ") :]


def test_the_panel_says_the_phase_the_elapsed_time_and_what_is_due() -> None:
    clock = Clock()
    display, output = shown(True, clock)
    with display:
        display.event(PhaseStarted("statistics of 40,000 real images"))
        assert "statistics of 40,000 real images" in output.getvalue()
        clock.now = 60.0
        display.event(STARTED)
        assert "training, 1:00 elapsed, evaluation at 30 kimg" in last_panel(output)
        display.event(PhaseStarted("evaluation", 0.0))
        clock.now = 75.0
        display._live.refresh()  # type: ignore[union-attr]
        assert "evaluation for 0:15, 1:15 elapsed" in last_panel(output)
        display.event(evaluated(0, 2800.0, best=None, best_kimg=None, improved=False))
        display.event(replace(trained(200), images_per_second=500.0))
        assert "training, 1:15 elapsed, evaluation at 30 kimg in 0:20" in last_panel(output)


@pytest.mark.parametrize("live", [True, False])
def test_the_wait_for_data_and_what_was_read(live: bool) -> None:
    measured = {"seconds/data_wait": 0.0123, "data/bytes_read": 2_500_000, "data/memory_hits": 0.25}
    clock = Clock()
    display, output = shown(live, clock)
    with display:
        display.event(STARTED)
        display.event(replace(trained(100), measured=measured))
        clock.now = 60.0
        step = trained(200)
        display.event(
            replace(step, terms=step.terms | {"storage/retries": 1}, measured=measured | {"data/cache_hits": 0.5})
        )
    parts = ["12.3 ms a step", "5.0 MB read", "25% from memory", "50% from the cache", "1 retry"]
    if live:
        assert "   ".join(parts) in last_panel(output)
    else:
        assert f", data wait {', '.join(parts)}, " in output.getvalue()


def test_lines_say_the_first_evaluation_once() -> None:
    display, output = shown(False, Clock())
    with display:
        display.event(PhaseStarted("statistics of 40,000 real images"))
        display.event(STARTED)
        for step in (0, 300):
            display.event(PhaseStarted("evaluation", step / 10))
            display.event(evaluated(step, 2800.0))
    lines = output.getvalue().splitlines()
    assert [line for line in lines if line.startswith("statistics") or line.endswith("begins")] == [
        "statistics of 40,000 real images",
        "evaluation at 0 kimg begins",
    ]


def test_the_next_evaluation() -> None:
    assert [next_evaluation(STARTED, kimg) for kimg in (0.0, 29.9, 30.0, 80.0, 95.0, 100.0)] == [
        30.0, 30.0, 60.0, 90.0, 100.0, None,
    ]  # fmt: skip
    assert next_evaluation(replace(STARTED, evaluation_every_kimg=None), 0.0) is None


def table() -> NarrowTable:
    found = NarrowTable(title="run against data", title_justify="left")
    found.add_column("metric", no_wrap=True)
    found.add_column("value", justify="right", no_wrap=True)
    found.add_column("what it is compared with", overflow="fold")
    found.add_row("fd_lite0_50k_full", "141.0 ± 12.25", "statistics of the real images")
    return found


@pytest.mark.parametrize("width", [20, 45, 50, 60, 80])
@pytest.mark.parametrize("soft_wrap", [False, True])
def test_no_word_or_number_is_cut_at_any_width(width: int, soft_wrap: bool) -> None:
    console = Terminal(file=io.StringIO(), width=width, soft_wrap=soft_wrap)
    console.print(table())
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for word in ("fd_lite0_50k_full", "141.0", "12.25", "statistics", "compared", "images"):
        assert word in text
    assert ("━" in text) == (width >= 50)
    assert "…" not in text


def test_without_a_terminal_a_line_comes_every_ten_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    with feature_bars({"real images": 400, "images": 2_000}, clock=clock) as (on_progress, _):
        for second in range(1, 26):
            clock.now = float(second)
            on_progress("images", 64)
    assert capsys.readouterr().err.splitlines() == ["images: 640 of 2,000", "images: 1,280 of 2,000"]
    assert progress_bars._LINE_S == 10


def test_one_is_not_many() -> None:
    assert [plural(count, "shard") for count in (0, 1, 2_000)] == ["0 shards", "1 shard", "2,000 shards"]
    assert [plural(count, "class", "classes") for count in (1, 2)] == ["1 class", "2 classes"]
