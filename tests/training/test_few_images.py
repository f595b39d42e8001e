"""Data sets that are small for what a run does with them: one line in the plan, at the start and in `data info`."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from command_line import Cli
from distgan.config.load import load_config
from distgan.evaluation.extractors.published import feature_count
from distgan.tracking import formatting
from distgan.tracking.console import Display
from distgan.training.data_checks import small_dataset_warning
from distgan.training.events import RunStarted, SmallDatasetWarning
from runs import pack_bricks, run, tiny_config
from toy_data import pack_numbered

pytestmark = pytest.mark.timeout(60)

CONFIG = load_config("quickstart", ["evaluation.real_samples=null", "training.batch_size=64"])
RANK = (
    "the distance uses {} real ones, not more than its 320 features: its covariance lacks rank, and the value is "
    "unreliable"
)
HEART = "100 do not fill 4 batches of 64, which a discriminator soon memorizes"


def warning_text(
    samples: int, real_samples: int | None, features: int | None = 320, generated: int = 2048
) -> str | None:
    evaluation = CONFIG.evaluation.model_copy(update={"real_samples": real_samples, "samples": generated})
    few = small_dataset_warning(samples, CONFIG.model_copy(update={"evaluation": evaluation}), features)
    return few and formatting.small_dataset(few)


def test_what_a_data_set_is_too_few_for() -> None:
    wanted = "are fewer than evaluation.real_samples=2048"
    assert warning_text(321, None) is None
    assert warning_text(320, None) == f"few images: {RANK.format(320)}"
    assert warning_text(255, None, None) == f"few images: {HEART.replace('100', '255')}"
    assert warning_text(256, None, None) is None
    assert warning_text(2047, 2048) == f"few images: 2,047 {wanted}"
    assert warning_text(2048, 2048) is None
    assert warning_text(70_000, 64) == f"few images: {RANK.format(64)}"
    assert warning_text(100, 2048) == f"few images: {RANK.format(100)}; 100 {wanted}; {HEART}"


def test_what_an_evaluation_has_too_few_samples_for() -> None:
    assert warning_text(321, None, generated=321) is None
    assert warning_text(321, None, generated=320) == f"few images: {RANK.format(320).replace('real', 'generated')}"
    both = RANK.format("320 real ones and 64").replace("64 real", "64 generated")
    assert warning_text(320, None, generated=64) == f"few images: {both}"
    assert warning_text(256, None, None, generated=2) is None


def test_extractors_tell_their_features() -> None:
    assert {name: feature_count(name) for name in ("fd_lite0", "fid")} == {"fd_lite0": 320, "fid": 2048}


def test_the_plan_and_data_info_warn(cli: Cli, tmp_path: Path) -> None:
    pack_numbered(tmp_path / "few", 100, size=32)
    pack_numbered(tmp_path / "many", 600, size=32)
    plan = ["train", "quickstart", "--dry-run", "evaluation.real_samples=null", "training.batch_size=64"]
    warned = cli(*plan, "data.url=few").err
    assert warned.splitlines()[-1] == f"warning: few images: {RANK.format(100)}; {HEART}"
    assert "few images" not in cli(*plan, "data.url=many").err
    info = cli("data", "info", "few").out.splitlines()
    assert info[-1].startswith(f"warning: few images: {RANK.format(100)}; 100 do not fill 4 batches of 128")
    assert "few images" not in cli("data", "info", "many").out


@pytest.mark.slow
def test_a_run_says_so_once_at_its_start(tmp_path: Path) -> None:
    data = pack_bricks(tmp_path / "data", samples=330)
    enough = ["evaluation.real_samples=null", "evaluation.samples=321"]
    _, recorder = run(tiny_config("quickstart", data, 1, *enough), str(tmp_path), "enough")
    assert not recorder.of(SmallDatasetWarning)
    _, recorder = run(tiny_config("quickstart", data, 1, "evaluation.real_samples=64"), str(tmp_path), "few")
    assert [type(event) for event in recorder.events[1:3]] == [RunStarted, SmallDatasetWarning]
    assert recorder.of(SmallDatasetWarning) == [SmallDatasetWarning(330, 64, 320, None, None, 4, 16)]
    console = Console(file=io.StringIO(), width=80)
    with Display(console) as display:
        for event in recorder.events:
            display.event(event)
        display.event(replace(recorder.of(RunStarted)[0], kimg=0.016))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert lines[2] == f"warning: few images: {RANK.format('64 real ones and 16').replace('16 real', '16 generated')}"
    assert sum("few images" in line for line in lines) == 1
