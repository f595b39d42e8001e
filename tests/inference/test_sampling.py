"""`distgan sample`: images from a run or a checkpoint, wherever it lies."""

from __future__ import annotations

import io
import json
import shutil
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from distgan.cli.main import app
from distgan.config.load import build_config
from distgan.errors import UserError
from distgan.inference.generator import load_generator
from distgan.inference.sample_files import write_samples
from distgan.inference.sampling import SampleOptions, sample_images
from distgan.storage.storage import Storage
from distgan.training.manifest import with_checksum
from distgan.training.networks import build_networks
from distgan.training.starting_point import find_checkpoint
from runs import pack_bricks, run, tiny_config

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]

NAMES = ["step-000000001", "step-000000002"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two steps with a checkpoint of each, the first of them made the best."""
    folder = tmp_path_factory.mktemp("trained")
    # Latents in a number that is no multiple of what torch draws at once, lively images, a slow average.
    changes = [
        "latent_dim=5", "generator.init=glorot", "optimizer.generator.lr=0.05", "ema.half_life_kimg=0.016",
        "ema.ramp_up=null", "checkpoint.every_kimg=0.016",
    ]  # fmt: skip
    run(tiny_config("quickstart", pack_bricks(folder / "data", samples=80), 2, *changes), str(folder))
    manifest = folder / "run" / "checkpoints" / NAMES[1] / "manifest.json"
    tree = json.loads(manifest.read_text())
    tree["progress"]["evaluations"] = [{"step": step, "images": step, "distance": 1.0} for step in (1, 2)]
    manifest.write_text(json.dumps(with_checksum(tree)))
    return folder / "run"


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def test_a_run_gives_its_best_checkpoint_and_a_checkpoint_itself(trained: Path) -> None:
    assert find_checkpoint(str(trained)).manifest.name == NAMES[0]
    for name in NAMES:
        for end in ("", "/"):
            assert find_checkpoint(f"{trained}/checkpoints/{name}{end}").manifest.name == name


def test_a_run_gives_the_checkpoint_that_is_asked_for(trained: Path) -> None:
    for which, name in {"best": NAMES[0], "last": NAMES[1], NAMES[1]: NAMES[1]}.items():
        assert find_checkpoint(str(trained), which).manifest.name == name
    for which in ("step-000000009", "newest", ""):
        with pytest.raises(UserError, match=f"--checkpoint {which}: .*{NAMES[0]}, {NAMES[1]}"):
            find_checkpoint(str(trained), which)
    with pytest.raises(UserError, match="is a checkpoint itself"):
        find_checkpoint(f"{trained}/checkpoints/{NAMES[1]}", "last")


def test_relative_paths_work(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained.parent)
    assert find_checkpoint("run").manifest.name == NAMES[0]
    monkeypatch.chdir(trained / "checkpoints" / NAMES[1])
    assert find_checkpoint(".").manifest.name == NAMES[1]


def test_a_run_that_was_never_measured_gives_its_newest(copied: Path) -> None:
    manifest = copied / "checkpoints" / NAMES[1] / "manifest.json"
    tree = json.loads(manifest.read_text())
    tree["progress"]["evaluations"] = []
    manifest.write_text(json.dumps(with_checksum(tree)))
    assert find_checkpoint(str(copied)).manifest.name == NAMES[1]


def test_a_damaged_best_checkpoint_gives_the_newest_whole_one(copied: Path) -> None:
    state = copied / "checkpoints" / NAMES[0] / "state.pt"
    state.write_bytes(state.read_bytes()[:-1])
    assert find_checkpoint(str(copied)).manifest.name == NAMES[1]
    state = copied / "checkpoints" / NAMES[1] / "state.pt"
    state.write_bytes(state.read_bytes()[:-1])
    with pytest.raises(UserError, match="damaged or unfinished"):
        find_checkpoint(str(copied))
    with pytest.raises(UserError, match="no complete checkpoint"):
        find_checkpoint(f"{copied}/checkpoints/{NAMES[1]}")


def test_another_place_gives_the_same_images(trained: Path) -> None:
    """A run in a store that is not a disk."""
    storage = Storage.open(f"memory://{uuid.uuid4().hex}/runs/first")
    for path in trained.rglob("*"):
        if path.is_file() and "checkpoints" in path.parts:
            storage.write_bytes(path.relative_to(trained).as_posix(), path.read_bytes())
    for place in ("", f"/checkpoints/{NAMES[1]}"):
        here, there = find_checkpoint(f"{trained}{place}"), find_checkpoint(f"{storage.url}{place}")
        assert torch.equal(sample_images(there, 3, 0), sample_images(here, 3, 0))


def test_sample_i_is_the_same_for_every_count(trained: Path) -> None:
    checkpoint = find_checkpoint(str(trained))
    most = sample_images(checkpoint, 130, seed=3)
    assert most.shape == (130, 1, 16, 16)
    assert most.dtype == torch.uint8
    for count in (1, 2, 15, 63, 64, 65, 128, 129):
        assert torch.equal(sample_images(checkpoint, count, seed=3), most[:count]), count
    assert len(torch.unique(most, dim=0)) == 130
    assert not torch.equal(sample_images(checkpoint, 2, seed=4), most[:2])


def test_samples_are_the_averaged_generators(trained: Path) -> None:
    checkpoint = find_checkpoint(f"{trained}/checkpoints/{NAMES[1]}")
    config = build_config(checkpoint.manifest.config, "test")
    images = {}
    for part in ("ema", "generator"):
        generator = build_networks(config, torch.device("cpu")).generator.eval()
        generator.load_state_dict(checkpoint.tensors[part])
        latents = torch.randn(64, config.latent_dim, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            images[part] = generator(latents)[:9]
    found = sample_images(checkpoint, 9, seed=0).float() / 127.5 - 1
    torch.testing.assert_close(found, images["ema"], rtol=0, atol=0.51 / 127.5)
    assert not torch.allclose(found, images["generator"], rtol=0, atol=0.51 / 127.5)


def test_sampling_does_not_disturb_the_callers_random_numbers(trained: Path) -> None:
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    sample_images(find_checkpoint(str(trained)), 2, seed=0)
    assert torch.equal(torch.rand(3), wanted)


def test_a_loaded_generator_gives_the_samples_of_the_command(trained: Path, tmp_path: Path) -> None:
    generator = load_generator(str(trained))
    assert (generator.checkpoint, generator.image_shape, generator.classes) == (
        f"{trained}/checkpoints/{NAMES[0]}",
        (1, 16, 16),
        [],
    )
    write_samples(str(trained), f"{tmp_path}/x.npy", SampleOptions(70, 3))
    found = generator.sample(70, seed=3)
    assert np.array_equal(found.images, np.load(tmp_path / "x.npy"))
    assert np.array_equal(np.asarray(generator.sample(3, seed=3)), found.images[:3])
    difference = generator.sample(70, seed=3, batch_size=7).images.astype(int) - found.images
    assert np.abs(difference).max() <= 1
    write_samples(str(trained), f"{tmp_path}/x.png", SampleOptions(70, 3))
    with Image.open(tmp_path / "x.png") as shown, Image.open(io.BytesIO(found._repr_png_())) as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(shown))
    last = load_generator(str(trained), "last")
    assert last.checkpoint.endswith(NAMES[1])
    assert not np.array_equal(last.sample(2).images, generator.sample(2).images)


def test_a_loaded_generator_refuses_what_the_command_refuses(trained: Path) -> None:
    generator = load_generator(str(trained))
    for arguments, message in (
        ({"n": 0}, "the others 1 or more"),
        ({"n": 1, "seed": -1}, "the seed must be 0 or more"),
        ({"n": 1, "labels": 0}, "takes no labels"),
        ({"n": 2, "labels": [0]}, "1 labels for n=2 images"),
    ):
        with pytest.raises(UserError, match=message):
            generator.sample(**arguments)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no complete checkpoint of that name"):
        load_generator(str(trained), "step-9")


def test_command_writes_a_grid(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "new folder" / "grid.png"
    result = CliRunner().invoke(app, ["sample", str(trained), "--count", "4", "--seed", "3", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert NAMES[0] in result.output
    wanted = sample_images(find_checkpoint(str(trained)), 4, seed=3)
    with Image.open(out) as image:
        pixels = np.asarray(image)
    # Two rows of two, each pixel of the first image enlarged, after the white edge.
    scale = (pixels.shape[0] - 3 * 2) // 2 // 16
    assert np.array_equal(pixels[2 : 2 + 16 * scale : scale, 2 : 2 + 16 * scale : scale], wanted[0, 0].numpy())


def test_every_kind_of_file_holds_the_same_images(trained: Path, tmp_path: Path) -> None:
    wanted = sample_images(find_checkpoint(str(trained), "last"), 130, seed=3).permute(0, 2, 3, 1).numpy()
    told: list[tuple[int, int]] = []
    for out in ("new/samples.npy", "new/samples.npz", "new/v1.5/", "new/images"):
        name, number = write_samples(
            str(trained),
            f"{tmp_path}/{out}",
            SampleOptions(130, 3),
            which="last",
            on_progress=lambda *counts: told.append(counts),
        )
        assert (name, number) == (NAMES[1], 130)
    assert told == [(64, 130), (128, 130), (130, 130)] * 4
    array = np.load(tmp_path / "new" / "samples.npy", allow_pickle=False)
    assert array.dtype == np.uint8
    assert np.array_equal(array, wanted)
    with np.load(tmp_path / "new" / "samples.npz", allow_pickle=False) as archive:
        assert archive.files == ["arr_0"]
        assert np.array_equal(archive["arr_0"], wanted)
    for folder in ("v1.5", "images"):
        files = sorted((tmp_path / "new" / folder).iterdir())
        assert [file.name for file in files] == [f"{number:06}.png" for number in range(130)]
        images = [np.asarray(Image.open(file)) for file in files]
        assert np.array_equal(np.stack(images)[..., None], wanted)
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["images", "samples.npy", "samples.npz", "v1.5"]


@pytest.mark.parametrize("out", ["samples.npy", "samples.npz", "images/", "round.gif", "round.webp"])
def test_what_cannot_be_finished_is_not_there(out: str, trained: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > 64:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_samples(str(trained), f"{tmp_path}/{out}", SampleOptions(130), on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled_and_a_full_one_is_not(trained: Path, tmp_path: Path) -> None:
    write_samples(str(trained), str(tmp_path), SampleOptions(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000.png", "000001.png"]
    with pytest.raises(UserError, match="not empty"):
        write_samples(str(trained), str(tmp_path), SampleOptions(1))


@pytest.mark.parametrize("wrong", [["--count", "0"], ["--seed", "-1"], ["--count", "many"]])
def test_command_refuses_values_out_of_range(wrong: list[str], trained: Path) -> None:
    assert CliRunner().invoke(app, ["sample", str(trained), *wrong]).exit_code == 2


def test_mistakes_are_told(trained: Path, tmp_path: Path) -> None:
    for nothing in (tmp_path, tmp_path / "absent", trained.parent):
        with pytest.raises(UserError, match="no checkpoints there"):
            find_checkpoint(str(nothing))
    with pytest.raises(UserError, match="no complete checkpoint"):
        find_checkpoint(f"{trained}/checkpoints/step-000000009")
    for out, message in (
        ("grid.jpg", "ends in .png"),
        (str(trained / "checkpoints" / NAMES[0] / "state.pt" / "x.png"), "--out"),
    ):
        result = CliRunner().invoke(app, ["sample", str(trained), "--count", "1", "--out", out])
        assert isinstance(result.exception, UserError)
        assert message in str(result.exception)
