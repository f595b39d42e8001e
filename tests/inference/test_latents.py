"""Given latents, truncation, and images between latents: strips, animations, shards."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from command_line import Cli, one_line
from conditional import NETWORKS
from distgan.config.load import load_config
from distgan.data.index import Index
from distgan.data.verify import verify
from distgan.errors import UserError
from distgan.inference import sample_files
from distgan.inference.generator import TrainedGenerator, load_generator
from distgan.inference.latents import DrawnLatents, between, loop, read_latents, strips
from distgan.inference.sample_files import write_samples
from distgan.inference.sampling import SampleOptions
from distgan.storage.storage import Storage
from distgan.training.fakes import sample_grid
from runs import TINY, pack_bricks, run, tiny_config
from toy_data import pack_numbered

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]

DIMENSION = 8


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a run of one step, whose images are lively."""
    folder = tmp_path_factory.mktemp("trained")
    changes = ["generator.init=glorot", "optimizer.generator.lr=0.05"]
    run(tiny_config("quickstart", pack_bricks(folder / "data", samples=80), 1, *changes), str(folder))
    return str(folder / "run")


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a run of one step with three classes, of networks outside distgan."""
    folder = tmp_path_factory.mktemp("conditional")
    pack_numbered(folder / "data", 100)
    overrides = ["num_classes=3", f"data.url={folder / 'data'}", "training.kimg=0.016", *NETWORKS]
    tiny = [key for key in TINY if "width" not in key]
    run(load_config("quickstart", [*tiny, "evaluation.real_samples=null", *overrides]), str(folder))
    return str(folder / "run")


@pytest.fixture(scope="module")
def generator(trained: str) -> TrainedGenerator:
    return load_generator(trained)


def drawn(count: int, seed: int = 0) -> torch.Tensor:
    return DrawnLatents(DIMENSION, seed).take(torch.arange(count))


def test_ways_between_latents() -> None:
    begin, end = torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    shares, half = torch.tensor([0.0, 0.5, 1.0]), 0.5**0.5
    for method, middle in (("spherical", half), ("linear", 0.5)):
        wanted = torch.tensor([[[1.0, 0.0], [middle, middle], [0.0, 1.0]], [[2.0, 0.0]] * 3])
        assert torch.allclose(between(begin, end, shares, method), wanted, atol=1e-6)  # type: ignore[arg-type]


def test_opposite_latents_have_a_way() -> None:
    one = torch.ones(1, 4)
    for end in (-one, torch.zeros(1, 4)):
        assert between(one, end, torch.linspace(0, 1, 5), "spherical").isfinite().all()


def test_a_strip_has_both_ends_and_a_loop_comes_back() -> None:
    grid = sample_grid(6, 3, "all", [], "x")  # two latents, three labels
    arranged, latents = strips(grid, DrawnLatents(DIMENSION, 0), 5, "linear")
    assert arranged.columns == 5
    assert arranged.labels is not None
    rows = latents.take(arranged.latents).unflatten(0, (6, 5))
    assert torch.allclose(rows[:, 0], drawn(2)[[0, 0, 0, 1, 1, 1]])
    assert torch.allclose(rows[:, -1], drawn(4)[[2, 2, 2, 3, 3, 3]])
    assert torch.allclose(rows[:, 2], (rows[:, 0] + rows[:, -1]) / 2, atol=1e-6)
    assert arranged.labels.tolist() == [label for label in (0, 1, 2) * 2 for _ in range(5)]
    arranged, latents = loop(grid, DrawnLatents(DIMENSION, 0), 5, "linear", 4)
    assert arranged.labels is not None
    frames = latents.take(arranged.latents).unflatten(0, (20, 6))
    assert torch.allclose(frames[0], drawn(2)[[0, 0, 0, 1, 1, 1]])
    assert torch.allclose(frames[15], drawn(8)[[6, 6, 6, 7, 7, 7]])
    assert torch.allclose(frames[19], 0.2 * frames[15] + 0.8 * frames[0], atol=1e-6)
    assert arranged.labels.tolist() == [0, 1, 2] * 2 * 20


def test_given_latents_are_those_of_the_samples(generator: TrainedGenerator) -> None:
    wanted = generator.sample(70, seed=3)
    for latents in (drawn(70, 3), drawn(70, 3).numpy(), drawn(70, 3).double().numpy()):
        assert np.array_equal(generator.sample(latents=latents).images, wanted.images)
    assert np.array_equal(generator.sample(5, latents=drawn(70, 3)).images, wanted.images[:5])
    halved = generator.sample(latents=drawn(70, 3) / 2).images
    assert np.array_equal(generator.sample(70, seed=3, truncation=0.5).images, halved)
    assert not np.array_equal(halved, wanted.images)
    flat = generator.sample(9, truncation=0).images
    assert (flat == flat[0]).all()


def test_interpolation_in_python(generator: TrainedGenerator) -> None:
    found = generator.interpolate(3, 4, seed=1)
    assert (found.images.shape, found.columns) == ((12, 16, 16, 1), 4)
    ends = generator.sample(6, seed=1).images.astype(int)
    rows = found.images.reshape(3, 4, 16, 16, 1)
    assert np.abs(rows[:, 0] - ends[:3]).max() <= 1
    assert np.abs(rows[:, -1] - ends[3:]).max() <= 1
    assert not np.array_equal(generator.interpolate(3, 4, "linear", seed=1).images, found.images)
    assert len(generator.interpolate(latents=drawn(10), steps=2)) == 10
    assert len(generator.interpolate()) == 80


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncation": 1.5}, "--truncation 1.5: give a number from 0 to 1"),
        ({"truncation": float("nan")}, "--truncation nan: give a number from 0 to 1"),
        ({"latents": np.zeros((3, 9))}, r"latents: holds float64 \(3, 9\); latents are float \(N, 8\)"),
        ({"latents": np.zeros((3, DIMENSION), int)}, r"latents: holds int64 \(3, 8\)"),
        ({"latents": np.zeros((0, DIMENSION))}, r"latents: holds float64 \(0, 8\)"),
        ({"latents": np.full((3, DIMENSION), np.inf)}, "not finite"),
        ({"latents": np.zeros((3, DIMENSION)), "n": 4}, "--latents: holds 3, and 4 samples need as many"),
    ],
)
def test_wrong_values_in_python(options: dict[str, object], message: str, generator: TrainedGenerator) -> None:
    with pytest.raises(UserError, match=message):
        generator.sample(**options)  # type: ignore[arg-type]


def test_wrong_interpolations(generator: TrainedGenerator) -> None:
    for options, message in (
        ({"method": "cubic"}, "method='cubic': allowed: linear, spherical"),
        ({"steps": 1}, "--steps 1: give a number from 2 to 1000"),
        ({"n": 100, "steps": 1000}, "ask for 100,000 images, and an interpolation has at most 65,536"),
        ({"latents": drawn(3), "n": 2}, "--latents: holds 3, and 2 rows need a multiple"),
        ({"latents": drawn(1)}, "--latents: holds 1, and 1 rows need .* at least twice as many"),
    ):
        with pytest.raises(UserError, match=message):
            generator.interpolate(**options)  # type: ignore[arg-type]


def test_strips_as_files(generator: TrainedGenerator, trained: str, cli: Cli) -> None:
    done = cli("sample", trained, "--interpolate", "spherical", "--count", "3", "--steps", "4", "--out", "strips.png")
    assert (done.code, done.out) == (0, "strips.png: 12 samples of step-000000001, seed 0\n")
    with Image.open("strips.png") as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(generator.interpolate(3, 4).grid()))


@pytest.mark.parametrize("name", ["round.gif", "round.webp"])
def test_an_animation_begins_with_the_grid_and_goes_on(
    name: str, generator: TrainedGenerator, trained: str, cli: Cli
) -> None:
    assert cli("sample", trained, "--count", "4", "--steps", "3", "--seed", "2", "--out", name).code == 0
    with Image.open(name) as animation:
        assert (animation.n_frames, animation.info["loop"]) == (12, 0)
        frames = []
        for number in range(12):
            animation.seek(number)
            frames.append(np.asarray(animation.convert("L")).astype(int))
        assert animation.info["duration"] == 80 or name.endswith("webp")
    stops = [generator.sample(16, seed=2).images[first : first + 4] for first in range(0, 16, 4)]
    for number, images in zip((0, 3, 6, 9), stops, strict=True):
        grid = np.asarray(type(generator.sample(1))(images).grid()).astype(int)
        assert np.abs(frames[number] - grid).mean() < (2 if name.endswith("gif") else 6)


def test_given_latents_of_an_animation(trained: str, cli: Cli) -> None:
    np.save("six.npy", drawn(6).numpy())
    for count, frames in ((None, 12), ("2", 6), ("3", 4)):
        options = () if count is None else ("--count", count)
        assert cli("sample", trained, "--latents", "six.npy", "--steps", "2", *options, "--out", "x.gif").code == 0
        with Image.open("x.gif") as animation:
            assert animation.n_frames == frames
    message = one_line(cli("sample", trained, "--latents", "six.npy", "--count", "4", "--out", "x.gif"))
    assert message.startswith("--latents: holds 6, and 4 images of a frame need a multiple of that")


def test_labels_of_interpolations(conditional: str) -> None:
    generator = load_generator(conditional, trust_code=True)
    assert generator.interpolate(4, 2).labels.tolist() == [0, 0, 1, 1, 2, 2, 0, 0]  # type: ignore[union-attr]
    assert generator.interpolate(2, 2, labels=2).labels.tolist() == [2] * 4  # type: ignore[union-attr]
    every = generator.interpolate(3, 2, labels="all")
    assert every.labels.tolist() == [0, 0, 1, 1, 2, 2]  # type: ignore[union-attr]
    assert generator.sample(labels=[2, 0]).labels.tolist() == [2, 0]  # type: ignore[union-attr]
    latents = np.zeros((2, 8), np.float32)
    assert generator.sample(labels="all", latents=latents).labels.tolist() == [0, 1, 2] * 2  # type: ignore[union-attr]


def test_the_grid_of_all_labels_has_their_names(conditional: str, tmp_path: Path) -> None:
    heights = []
    for label in ("all", None):  # without a label, the same number of images in rows of three
        write_samples(conditional, str(tmp_path / "x.png"), SampleOptions(9, label=label), trust_code=True)
        with Image.open(tmp_path / "x.png") as grid:
            heights.append(grid.height)
    assert heights[0] > heights[1] + 8


def test_shards_are_data_with_labels(conditional: str, cli: Cli) -> None:
    done = cli("sample", conditional, "--count", "7", "--webdataset", "--out", "drawn", "--trust-code")
    assert done.code == 0, done.err
    storage = Storage.open("drawn")
    index = Index.load(storage)
    assert verify(storage) == []
    assert (index.labels.tolist(), index.header.image_size) == ([0, 1, 2, 0, 1, 2, 0], 16)
    assert len(index.header.classes) == 3
    assert cli("data", "info", "drawn").code == 0
    with Image.open(io.BytesIO(storage.read_range("shard-00000.tar", int(index.offsets[4]), 10**6))) as image:
        assert np.array_equal(
            np.asarray(image), load_generator(conditional, trust_code=True).sample(5).images[4, ..., 0]
        )
    assert "holds a data set already" in one_line(
        cli("sample", conditional, "--count", "7", "--webdataset", "--out", "drawn", "--trust-code")
    )


def test_shards_without_labels_go_to_a_url(trained: str) -> None:
    url = "memory://drawn-shards/first"
    told: list[tuple[int, int]] = []
    write_samples(trained, url, SampleOptions(70), webdataset=True, on_progress=lambda *counts: told.append(counts))
    index = Index.load(Storage.open(url))
    assert (len(index), set(index.labels.tolist()), index.header.classes) == (70, {-1}, [])
    assert told == [(64, 70), (70, 70)]


def test_files_of_latents(trained: str, cli: Cli) -> None:
    rows = drawn(3).numpy()
    np.save("rows.npy", rows)
    np.savez("one.npz", anything=rows)
    np.savez_compressed("two.npz", latents=rows, labels=np.zeros(3))
    for name in ("rows.npy", "one.npz", "two.npz"):
        assert torch.equal(read_latents(name, DIMENSION).take(torch.arange(3)), drawn(3))
    assert cli("sample", trained, "--latents", "rows.npy", "--out", "x.npy").code == 0
    assert len(np.load("x.npy")) == 3


def test_wrong_files_of_latents(cli: Cli) -> None:
    np.save("objects.npy", np.array([{}], object), allow_pickle=True)
    np.savez("other.npz", a=np.zeros(3), b=np.zeros(3))
    Path("pickle.npy").write_bytes(pickle.dumps([1.0]))
    Path("cut.npy").write_bytes(Path("objects.npy").read_bytes()[:20])
    np.save("rows.npy", drawn(3).numpy())
    Path("short.npy").write_bytes(Path("rows.npy").read_bytes()[:-1])
    Path("huge.npy").write_bytes(Path("rows.npy").read_bytes().replace(b"(3, 8)", b"(99999999999, 8)")[:-9])
    with zipfile.ZipFile("text.npz", "w") as archive:
        archive.writestr("latents.npy", "text")
    Path("text.npy").write_text("text")
    for name in ("objects.npy", "other.npz", "pickle.npy", "cut.npy", "short.npy", "huge.npy", "text.npy"):
        with pytest.raises(UserError, match=rf"^--latents {name}: not a whole .np[yz] file of numbers"):
            read_latents(name, DIMENSION)
    with pytest.raises(UserError, match="it has no array `latents`"):
        read_latents("other.npz", DIMENSION)
    with pytest.raises(UserError, match=r"^--latents text\.npz: holds .*; latents are float"):
        read_latents("text.npz", DIMENSION)
    with pytest.raises(UserError, match=r"^--latents nothing\.npy: not found"):
        read_latents("nothing.npy", DIMENSION)
    with pytest.raises(UserError, match=r"^--latents rows\.txt: give an \.npy or \.npz file"):
        read_latents("rows.txt", DIMENSION)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--webdataset", "--out", "x.png"), "--webdataset writes several files; give the name of a folder, or a URL"),
        (("--out", "s3://bucket/x.png"), "give a name there, or --webdataset"),
        (("--out", "x.gif"), "--out x.gif: 640 images of 16 pixels a side are too many for an animation; give a sm"),
        (
            (
                "--count",
                "65537",
            ),
            "--count 65537: a grid has at most 65536 images; for more give",
        ),
    ],
)
def test_wrong_options(
    arguments: tuple[str, ...], message: str, trained: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_files, "_MOST_ANIMATED_BYTES", 2**20)
    assert message in one_line(cli("sample", trained, *arguments))
    assert list(Path().iterdir()) == []
