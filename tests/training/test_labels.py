"""Labels from the data set to evaluations, grids and samples of a conditional generator."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from command_line import Cli, one_line
from conditional import NETWORKS as CONDITIONAL
from distgan.config.load import build_config
from distgan.config.schema import Config
from distgan.data.blocks import BlockReader
from distgan.data.dataset import Dataset
from distgan.data.index import Index
from distgan.data.sources.npz import NpzSource
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.evaluation.evaluator import build_evaluator
from distgan.inference.generator import load_generator
from distgan.inference.sampling import draw_samples
from distgan.storage.storage import Storage
from distgan.training.fakes import GeneratedImages, sample_grid, sample_labels, training_grid
from distgan.training.networks import build_networks
from distgan.training.starting_point import find_checkpoint
from gloo import run_workers
from runs import Recorder, assert_same_bits, newest, run, tiny_config
from toy_data import pack_numbered

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("one_thread")]

CLASSES = ["kind 0", "kind 1", "kind 2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """300 images of three kinds."""
    folder = tmp_path_factory.mktemp("labeled")
    pack_numbered(folder, 300)
    return str(folder)


def conditional_config(data: str, steps: int = 3, *overrides: str) -> Config:
    return tiny_config("wgan-gp-faces", data, steps, *CONDITIONAL, "num_classes=3", *overrides)


@pytest.fixture(scope="module")
def trained(data: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorder]:
    """A conditional run's folder, and its events."""
    folder = tmp_path_factory.mktemp("runs")
    _, recorder = run(conditional_config(data), str(folder), "conditional")
    return folder / "conditional", recorder


# Evaluation.


def test_drawn_labels_are_as_frequent_as_the_real_ones() -> None:
    real = np.repeat([0, 1, 2], [10, 60, 30])
    drawn = sample_labels(real, 20_000, seed=1)
    assert drawn.dtype == torch.int64
    np.testing.assert_allclose(drawn.bincount() / 20_000, [0.1, 0.6, 0.3], atol=0.02)
    assert torch.equal(sample_labels(real, 20_000, seed=1), drawn)
    assert not torch.equal(sample_labels(real, 20_000, seed=2), drawn)


