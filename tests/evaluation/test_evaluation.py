"""Distances do not depend on the number of workers; the real side is computed once a data set."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distgan.config.schema import Config
from distgan.data import dataset as dataset_module
from distgan.data.blocks import BlockReader
from distgan.data.bricks.render import BrickSource
from distgan.data.dataset import Dataset
from distgan.data.index import Index
from distgan.data.pack import PackOptions, pack
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.evaluation.evaluator import Evaluator, Scores, build_evaluator, configured_extractor
from distgan.evaluation.extractors import published
from distgan.evaluation.feature_statistics import FeatureSums
from distgan.evaluation.metrics.frechet import frechet_distance
from distgan.evaluation.metrics.registry import metric_name
from distgan.evaluation.reference import DatasetReference, real_images
from distgan.evaluation.reference_files import RealStatistics
from distgan.inference.data_statistics import compute_statistics, plan_statistics, statistics_lines
from distgan.storage.storage import Storage
from distgan.training.networks import build_networks
from gloo import run_workers
from runs import ALONE, generated, pack_bricks, tiny_config

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("one_thread")]


def config_of(data: str, *overrides: str) -> Config:
    # Neither count is a multiple of a chunk; the second chunk is the last and short.
    counts = ["evaluation.samples=100", "evaluation.real_samples=150"]
    return tiny_config("quickstart", data, 1, *counts, *overrides)


def make_evaluator(config: Config, distributed: Distributed = ALONE) -> Evaluator:
    storage = Storage.open(str(config.data.url))
    index = Index.load(storage)
    dataset = Dataset(index, BlockReader(storage, index), config.image_shape, config.data)
    return build_evaluator(config.evaluation, config.data, distributed, dataset)


def measure(distributed: Distributed, data: str) -> tuple[float, RealStatistics]:
    config = config_of(data, "training.precision=float64")
    evaluator = make_evaluator(config, distributed)
    generator = build_networks(config, distributed.device).generator.eval()
    return evaluator.evaluate(generated(config, generator)).distance, evaluator.real


def test_a_distance_is_the_same_for_every_number_of_workers(data: str, tmp_path: Path) -> None:
    found: dict[int, list[tuple[float, RealStatistics]]] = {}
    for size in (1, 2, 3):
        copy = shutil.copytree(data, tmp_path / str(size), ignore=shutil.ignore_patterns("statistics"))
        found[size] = run_workers(measure, size, str(copy))
    distance, real = found[1][0]
    assert real.statistics.count == 150
    assert 0 < real.floor < distance
    for ranks in found.values():
        for other, other_real in ranks:
            assert other == ranks[0][0]
            assert other == pytest.approx(distance, rel=1e-6)
            assert other_real.floor == pytest.approx(real.floor, rel=1e-6)
            assert other_real.statistics.count == 150
            torch.testing.assert_close(other_real.statistics.mean, real.statistics.mean, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(
                other_real.statistics.covariance, real.statistics.covariance, rtol=1e-9, atol=1e-9
            )


def test_real_statistics_are_computed_once(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("statistics")))
    read: list[int] = []
    real_read = BlockReader.read

    def counted(self: BlockReader, blocks: Any) -> list[bytes]:
        read.extend(block.number for block in blocks)
        return real_read(self, blocks)

    monkeypatch.setattr(BlockReader, "read", counted)
    first = make_evaluator(config_of(url)).real
    assert read
    read.clear()
    again = make_evaluator(config_of(url, "seed=5")).real
    assert not read
    assert (again.floor, again.floor_images) == (first.floor, first.floor_images)
    assert torch.equal(again.statistics.covariance, first.statistics.covariance)

    other = make_evaluator(config_of(url, "evaluation.real_samples=20")).real
    assert read
    assert other.statistics.count == 20
    assert len(list((tmp_path / "data" / "statistics").glob("*.npz"))) == 2


def test_statistics_of_other_features_of_the_same_name_are_not_taken(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was kept before `fid_clean` clamped is computed anew; what is kept of other extractors stays."""
    assert {name: published.feature_revision(name) for name in published.KNOWN} == {
        "fd_lite0": 1,
        "fid": 1,
        "fid_clean": 2,
        "fd_dinov2": 1,
        "fd_dinov2_b14": 1,
        "fd_dinov2_s14": 1,
    }
    url = str(shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("statistics")))
    folder = tmp_path / "data" / "statistics"
    make_evaluator(config_of(url, "evaluation.metrics=[kernel]"))
    kept = set(folder.iterdir())
    old = next(path for path in kept if path.suffix == ".npz")
    first = RealStatistics.from_bytes(old.read_bytes(), str(old))
    assert b"revision" not in old.read_bytes()

    lite0 = published.KNOWN["fd_lite0"]
    monkeypatch.setattr(published, "KNOWN", {**published.KNOWN, "fd_lite0": replace(lite0, revision=2)})
    again = make_evaluator(config_of(url, "evaluation.metrics=[kernel]")).real
    assert len(set(folder.iterdir()) - kept) == 2  # statistics and features
    assert (first.revision, again.revision) == (1, 2)
    assert RealStatistics.from_bytes(again.to_bytes(), "new").revision == 2
    with pytest.raises(UserError, match=r"statistics of fd_lite0 as another version .*\(revision 1, here 2\); compute"):
        make_evaluator(config_of(url, f"evaluation.statistics={old}"))


