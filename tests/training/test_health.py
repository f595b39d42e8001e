"""Failure modes: each is detected when provoked, a healthy run has none, and a resume changes nothing."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import pytest
import torch
from rich.console import Console

from distgan.config.config_errors import value_text
from distgan.config.load import flatten, load_config, preset_names
from distgan.config.schema import Config
from distgan.distributed import Distributed
from distgan.evaluation.feature_statistics import FeatureSums, GaussianStatistics
from distgan.evaluation.metrics.diversity import diversity
from distgan.losses.bce import BinaryCrossEntropy
from distgan.losses.context import Context
from distgan.losses.hinge import Hinge
from distgan.losses.wgan import Wasserstein
from distgan.losses.wgan_gp import WassersteinGradientPenalty
from distgan.storage.storage import Storage
from distgan.tracking import formatting
from distgan.tracking.console import Display
from distgan.tracking.jsonl import read_rows
from distgan.tracking.run_folder import RunFolder
from distgan.tracking.tables import summary_table
from distgan.training import health as rules
from distgan.training import loop as loop_module
from distgan.training.checkpoints import checkpoint_name
from distgan.training.events import EvaluationResult, RunFinished, StepMetrics, Summary
from distgan.training.health import WARM_UP, WINDOW, FailureMode, Health, HealthWarning
from distgan.training.health_advice import advice
from distgan.training.meter import Meter
from distgan.training.progress import Progress
from gloo import run_workers
from runs import BATCH, assert_same_bits, checkpoints, newest, pack_bricks, run, tiny_config

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("one_thread")]

BCE = BinaryCrossEntropy.chance_loss
STATES: tuple[FailureMode, ...] = get_args(FailureMode)
FINE = {
    "loss/discriminator": 0.4,
    "loss/generator": 1.5,
    "accuracy/real": 0.9,
    "accuracy/fake": 0.88,
    "gradients/discriminator": 20.0,
    "gradients/generator": 10.0,
}
OVERPOWERED = FINE | {
    "loss/discriminator": 0.002,
    "loss/generator": 6.0,
    "accuracy/real": 1.0,
    "accuracy/fake": 0.999,
    "gradients/generator": 100.0,
}


class Watch:
    """A `Health` with windows of equal updates, 10 images each."""

    def __init__(self, chance_loss: float | None = BCE) -> None:
        self.health, self.chance_loss, self.step = Health(), chance_loss, 0

    def windows(self, count: int, row: dict[str, float]) -> list[FailureMode]:
        begun: list[FailureMode] = []
        for _ in range(count):
            self.step += WINDOW
            begun += self.health.add_steps([row] * WINDOW, self.step, 10 * self.step, self.chance_loss)
        return begun

    def evaluations(self, *values: float) -> list[list[FailureMode]]:
        return [self.health.add_diversity(value, self.step, 10 * self.step) for value in values]


@pytest.fixture
def watch() -> Watch:
    """That of a run that has trained well for a while."""
    watch = Watch()
    assert watch.windows(10, FINE) == []
    return watch


# Detectors, on literal metrics.


def test_a_discriminator_overpowers_after_four_windows(watch: Watch) -> None:
    assert watch.windows(3, OVERPOWERED) == []
    assert watch.windows(1, FINE) == []
    assert watch.windows(3, OVERPOWERED) == []
    assert watch.windows(1, OVERPOWERED) == ["discriminator overpowers"]
    assert watch.windows(5, OVERPOWERED) == []
    episode = watch.health.episodes["discriminator overpowers"]
    assert (episode.step, episode.images, episode.until) == (18 * WINDOW, 180 * WINDOW, None)
    assert episode.seen == (
        "its loss was 0.002 (chance: 0.69), its accuracy 100.0% (real), 99.9% (fake); "
        "the generator's gradient norm was 100 (at most 100 before)"
    )


def test_a_state_ends_and_may_begin_again(watch: Watch) -> None:
    watch.windows(4, OVERPOWERED)
    assert watch.health.ongoing == ["discriminator overpowers"]
    watch.windows(3, FINE)
    watch.windows(1, OVERPOWERED)
    assert watch.health.ongoing == ["discriminator overpowers"]
    watch.windows(4, FINE)
    assert watch.health.ongoing == []
    episode = watch.health.episodes["discriminator overpowers"]
    assert (episode.times, episode.images, episode.until) == (1, 140 * WINDOW, 220 * WINDOW)
    assert watch.windows(4, OVERPOWERED) == ["discriminator overpowers"]
    assert (episode.times, episode.images, episode.until) == (2, 140 * WINDOW, None)


@pytest.mark.parametrize(
    ("changes", "chance_loss"),
    [
        ({"loss/discriminator": 0.1}, BCE),  # a sixth of chance: a discriminator that is good
        ({"accuracy/fake": 0.9}, BCE),
        ({"accuracy/real": 0.9}, BCE),
        ({"loss/discriminator": 5.0, "loss/adversarial": 0.5}, BCE),
        ({"loss/discriminator": -20.0}, WassersteinGradientPenalty.chance_loss),
        ({}, Wasserstein.chance_loss),
    ],
)
def test_a_good_discriminator_does_not_overpower(changes: dict[str, float], chance_loss: float | None) -> None:
    watch = Watch(chance_loss)
    watch.windows(10, FINE)
    assert watch.windows(10, OVERPOWERED | changes) == []


def test_the_penalty_is_not_a_part_of_the_loss(watch: Watch) -> None:
    row = OVERPOWERED | {"loss/discriminator": 5.0, "loss/adversarial": 0.002}
    assert watch.windows(4, row) == ["discriminator overpowers"]


def test_chance_is_the_loss_at_logits_of_zero() -> None:
    zeros, draws = torch.zeros(4), Context(0, 0.0, 0, 0, torch.device("cpu"), torch.float32)
    for objective in (BinaryCrossEntropy(), Hinge()):
        loss = objective.discriminator_loss(zeros, zeros, draws)
        assert loss.item() == pytest.approx(objective.chance_loss, rel=1e-6)


def test_a_generator_without_gradient_is_dead(watch: Watch) -> None:
    assert watch.windows(9, FINE | {"gradients/generator": 1e-3}) == []
    assert watch.windows(3, FINE | {"gradients/generator": 1e-9}) == []
    assert watch.windows(1, FINE | {"gradients/generator": 0.0}) == ["dead generator"]
    assert "norm was 0, and up to 10 before" in watch.health.episodes["dead generator"].seen


def test_a_generator_that_never_had_a_gradient_is_dead() -> None:
    assert Watch().windows(8, FINE | {"gradients/generator": 0.0}) == ["dead generator"]


@pytest.mark.parametrize(
    ("name", "much", "too_much"),
    [
        ("loss/generator", -90.0, -1000.0),
        ("loss/discriminator", 90.0, -1000.0),
        ("gradients/generator", 900.0, 1e4),
        ("gradients/discriminator", 1800.0, 2e4),
    ],
)
def test_what_explodes_against_its_past_diverges(name: str, much: float, too_much: float, watch: Watch) -> None:
    assert watch.windows(4, FINE | {name: much}) == []
    assert watch.windows(1, FINE | {name: too_much}) == []
    assert watch.windows(1, FINE | {name: too_much}) == ["diverged"]
    assert watch.windows(20, FINE | {name: too_much}) == [], "what has exploded becomes no past"
    assert watch.health.ongoing == ["diverged"]
    assert name in watch.health.episodes["diverged"].seen


def test_growth_that_does_not_end_diverges(watch: Watch) -> None:
    """Each window twice the last one: never far beyond the largest before it."""
    begun = [watch.windows(1, FINE | {"gradients/discriminator": 20.0 * 2**doublings}) for doublings in range(25)]
    assert [number for number, states in enumerate(begun) if states == ["diverged"]] == [10]


def test_a_run_that_explodes_at_once_diverges() -> None:
    assert Watch(None).windows(WARM_UP // WINDOW + 2, FINE | {"loss/discriminator": -2e5}) == ["diverged"]


def test_what_was_next_to_nothing_may_grow() -> None:
    watch = Watch(None)
    small = {"loss/generator": 1e-4, "loss/discriminator": -1e-5, "gradients/generator": 1e-3}
    watch.windows(10, FINE | small)
    assert watch.windows(10, FINE | {"loss/generator": 30.0, "loss/discriminator": -20.0}) == []


@pytest.mark.parametrize("row", [OVERPOWERED, FINE | {"gradients/generator": 0.0}, FINE | {"loss/generator": 1e9}])
def test_the_first_updates_are_not_checked(row: dict[str, float]) -> None:
    watch = Watch()
    assert watch.windows(WARM_UP // WINDOW, row) == []
    assert watch.windows(10, FINE) == []
    assert watch.health.episodes == {}


@pytest.mark.parametrize(
    ("values", "begins"),
    [
        ([0.8, 0.7, 0.25, 0.2, 0.1], 3),
        ([0.8, 0.25, 0.7, 0.25, 0.7], None),
        ([0.8, 0.31, 0.31, 0.31], None),
        ([0.02, 0.05, 0.15, 0.25, 0.5], None),  # an untrained generator that learns slowly
        ([0.25, 0.24, 0.26, 0.25], None),  # poor, but as ever
        ([0.02, 0.02, 0.021, 0.02], 2),  # the same picture since it began
    ],
)
def test_low_diversity_is_a_collapse(watch: Watch, values: list[float], begins: int | None) -> None:
    begun = watch.evaluations(*values)
    assert [number for number, states in enumerate(begun) if states] == ([] if begins is None else [begins])
    assert set(watch.health.episodes) <= {"mode collapse"}


def test_a_collapse_has_its_numbers_and_ends(watch: Watch) -> None:
    watch.evaluations(0.8, 0.25, 0.2)
    seen = watch.health.episodes["mode collapse"].seen
    assert seen == "samples were 0.2 times as diverse as real images, at most 0.8 times before"
    watch.evaluations(0.5, 0.5)
    assert watch.health.ongoing == []


def test_untrained_and_overpowered_generators_have_not_collapsed(watch: Watch) -> None:
    for _ in range(5):
        watch.health.add_diversity(0.01, 0, 0)
    assert watch.health.largest_diversity == 0
    watch.evaluations(0.8)
    watch.windows(4, OVERPOWERED)
    assert watch.evaluations(0.1, 0.1, 0.1) == [[], [], []]


def test_diversity_is_the_ratio_of_pairwise_distances() -> None:
    random = torch.Generator().manual_seed(0)
    spreads = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    real, fake = (torch.randn(400, 3, generator=random, dtype=torch.float64) * spread for spread in (spreads, 0.25))

    def statistics(features: torch.Tensor) -> GaussianStatistics:
        sums = FeatureSums.zeros(3)
        sums.update(features)
        return sums.statistics()

    def root_mean_square(features: torch.Tensor) -> float:
        return float(torch.pdist(features).square().mean().sqrt())

    measured = diversity(statistics(fake), statistics(real))
    assert measured == pytest.approx(root_mean_square(fake) / root_mean_square(real), rel=1e-9)
    one = torch.ones(4, 3, dtype=torch.float64)
    assert diversity(statistics(one), statistics(real)) == 0
    assert diversity(statistics(fake), statistics(one)) == 1


# Advice.


@pytest.mark.parametrize("preset", preset_names())
def test_advice_names_keys_of_the_configuration(preset: str) -> None:
    config = load_config(preset)
    values = flatten(config.model_dump(mode="json"), whole_schedules=True)
    for state in STATES:
        for change in re.split(r"(?<=\)), ", advice(state, config).removeprefix("in a new run: ")):
            way, key, now = change.split(" ", 2)
            assert way in ("raise", "lower", "set")
            assert now == f"(now {'none' if values[key] is None else value_text(values[key])})"


def test_advice_is_possible() -> None:
    config = load_config("quickstart")  # without dropout and label noise
    assert "raise discriminator.dropout (now 0)" in advice("discriminator overpowers", config)
    assert "raise objective.label_noise (now 0)" in advice("discriminator overpowers", config)
    assert "dropout" not in advice("mode collapse", config)
    assert "lower discriminator.dropout (now 0.3)" in advice("mode collapse", load_config("dcgan-bricks"))
    assert "label" not in advice("discriminator overpowers", load_config("sngan-cifar"))
    bounded = load_config("quickstart", ["optimizer.generator.max_grad_norm=1"])
    assert "generator.max_grad_norm" not in advice("diverged", bounded).replace("discriminator.max", "")


def test_advice_on_a_scheduled_rate() -> None:
    config = load_config("quickstart", ["optimizer.generator.lr={from: 1e-3, to: 1e-4, until_kimg: 90}"])
    shown = "{from: 0.001, to: 0.0001, from_kimg: 0, until_kimg: 90, shape: cosine}"
    assert f"lower optimizer.generator.lr (now {shown})" in advice("diverged", config)


# What is kept.


def test_steps_may_come_in_any_portions() -> None:
    rows = [{name: value * (1 + 0.01 * number) for name, value in OVERPOWERED.items()} for number in range(12 * WINDOW)]
    found = []
    for size in (1, 7, WINDOW):
        health, step = Health(), 0
        while step < len(rows):
            end = min(step + size, (step // WINDOW + 1) * WINDOW)
            health.add_steps(rows[step:end], end, end, BCE)
            step = end
        found.append(health)
    assert found[0] == found[1] == found[2]
    assert found[0].ongoing == ["discriminator overpowers"]


def test_a_checkpoint_keeps_it_and_an_older_one_has_none(watch: Watch) -> None:
    watch.windows(4, OVERPOWERED)
    watch.health.add_steps([FINE] * 3, watch.step + 3, 0, BCE)
    watch.evaluations(0.7)
    progress = Progress(step=5, health=watch.health)
    values = json.loads(json.dumps(progress.as_dict()))
    assert Progress.from_dict(values) == progress
    del values["health"]
    assert Progress.from_dict(values).health == Health()


def sync_in_portions(distributed: Distributed) -> bool:
    """Whether metrics have the same bits synchronized after every update and all at once, and counts are exact."""
    random = torch.Generator().manual_seed(distributed.rank)
    rows = torch.randn(40, 3, generator=random)
    one, other, found = Meter(), Meter(), []
    for row in rows:
        terms = dict(zip("abc", row, strict=True))
        one.add_step(terms, 1)
        other.add_step(terms, 1)
        one.count(bytes=2**40 + distributed.rank)
        found += one.sync_metrics(distributed)[0]
    return found == other.sync_metrics(distributed)[0] and one.take()[-1] == {"bytes": 40 * (3 * 2**40 + 3)}


def test_metrics_do_not_depend_on_when_they_are_synchronized() -> None:
    assert run_workers(sync_in_portions, 3) == [True] * 3


# Real runs.

SMALL = ["scale.groups=1", "evaluation.samples=32", "training.log_every=50"]
# A discriminator without batch statistics, so that each image has its own logit, and its objective.
PLAIN = "discriminator: {{network: wgan_gp, dropout: 0.0}}\nobjective: {}\n"
PROVOKED: dict[FailureMode, tuple[str, list[str], int]] = {
    # A generator that hardly moves.
    "discriminator overpowers": (
        "quickstart",
        ["optimizer.generator.lr=1e-5", "optimizer.discriminator.lr=2e-3"],
        WARM_UP + 4 * WINDOW,
    ),
    # A wide generator that runs to what a critic likes that hardly moves.
    "mode collapse": (
        PLAIN.format("{name: hinge}"),
        [
            "optimizer.generator.lr=3e-2",
            "optimizer.discriminator.lr=1e-6",
            "generator.width=16",
            "evaluation.every_kimg=0.8",
        ],
        WARM_UP + 2 * WINDOW,
    ),
    # Steps so large that no image is found fake again, with a loss that is flat there: label noise bounds the logits.
    "dead generator": (
        "quickstart",
        ["optimizer.generator.lr=1", "optimizer.discriminator.lr=1", "objective.label_noise=0.1"],
        WARM_UP + 4 * WINDOW,
    ),
    # A Wasserstein critic that nothing bounds.
    "diverged": (
        PLAIN.format("{name: wgan_gp, gp_weight: 0.0}"),
        ["optimizer.generator.lr=1e-6", "optimizer.discriminator.lr=3e-2"],
        WARM_UP + 2 * WINDOW,
    ),
    # Few images, and a discriminator that soon knows them by heart.
    "discriminator overfits": (
        "quickstart",
        ["optimizer.discriminator.lr=1e-3", "discriminator.width=16", "data.held_out={held_out}"],
        WARM_UP + 4 * WINDOW,
    ),
}


def provoking_config(state: FailureMode, folder: Path, data: str, *overrides: str) -> Config:
    preset, changes, steps = PROVOKED[state]
    if state == "discriminator overfits" and not (folder / "few").exists():
        pack_bricks(folder / "few", samples=32)
        pack_bricks(folder / "held-out", seed=1)
    if state == "discriminator overfits":
        data, changes = str(folder / "few"), [change.format(held_out=folder / "held-out") for change in changes]
    if preset != "quickstart":
        (folder / "provoking.yaml").write_text(preset)
        preset = str(folder / "provoking.yaml")
    return tiny_config(preset, data, steps + 3 * WINDOW, *SMALL, *changes, *overrides)


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
def test_a_provoked_failure_warns_once_and_stops_if_configured(state: FailureMode, data: str, tmp_path: Path) -> None:
    config = provoking_config(state, tmp_path, data, "health.stop=true")
    summary, recorder = run(config, str(tmp_path))
    (event,) = recorder.of(HealthWarning)
    step = event.step
    assert (event.state, event.kimg) == (state, step * BATCH / 1000)
    assert PROVOKED[state][2] <= step <= PROVOKED[state][2] + WINDOW
    assert summary.health == [event]
    assert (summary.reason, summary.steps) == (state, step)
    assert recorder.of(EvaluationResult)[-1].step == step
    assert checkpoints(str(tmp_path)).newest_name() == summary.last_checkpoint == checkpoint_name(step)
    assert formatting.stop_reason(summary) == f"{state} (health.stop)"
    assert formatting.next_command(summary) == "the same command with health.stop=false"

    again, recorder = run(config, str(tmp_path))
    assert (again.reason, again.steps, recorder.of(StepMetrics)) == (state, step, [])
    further, recorder = run(
        provoking_config(state, tmp_path, data, "health.stop=false"), str(tmp_path), stop_at=step + 1
    )
    assert (further.reason, further.health[0].step) == ("interrupted", step)
    assert recorder.of(HealthWarning) == []


def test_a_healthy_run_is_silent(data: str, tmp_path: Path) -> None:
    config = tiny_config("quickstart", data, 600, *SMALL, "evaluation.every_kimg=1.6", "health.stop=true")
    summary, recorder = run(config, str(tmp_path))
    assert recorder.of(HealthWarning) == summary.health == []
    assert (summary.reason, summary.steps) == ("budget", 600)


# Windows so short that a failure mode begins at once, and a chance loss far above all losses.
SHORT = 5


class Hasty:
    """Within it a discriminator overpowers after some updates with full accuracy."""

    def __enter__(self) -> None:
        self.patches = [
            patch.object(rules, "WINDOW", SHORT),
            patch.object(loop_module, "WINDOW", SHORT),
            patch.object(rules, "WARM_UP", SHORT),
            patch.object(BinaryCrossEntropy, "chance_loss", 100.0),
        ]
        for each in self.patches:
            each.start()

    def __exit__(self, *_: object) -> None:
        for each in self.patches:
            each.stop()


def whole_and_stopped(distributed: Distributed, config: Config, storage: str) -> list[list[HealthWarning]]:
    """Failure modes of an uninterrupted run, and of one stopped within windows, at their ends, and during a failure."""
    with Hasty():
        whole, _ = run(config, storage, "whole", distributed=distributed)
        for step in (3, 7, 10, 38, 60):
            run(config, storage, "stopped", distributed=distributed, stop_at=step)
        stopped, _ = run(config, storage, "stopped", distributed=distributed)
    assert whole.steps == stopped.steps
    return [whole.health, stopped.health]


@pytest.mark.parametrize(
    ("size", "stop"),
    [(1, "true"), pytest.param(3, "true", marks=pytest.mark.slow), pytest.param(3, "false", marks=pytest.mark.slow)],
)
def test_being_stopped_changes_no_failure_mode(size: int, stop: str, data: str, tmp_path: Path) -> None:
    keys = ["optimizer.generator.lr=1e-5", "optimizer.discriminator.lr=1e-2", "training.log_every=1"]
    config = tiny_config("quickstart", data, 70, *keys, f"health.stop={stop}")
    for whole, stopped in run_workers(whole_and_stopped, size, config, str(tmp_path)):
        assert whole == stopped
        assert whole[0].state == "discriminator overpowers"
    assert_same_bits(newest(str(tmp_path), "stopped"), newest(str(tmp_path), "whole"))


# How it is shown.

WARNED = HealthWarning(
    400, 12.8, "mode collapse", "samples lay 0.2 times as far apart", "in a new run: lower x.lr (now 1)"
)


def summary(**changes: Any) -> Summary:
    plain: dict[str, Any] = dict.fromkeys(
        ("untrained", "best", "best_kimg", "latest", "latest_kimg", "floor", "best_checkpoint", "last_checkpoint")
    )
    return Summary(
        name="toy",
        metric="fd",
        reason="budget",
        kimg=100.0,
        budget_kimg=100.0,
        steps=10,
        without_improvement=0,
        workers=1,
        resumed_at_kimg=0.0,
        images_per_second=1.0,
        **plain,
        **changes,
    )


@pytest.fixture
def text() -> Iterator[io.StringIO]:
    with io.StringIO() as output:
        yield output


def test_the_display_shows_it_once(text: io.StringIO) -> None:
    with Display(Console(file=text, width=300)) as display:
        display.event(WARNED)
    assert text.getvalue() == (
        "warning: mode collapse since 12.8 kimg: samples lay 0.2 times as far apart; in a new run: lower x.lr (now 1)\n"
    )


def test_the_run_keeps_it(tmp_path: Path, text: io.StringIO) -> None:
    ended = HealthWarning(**{**WARNED.__dict__, "times": 2, "until_kimg": 20.0})
    with RunFolder(Storage.open(str(tmp_path)), None) as folder:
        folder.event(WARNED)
        folder.event(RunFinished(summary(health=[ended])))
    (row,) = read_rows(tmp_path / "metrics.jsonl")
    assert row == {"event": "warning", "time": row["time"], **WARNED.__dict__}
    kept = json.loads((tmp_path / "summary.json").read_text())
    assert kept["health"] == [ended.__dict__]
    Console(file=text, width=300).print(summary_table(summary(health=[ended])))
    assert "health" in text.getvalue()
    assert "mode collapse from 12.8 to 20 kimg, 2 times: samples lay 0.2 times as far apart; in a" in text.getvalue()
    assert "health" not in _table(summary())


def _table(summary: Summary) -> str:
    output = io.StringIO()
    Console(file=output, width=300).print(summary_table(summary))
    return output.getvalue()