class RecordsLabels(nn.Module):
    """A generator that keeps the labels that it is given."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator
        self.labels: list[Tensor] = []

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        self.labels.append(labels)
        images: Tensor = self.generator(latents, labels)
        return images


def evaluate(distributed: Distributed, data: str) -> tuple[float, list[Tensor]]:
    config = conditional_config(data, 1, "evaluation.samples=200", "training.precision=float64")
    storage = Storage.open(data)
    index = Index.load(storage)
    # One kind more frequent than the others, and one that is not there.
    index = dataclasses.replace(index, labels=np.where(index.labels == 1, 0, index.labels))
    dataset = Dataset(index, BlockReader(storage, index), config.image_shape, config.data)
    evaluator = build_evaluator(config.evaluation, config.data, distributed, dataset)
    recording = RecordsLabels(build_networks(config, distributed.device).generator.eval())
    return evaluator.evaluate(
        GeneratedImages(config, index.labels, distributed.device, recording)
    ).distance, recording.labels


@pytest.mark.slow
def test_labels_of_an_evaluation_do_not_depend_on_the_workers(data: str) -> None:
    found = {size: run_workers(evaluate, size, data) for size in (1, 2, 3)}
    ((distance, labels),) = found[1]
    assert [len(chunk) for chunk in labels] == [64, 64, 64, 8]
    counts = torch.cat(labels).bincount(minlength=3)
    assert counts[1] == 0
    assert 100 < counts[0] < 165
    for size, ranks in found.items():
        for rank, (other, chunks) in enumerate(ranks):
            assert other == pytest.approx(distance, rel=1e-6)
            assert all(torch.equal(a, b) for a, b in zip(chunks, labels[rank::size], strict=True))


# Grids.


@pytest.mark.parametrize(
    ("classes", "columns"),
    [(2, [0, 1] * 4), (3, [0, 1, 2] * 2), (5, [0, 1, 2, 3, 4]), (10, list(range(10))), (16, list(range(16)))],
)
def test_each_column_of_a_runs_grid_is_one_label(classes: int, columns: list[int]) -> None:
    grid = training_grid(classes)
    assert grid.labels is not None
    assert grid.columns == len(columns)
    assert grid.labels.reshape(-1, len(columns)).tolist() == [columns] * 8
    # Every latent meets every label once, all of them beside each other.
    assert grid.latents.reshape(-1, classes).tolist() == [
        [number] * classes for number in range(len(columns) * 8 // classes)
    ]


def test_a_grid_of_many_classes_shows_sixteen_of_them() -> None:
    labels = training_grid(1000).labels
    assert labels is not None
    assert len(labels) == 128
    assert (int(labels[0]), int(labels[15])) == (0, 999)
    assert len(labels[:16].unique()) == 16


def test_a_run_keeps_grids_of_its_labels(trained: tuple[Path, Recorder]) -> None:
    _, recorder = trained
    (grid,) = recorder.grids
    assert recorder.columns == [6]
    assert len(torch.unique(grid, dim=0)) == 48


# Runs.


def stop_and_go(distributed: Distributed, config: Config, storage: str) -> None:
    run(config, storage, "whole", distributed=distributed)
    for step in (1, 2, 3):
        run(config, storage, "stopped", distributed=distributed, stop_at=step)


@pytest.mark.parametrize("size", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_conditional_run_resumes_to_the_bit(size: int, data: str, tmp_path: Path) -> None:
    run_workers(stop_and_go, size, conditional_config(data), str(tmp_path))
    assert_same_bits(newest(str(tmp_path), "stopped"), newest(str(tmp_path), "whole"))


def test_the_labels_of_the_data_matter(data: str, tmp_path: Path) -> None:
    """The same images with other labels give other weights."""
    config = conditional_config(data, 1)
    run(config, str(tmp_path), "one")
    pack_numbered(tmp_path / "other", 300)
    storage = Storage.open(str(tmp_path / "other"))
    index = Index.load(storage)
    labels = (index.labels + 1) % 3
    table = dataclasses.replace(index, labels=labels)
    header = index.header.model_copy(update={"table_sha256": hashlib.sha256(table.table_bytes()).hexdigest()})
    dataclasses.replace(table, header=header).save(storage)
    run(conditional_config(storage.url, 1), str(tmp_path), "two")
    one, two = newest(str(tmp_path), "one")[0], newest(str(tmp_path), "two")[0]
    assert not torch.equal(one["/discriminator/layers.0.weight"], two["/discriminator/layers.0.weight"])


# Samples.


def literal_images(run: Path, latents: int, seed: int, labels: list[int]) -> Tensor:
    """Of each latent a row of images, one a label; (latents * labels, C, H, W) in [-1, 1]."""
    checkpoint = find_checkpoint(str(run))
    config = build_config(checkpoint.manifest.config, "test", trust_code=True)
    generator = build_networks(config, torch.device("cpu")).generator.eval()
    generator.load_state_dict(checkpoint.tensors["ema"])
    drawn = torch.randn(64, config.latent_dim, generator=torch.Generator().manual_seed(seed))[:latents]
    with torch.no_grad():
        images: Tensor = generator(drawn.repeat_interleave(len(labels), 0), torch.tensor(labels).repeat(latents))
    return images


def samples(run: Path, *arguments: Any) -> tuple[Tensor, int | None]:
    drawn = draw_samples(find_checkpoint(str(run)), *arguments, trust_code=True)
    return torch.cat(list(drawn.batches)), drawn.columns


def assert_images(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found.float() / 127.5 - 1, wanted, rtol=0, atol=0.51 / 127.5)


def test_all_labels_of_the_same_latents(trained: tuple[Path, Recorder]) -> None:
    folder, _ = trained
    images, columns = samples(folder, 14, 5, "all")
    assert columns == 3
    assert_images(images, literal_images(folder, 4, 5, [0, 1, 2]))
    few, _ = samples(folder, 1, 5, "all")
    assert torch.equal(few, images[:3])
    many, columns = samples(folder, 30, 5, "all")
    assert columns == 6  # two latents a row, as the picture would be tall
    assert torch.equal(many[:12], images)


def test_names_stand_over_all_columns_of_a_picture(trained: tuple[Path, Recorder], tmp_path: Path, cli: Cli) -> None:
    folder, _ = trained
    done = cli(
        "sample", str(folder), "--label", "all", "--count", "30", "--out", str(tmp_path / "x.png"), "--trust-code"
    )
    assert done.code == 0, done
    with Image.open(tmp_path / "x.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    height, width = pixels.shape
    side = (width - 2) // 6
    top = height - 5 * side - 2  # above five rows of six
    assert top > 0
    for column in range(6):
        assert pixels[:top, column * side : (column + 1) * side].min() < 128


def test_a_label_by_name_and_by_number(trained: tuple[Path, Recorder]) -> None:
    folder, _ = trained
    everything, _ = samples(folder, 9, 5, "all")
    for label, name in enumerate(CLASSES):
        images, columns = samples(folder, 3, 5, name)
        assert columns is None
        assert torch.equal(images, everything[label::3])
        assert torch.equal(samples(folder, 3, 5, str(label))[0], images)
    mixed, _ = samples(folder, 3, 5)
    assert torch.equal(mixed, everything.reshape(3, 3, *everything.shape[1:])[torch.arange(3), torch.arange(3)])


def test_a_loaded_generator_takes_labels(trained: tuple[Path, Recorder]) -> None:
    folder, _ = trained
    with pytest.raises(UserError, match="add --trust-code"):
        load_generator(str(folder))
    generator = load_generator(str(folder), trust_code=True)
    assert generator.classes == CLASSES
    for labels, arguments in (
        ("all", (9, 5, "all")),
        (CLASSES[1], (3, 5, CLASSES[1])),
        (2, (3, 5, "2")),
        (None, (3, 5)),
    ):
        found = generator.sample(arguments[0], labels, seed=5)
        images, columns = samples(folder, *arguments)
        assert np.array_equal(found.images, images.permute(0, 2, 3, 1).numpy())
        assert found.columns == columns
    mixed = generator.sample(3, [0, CLASSES[1], 2], seed=5)
    assert mixed.labels is not None
    assert mixed.labels.tolist() == [0, 1, 2]
    assert np.array_equal(mixed.images, generator.sample(3, seed=5).images)
    with pytest.raises(UserError, match="no such label"):
        generator.sample(1, [7])


def test_a_name_goes_before_a_number() -> None:
    grid = sample_grid(2, 3, "1", ["1", "0", "7"], "run")
    assert grid.labels is not None
    assert grid.labels.tolist() == [0, 0]


def test_the_command_draws_a_column_a_label(trained: tuple[Path, Recorder], cli: Cli, tmp_path: Path) -> None:
    folder, _ = trained
    result = cli("sample", str(folder), "--count", "8", "--label", "all", "--trust-code", "--out", "grid.png")
    assert result.code == 0, result.err
    assert "grid.png: 6 samples of step-000000003, seed 0, label all" in result.out
    with Image.open(tmp_path / "grid.png") as image:
        width, height = image.size
    side = (width - 2) // 3
    assert 2 * side + 2 < height < 3 * side + 2  # two rows, and the names of the classes over them
    manifest = json.loads((folder / "checkpoints" / "step-000000003" / "manifest.json").read_text())
    assert manifest["classes"] == CLASSES


def test_an_archive_holds_images_and_labels(trained: tuple[Path, Recorder], cli: Cli, tmp_path: Path) -> None:
    folder, _ = trained
    for label, wanted in (["all", [0, 1, 2, 0, 1, 2]], [CLASSES[1], [1] * 8], [None, [0, 1, 2, 0, 1, 2, 0, 1]]):
        chosen = [] if label is None else ["--label", str(label)]
        result = cli("sample", str(folder), "--count", "8", *chosen, "--trust-code", "--out", "samples.npz")
        assert result.code == 0, result.err
        source = NpzSource(str(tmp_path / "samples.npz"))
        assert [source[number][1] for number in range(len(source))] == wanted
        images, _ = samples(folder, 8, 0, label)
        found = np.stack([source[number][0] for number in range(len(source))])
        assert np.array_equal(found, images.permute(0, 2, 3, 1).numpy())


def test_a_wrong_label_is_one_line(trained: tuple[Path, Recorder], cli: Cli) -> None:
    folder, _ = trained
    for label, message in (
        ("kind 3", "did you mean 'kind"),
        ("3", "give a number from 0 to 2, `all`, or a name"),
        ("-1", "no such label"),
        ("²", "no such label"),
        ("", "no such label"),
    ):
        assert message in one_line(cli("sample", str(folder), "--label", label, "--trust-code"))