def test_the_floor_is_what_as_many_real_images_measure(data: str, tmp_path: Path) -> None:
    """Of as many as are generated, and half of all where they are few; kept for each number."""
    url = str(shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("statistics")))
    floors = {}
    for samples, images in ((75, 75), (40, 40), (20, 20), (400, 75)):
        config = config_of(url, f"evaluation.samples={samples}")
        evaluator = make_evaluator(config)
        assert evaluator.real.floor_images == images
        dataset = Dataset.open(config.data, config.image_shape)
        extractor = configured_extractor(config.evaluation, ALONE)
        sums = FeatureSums.zeros(extractor.dimension, ALONE.device)
        sums.update(DatasetReference(config.evaluation, config.data, ALONE, dataset, extractor).features(images))
        measured = frechet_distance(sums.statistics(), evaluator.real.statistics)
        assert evaluator.real.floor == pytest.approx(measured, rel=1e-5)
        floors[images] = measured
    assert floors[20] > floors[40] > floors[75] > 0
    kept = sorted(path.name.rpartition("-floor-")[2] for path in (tmp_path / "data" / "statistics").glob("*.json"))
    assert kept == ["20.json", "40.json"]


def test_statistics_that_an_earlier_version_kept_get_a_floor(data: str, tmp_path: Path) -> None:
    url = str(shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("statistics")))
    first = make_evaluator(config_of(url)).real
    (file,) = (tmp_path / "data" / "statistics").glob("*.npz")
    old = replace(first, floor=1234.5, floor_images=None)
    file.write_bytes(old.to_bytes())
    (tmp_path / "data" / "statistics" / f"{file.stem}-floor-75.json").write_text('{"floor": 1')  # damaged
    for _ in range(2):
        found = make_evaluator(config_of(url)).real
        assert (found.floor, found.floor_images) == (pytest.approx(first.floor, rel=1e-9), 75)
    assert file.read_bytes() == old.to_bytes()


