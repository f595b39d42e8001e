"""`--init-from`: a new run from the weights of another, and what a resume makes of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from command_line import Cli, one_line
from distgan.config.load import dump_config
from distgan.config.schema import Config
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.training.checkpoints import Checkpoint
from distgan.training.ema import ExponentialMovingAverage
from distgan.training.events import EvaluationResult, Notice
from distgan.training.networks import build_networks
from distgan.training.run_spec import RunSpec, plan_run
from distgan.training.starting_point import check_initial, find_checkpoint, load_initial
from distgan.training.train import train
from gloo import run_workers
from runs import ALONE, Recorder, assert_same_bits, newest, pack_bricks, run, tiny_config

pytestmark = [pytest.mark.timeout(90), pytest.mark.usefixtures("one_thread")]

WEIGHTS = ["generator", "discriminator", "ema"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of four steps, `source`, with checkpoints of each two, and other data than its own."""
    folder = tmp_path_factory.mktemp("initial")
    pack_bricks(folder / "data", samples=80)
    pack_bricks(folder / "other", seed=1, samples=80)
    config = tiny_config("quickstart", f"{folder}/data", 4, "checkpoint.every_kimg=0.032")
    run(config, str(folder), "source")
    return folder


def new_config(place: Path, steps: int = 3, *overrides: str) -> Config:
    """Another recipe on other data, with the networks of the source."""
    changes = ["seed=7", "optimizer.generator.lr=1e-4", "objective.label_noise=0.1"]
    return tiny_config("quickstart", f"{place}/other", steps, *changes, *overrides)


def begin(place: Path, storage: Path, config: Config, source: str, stop_at: int | None = None) -> Checkpoint:
    """Trains as the command does; returns the newest checkpoint."""
    job = plan_run(RunSpec(config, "new", str(storage), init_from=source)).spec
    train(job, ALONE, Recorder(stop_at))
    return find_checkpoint(str(storage / "new"))


def test_a_new_run_has_the_weights_and_nothing_else(place: Path, tmp_path: Path) -> None:
    source = f"{place}/source/checkpoints/step-000000002"
    config = new_config(place, 1, "evaluation.at_start=true")
    job = plan_run(RunSpec(config, "new", str(tmp_path), init_from=source)).spec
    recorder = Recorder()
    summary = train(job, ALONE, recorder)
    assert summary.given
    assert [(event.given, event.untrained) for event in recorder.of(EvaluationResult)] == [
        (True, summary.untrained)
    ] * 2
    begun = find_checkpoint(f"{tmp_path}/new/checkpoints/step-000000000")
    given = find_checkpoint(source)
    for part in WEIGHTS:
        for name, value in given.tensors[part].items():
            assert torch.equal(begun.tensors[part][name], value), f"{part} {name}"
    assert not begun.tensors["generator_optimizer"]["state"]
    assert begun.manifest.progress["images"] == begun.manifest.progress["batches"] == 0
    assert begun.manifest.init_from == source
    assert find_checkpoint(f"{place}/source").manifest.init_from is None


def test_a_resume_is_not_disturbed(place: Path, tmp_path: Path) -> None:
    """Stopped and resumed, with and without the option, and after the source is deleted: the same bits."""
    source = shutil.copytree(place / "source", tmp_path / "source")
    config = new_config(place)
    whole = begin(place, tmp_path / "whole", config, str(source))
    assert whole.manifest.init_from == f"{source}/checkpoints/{find_checkpoint(str(source)).manifest.name}"
    begin(place, tmp_path / "stopped", config, str(source), stop_at=1)
    begin(place, tmp_path / "stopped", config, str(source), stop_at=2)
    shutil.rmtree(source)
    last, _ = run(config, str(tmp_path / "stopped"), "new")
    assert (last.steps, last.resumed_at_kimg) == (3, 0.032)
    assert_same_bits(newest(str(tmp_path / "stopped"), "new"), newest(str(tmp_path / "whole"), "new"))
    assert find_checkpoint(f"{tmp_path}/stopped/new").manifest.init_from == whole.manifest.init_from


def trained(distributed: Distributed, job: RunSpec) -> None:
    train(job, distributed, Recorder())


def test_every_worker_begins_with_them(place: Path, tmp_path: Path) -> None:
    """In float64 three workers do what one does; the weights that are given are float32."""
    config = new_config(place, 2, "training.precision=float64")
    ends = {}
    for size in (1, 3):
        run_workers(
            trained, size, plan_run(RunSpec(config, str(size), str(tmp_path), init_from=f"{place}/source")).spec
        )
        ends[size] = newest(str(tmp_path), str(size))[0]
    for path, value in ends[1].items():
        if isinstance(value, torch.Tensor) and not path.startswith("/generator_optimizer"):
            torch.testing.assert_close(ends[3][path], value, rtol=1e-9, atol=1e-9)


def test_what_does_not_fit_is_one_line(place: Path, tmp_path: Path, cli: Cli) -> None:
    def message(config: Config, source: str, name: str = "new") -> str:
        (tmp_path / "new.yaml").write_text(dump_config(config))
        storage = tmp_path if name == "new" else place
        return one_line(
            cli("train", "new.yaml", "--no-ray", "--storage", str(storage), "--name", name, "--init-from", source)
        )

    source = f"{place}/source"
    wider = message(new_config(place, 1, "discriminator.width=8"), source)
    assert (
        "its discriminator is another network than the configuration's: layers.0.weight is (4, 1, 4, 4) there" in wider
    )
    assert "(8, 1, 4, 4) here" in wider
    other = message(new_config(place, 1, "generator={network: dcgan, width: 4, upsampling: nearest}"), source)
    assert "its generator is another network" in other
    assert "missing" in other
    assert "or leave --init-from out" in other
    assert "add --partial to take the weights that fit" in other
    assert "no checkpoints there" in message(new_config(place, 1), str(tmp_path / "gone"))
    assert not (tmp_path / "new").exists()
    exists = message(tiny_config("quickstart", f"{place}/data", 5), source, "source")
    assert "already exists, and began from random weights; leave --init-from out" in exists


def test_partial_takes_what_fits_and_says_what_is_left_out(place: Path, tmp_path: Path, cli: Cli) -> None:
    """Smaller kernels: the generator is taken whole, of the discriminator what has the same shape."""
    source, config = f"{place}/source", new_config(place, 2, "discriminator.kernel_size=3")
    job = plan_run(RunSpec(config, "new", str(tmp_path), init_from=source, partial=True)).spec
    recorder = Recorder(stop_at=1)
    train(job, ALONE, recorder)
    (told,) = [event.text for event in recorder.of(Notice) if "left out" in event.text]
    assert told.startswith(f"--init-from {source}/checkpoints/step-000000004 --partial: left out: discriminator: ")
    assert "discriminator: 2 of 8 tensors stay random (layers.0.weight, layers.3.weight)" in told
    assert "generator:" not in told
    given, begun = find_checkpoint(source), find_checkpoint(str(tmp_path / "new"))
    assert begun.manifest.partial
    assert (
        begun.tensors["discriminator"]["layers.0.weight"].shape
        != given.tensors["discriminator"]["layers.0.weight"].shape
    )
    # the same command resumes it, and its record repeats it
    resumed = plan_run(RunSpec(config, "new", str(tmp_path), init_from=source, partial=True))
    assert resumed.resumes is not None
    assert (
        f"--init-from {source}/checkpoints/step-000000004 --partial\n"
        in plan_run(RunSpec(config, "new", str(tmp_path))).spec.as_yaml()
    )

    (tmp_path / "new.yaml").write_text(dump_config(config))
    dry = cli("train", "new.yaml", "--dry-run", "--init-from", source, "--partial", "--name", "dry")
    assert dry.code == 0
    assert "warning: --init-from" in dry.err
    alone = one_line(cli("train", "new.yaml", "--dry-run", "--partial"))
    assert alone == "--partial is about the weights of another run; give --init-from RUN too, or leave it out"


def test_partial_weights_are_those_of_the_checkpoint(place: Path) -> None:
    """A tensor that fits has the given values, another keeps its own. Where nothing fits it is one line."""
    given = find_checkpoint(f"{place}/source")
    config = new_config(place, 1, "discriminator.kernel_size=3")
    networks = build_networks(config, torch.device("cpu"))
    before = {name: value.clone() for name, value in networks.discriminator.state_dict().items()}
    load_initial(given, networks, ExponentialMovingAverage(networks.generator, config.ema), partial=True)
    for name, value in networks.discriminator.state_dict().items():
        source = given.tensors["discriminator"][name]
        assert torch.equal(value, source if source.shape == value.shape else before[name]), name
    for name, value in networks.generator.state_dict().items():
        assert torch.equal(value, given.tensors["generator"][name]), name
    wider = build_networks(new_config(place, 1, "discriminator.width=8"), torch.device("cpu"))
    assert "discriminator: 8 of 8 tensors stay random" in str(check_initial(given, wider, partial=True))
    other = build_networks(
        new_config(place, 1, "image_size=32", "latent_dim=9", "discriminator.width=8"), torch.device("cpu")
    )
    with pytest.raises(UserError, match=r"and no weight of it fits; use the configuration"):
        check_initial(given, other, partial=True)


def test_an_existing_run_that_began_differently(place: Path, tmp_path: Path) -> None:
    config = new_config(place, 2)
    source = f"{place}/source/checkpoints/step-000000002"
    begin(place, tmp_path, config, source, stop_at=1)
    with pytest.raises(UserError, match=r"and began from .*step-000000002; leave --init-from out"):
        plan_run(RunSpec(config, "new", str(tmp_path), init_from=f"{place}/source/checkpoints/step-000000004"))
    assert plan_run(RunSpec(config, "new", str(tmp_path), init_from=f"{place}/source")).spec.init_from == source
    assert plan_run(RunSpec(config, "new", str(tmp_path))).spec.init_from == source


def test_the_plan_names_the_weights(place: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "new.yaml").write_text(dump_config(new_config(place)))
    result = cli("train", "new.yaml", "--dry-run", "--init-from", f"{place}/source/checkpoints/step-000000002")
    assert result.code == 0
    assert "the weights of" in result.err
    assert "checkpoints/step-000000002" in result.err.replace("\n", "")
    assert f"--init-from {place}/source/checkpoints/step-000000002" in result.out