def test_statistics_of_data_that_cannot_be_written_are_kept_on_this_machine(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("statistics")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write = Storage.write_bytes

    def refused(self: Storage, name: str, content: bytes) -> None:
        if self.url.startswith(url):
            raise UserError(f"{self.url}/{name}: read only")
        write(self, name, content)

    monkeypatch.setattr(Storage, "write_bytes", refused)
    first = make_evaluator(config_of(url)).real
    assert not (tmp_path / "data" / "statistics").exists()
    assert len(list((tmp_path / "cache" / "distgan" / "statistics").glob("*.npz"))) == 1

    def unread(*_: Any) -> None:
        raise AssertionError("real images were read again")

    monkeypatch.setattr(BlockReader, "read", unread)
    assert make_evaluator(config_of(url)).real.floor == first.floor


def test_statistics_that_can_be_neither_read_nor_kept_are_computed(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a bucket of which one may only get the objects: what is not there is denied."""
    url = str(shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("statistics")))
    read = Storage.read_bytes

    def denied(self: Storage, name: str, *content: bytes, **options: Any) -> bytes:
        if content or Path(self.url).name == "statistics":
            raise UserError(f"{self.url}/{name}: access denied")
        return read(self, name, **options)

    monkeypatch.setattr(Storage, "read_bytes", denied)
    monkeypatch.setattr(Storage, "write_bytes", denied)
    job = plan_statistics(url, real_samples=20)
    found = compute_statistics(job, ALONE)
    assert found.real.statistics.count == 20
    assert found.url is None
    assert "  not stored: neither the data's folder" in "\n".join(statistics_lines(job, found, None))


def test_statistics_that_cannot_be_kept_are_told_and_done_without(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = str(shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("statistics")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def refused(self: Storage, name: str, content: bytes) -> None:
        raise UserError(f"{self.url}/{name}: read only")

    monkeypatch.setattr(Storage, "write_bytes", refused)
    assert make_evaluator(config_of(url)).real.floor > 0
    said = f"cannot be stored in {url}/statistics or {tmp_path}/cache/distgan/statistics"
    assert [said in message for message in caplog.messages] == [True]


@pytest.mark.slow
def test_real_statistics_are_those_of_the_resized_images(tmp_path: Path) -> None:
    url, one_size = str(tmp_path / "data"), str(tmp_path / "one size")
    for folder, size in ((url, 32), (one_size, 16)):
        pack(BrickSource(0, 60, 32, 1), Storage.open(folder), PackOptions(size, 1, processes=1))
    wanted = make_evaluator(config_of(one_size)).real
    found = make_evaluator(config_of(url, "data.resize=bilinear")).real
    assert found.floor == wanted.floor
    assert torch.equal(found.statistics.covariance, wanted.statistics.covariance)

    keys = [("data.resize=lanczos",), ("data.resize=bilinear", "image_size=32"), ("data.resize=bilinear",)]
    others = [make_evaluator(config_of(url, *each)).real for each in keys]
    assert len({found.floor, *(other.floor for other in others)}) == 3
    assert len(list((tmp_path / "data" / "statistics").glob("*.npz"))) == 3


def test_all_images_by_default_and_not_more_than_there_are(data: str, tmp_path: Path) -> None:
    small = pack_bricks(tmp_path, samples=40)
    assert make_evaluator(config_of(small, "evaluation.real_samples=null")).real.statistics.count == 40
    assert make_evaluator(config_of(small, "evaluation.real_samples=41")).real.statistics.count == 40


@pytest.mark.slow
def test_statistics_half_written_are_computed_again(data: str, tmp_path: Path) -> None:
    url = str(shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("statistics")))
    first = make_evaluator(config_of(url)).real
    (file,) = (tmp_path / "data" / "statistics").iterdir()
    whole = file.read_bytes()
    with np.load(file) as arrays:
        assert arrays["mu"].shape == (320,)
        assert arrays["sigma"].shape == (320, 320)
        assert (arrays["count"], arrays["floor"]) == (150, first.floor)
        assert (arrays["extractor"], arrays["image_size"]) == ("fd_lite0", 16)
    for damaged in (b"", whole[: len(whole) // 2], b"\x93NUMPY"):
        file.write_bytes(damaged)
        assert make_evaluator(config_of(url)).real.floor == first.floor
        assert file.read_bytes() == whole


@pytest.mark.slow
def test_a_better_generator_is_nearer(data: str) -> None:
    """One that repeats real images is far nearer than one that draws noise."""
    config = config_of(data)
    evaluator, storage = make_evaluator(config), Storage.open(data)
    dataset = Dataset(Index.load(storage), BlockReader(storage, Index.load(storage)), config.image_shape, config.data)
    images = torch.from_numpy(np.concatenate(list(real_images(dataset, np.arange(0, 300, 2)))))
    assert images.shape == (150, 1, 16, 16)

    class Replay(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.at = 0

        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            self.at += len(latents)
            return images[self.at - len(latents) : self.at].float() / 127.5 - 1

    class Noise(torch.nn.Module):
        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            return torch.rand(len(latents), 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1

    assert evaluator.real.floor is not None
    replay, noise = (evaluator.evaluate(generated(config, each)) for each in (Replay(), Noise()))
    assert replay.distance < evaluator.real.floor * 2
    assert replay.diversity == pytest.approx(1, abs=0.1)
    assert noise.distance > evaluator.real.floor * 5
    assert noise.diversity < 0.7


def test_a_diverged_generator_is_a_users_error(data: str) -> None:
    class Diverged(torch.nn.Module):
        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            return torch.full((len(latents), 1, 16, 16), float("nan"))

    with pytest.raises(UserError, match="diverged"):
        make_evaluator(config_of(data)).evaluate(generated(config_of(data), Diverged()))


def test_an_image_that_cannot_be_decoded_is_named(data: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url = str(shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("statistics")))

    def broken(*_: Any) -> None:
        raise ValueError("not a whole PNG, JPEG or WebP image")

    monkeypatch.setattr(dataset_module, "decode_pixels", broken)
    with pytest.raises(
        UserError, match=r"shard-\d+\.tar: sample \d+ at byte \d+ \(\d+\.png\) cannot be used: not a whole PNG"
    ):
        make_evaluator(config_of(url))


MEASURES = ["kernel", "precision", "recall", "density", "coverage"]


def everything(distributed: Distributed, data: str) -> Scores:
    config = config_of(data, "training.precision=float64", f"evaluation.metrics=[{', '.join(MEASURES)}]")
    return make_evaluator(config, distributed).evaluate(
        generated(config, build_networks(config, distributed.device).generator.eval())
    )


@pytest.mark.slow
def test_all_measures_are_the_same_for_every_number_of_workers(data: str, tmp_path: Path) -> None:
    """The real features are computed anew by each of them."""
    found = {}
    for size in (1, 2, 3):
        copy = shutil.copytree(data, tmp_path / str(size), ignore=shutil.ignore_patterns("statistics"))
        found[size] = run_workers(everything, size, str(copy))
    names = {"kernel_std", *MEASURES}
    (alone,) = found[1]
    assert alone.more.keys() == names
    assert {"features", "frechet", "kernel", "manifold"} == alone.seconds.keys()
    for ranks in found.values():
        for other in ranks:
            assert (other.distance, other.more) == (ranks[0].distance, ranks[0].more)
            assert other.distance == pytest.approx(alone.distance, rel=1e-6)
            for name, value in alone.more.items():
                assert other.more[name] == pytest.approx(value, rel=1e-5, abs=1e-6)


def test_real_features_are_kept_and_are_as_many_as_samples(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("statistics")))
    config = config_of(url, "evaluation.metrics=[coverage]")
    images = generated(config, build_networks(config, ALONE.device).generator.eval())
    first = make_evaluator(config).evaluate(images)
    (file,) = (tmp_path / "data" / "statistics").glob("*.npy")
    kept = np.load(file)
    assert (kept.shape, kept.dtype) == ((100, 320), np.float32)

    def unread(*_: Any) -> None:
        raise AssertionError("real images were read again")

    monkeypatch.setattr(BlockReader, "read", unread)
    assert make_evaluator(config).evaluate(images).more == first.more
    monkeypatch.undo()
    file.write_bytes(b"damaged")
    assert make_evaluator(config).evaluate(images).more == first.more
    assert np.array_equal(np.load(file), kept)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evaluation.metrics=[inception_score]"], "inception_score needs an extractor with logits, such as fid"),
        (["evaluation.metrics=[recall]", "evaluation.samples=5"], "at least 6 images .* evaluation.samples=5"),
        (["evaluation.metrics=[recall]", "evaluation.real_samples=5"], "at least 6 images .* 5 real images"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(data: str, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_evaluator(config_of(data, *overrides))


@pytest.mark.parametrize(
    ("measure", "extractor", "samples", "whole", "name"),
    [
        ("frechet", "fd_lite0", 500, True, "fd_lite0_500"),
        ("frechet", "fd_lite0", 999, False, "fd_lite0_999"),
        ("frechet", "fd_lite0", 2048, True, "fd_lite0_2k"),
        ("kernel", "fd_lite0", 10_000, True, "kd_lite0_10k"),
        ("precision", "fd_lite0", 10_000, True, "precision_lite0_10k"),
        ("frechet", "fid", 50_000, True, "fid50k_full"),
        ("frechet", "fid", 50_000, False, "fid50k"),
        ("frechet", "fid_clean", 10_000, True, "fid_clean10k_full"),
        ("kernel", "fid", 50_000, True, "kid50k"),
        ("inception_score", "fid", 50_000, True, "is50k"),
        ("recall", "fid", 50_000, True, "recall50k"),
        ("frechet", "vgg", 5000, True, "fd_vgg_5k"),
        ("frechet", "fd_dinov2", 50_000, True, "fd_dinov2_50k"),
        ("mind", "fd_dinov2_s14", 5000, True, "mind_dinov2_s14_5k"),
        ("mind", "fid", 5000, True, "mind5k"),
    ],
)
def test_names_say_network_and_count(measure: str, extractor: str, samples: int, whole: bool, name: str) -> None:
    """Only what the published network measures is called FID, KID or IS."""
    assert metric_name(measure, extractor, samples, whole) == name
