"""Checkpoints and images measured outside a run, and statistics computed before one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from command_line import Cli
from conditional import NETWORKS
from distgan.config.load import build_config, load_config
from distgan.config.schema import DataConfig
from distgan.data.dataset import Dataset
from distgan.data.index import pack_table
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.evaluation.evaluator import Scores
from distgan.evaluation.extractors.extractor import load_extractor
from distgan.evaluation.feature_statistics import GaussianStatistics
from distgan.evaluation.given_images import open_images
from distgan.evaluation.metrics.frechet import frechet_distance
from distgan.evaluation.metrics.registry import parse_metrics
from distgan.evaluation.reference_files import RealStatistics
from distgan.inference.data_statistics import compute_statistics, plan_statistics
from distgan.inference.evaluation import EvaluationReport, evaluate, score_checkpoint
from distgan.inference.evaluation_plan import EvaluationOptions, plan_evaluation
from distgan.inference.report import notes
from distgan.inference.sample_files import write_samples
from distgan.inference.sampling import SampleOptions, average_generator
from distgan.storage.storage import Storage
from distgan.training.fakes import GeneratedImages
from distgan.training.starting_point import find_checkpoint
from gloo import run_workers
from runs import ALONE, TINY, pack_bricks, run, tiny_config
from toy_data import pack_numbered

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("one_thread")]

MEASURES = ["kernel", "precision"]
CLASSES = 3


@pytest.fixture(scope="module")
def trained(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps that is evaluated on two chunks and a bit."""
    storage = tmp_path_factory.mktemp("runs")
    config = tiny_config("quickstart", data, 4, "evaluation.samples=150", f"evaluation.metrics=[{','.join(MEASURES)}]")
    run(config, str(storage))
    return storage / "run"


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step on images of three classes."""
    folder = tmp_path_factory.mktemp("conditional")
    pack_numbered(folder / "data", 100)
    overrides = [f"num_classes={CLASSES}", f"data.url={folder / 'data'}", "training.kimg=0.016", *NETWORKS]
    tiny = [key for key in TINY if "width" not in key]
    config = load_config("quickstart", [*tiny, "evaluation.samples=150", "evaluation.real_samples=null", *overrides])
    run(config, str(folder))
    return folder / "run"


@pytest.fixture(scope="module")
def samples(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """130 samples of the run, in each kind of file that `distgan sample` writes."""
    folder = tmp_path_factory.mktemp("samples")
    for out in ("x.npy", "x.npz", "x/"):
        write_samples(str(trained), f"{folder}/{out}", SampleOptions(130))
    return folder


def evaluated_by_run(trained: Path) -> dict[str, Any]:
    (measured,) = find_checkpoint(str(trained)).manifest.progress["evaluations"]
    return measured


def scores_of(distributed: Distributed, url: str) -> Scores:
    checkpoint = find_checkpoint(url)
    return score_checkpoint(build_config(checkpoint.manifest.config, url), checkpoint, distributed)


def report_of(distributed: Distributed, source: str, options: EvaluationOptions) -> EvaluationReport:
    return evaluate(plan_evaluation(source, options), distributed)


def values(found: EvaluationReport) -> dict[str, float]:
    return {one.metric: one.value for one in found.metrics}


def test_a_checkpoint_has_the_scores_that_its_run_found(trained: Path) -> None:
    measured = evaluated_by_run(trained)
    found = scores_of(ALONE, str(trained))
    assert found.distance == measured["distance"]
    assert found.more == measured["more"]


def test_the_command_finds_what_the_run_found(trained: Path, cli: Cli) -> None:
    """To the bit, and prints JSON and nothing else."""
    measured = evaluated_by_run(trained)
    result = cli("evaluate", str(trained), "--metrics", "frechet, kid,precision", "--json", "-")
    assert (result.code, result.err) == (0, "")
    document = json.loads(result.out)
    assert document["metrics"] == {
        "fd_lite0_150": measured["distance"],
        "kd_lite0_150": measured["more"]["kernel"],
        "precision_lite0_150": measured["more"]["precision"],
    }
    assert document["deviations"] == {"kd_lite0_150": measured["more"]["kernel_std"]}
    assert document["source"] == find_checkpoint(str(trained)).url
    assert (document["samples"], document["real_images"], document["features"]) == (150, 64, 320)
    assert document["floor"] > 0


def test_the_table_says_what_was_measured_and_the_file_the_same(trained: Path, cli: Cli, tmp_path: Path) -> None:
    result = cli("evaluate", str(trained), "--samples", "64", "--json", "new/scores.json")
    assert result.code == 0
    document = json.loads((tmp_path / "new" / "scores.json").read_text())
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["scores.json"]
    assert document["metrics"].keys() == {"fd_lite0_64"}
    assert f"{document['metrics']['fd_lite0_64']:,.0f}" in result.out
    for told in ("fd_lite0_64", "floor", "1x16x16", "1 worker on cpu", f"against {document['against']}"):
        assert told in result.out
    assert "warning: 64 samples and 64 real images are not more than the 320 features" in result.out


@pytest.mark.slow
def test_scores_are_the_same_for_every_number_of_workers(trained: Path, samples: Path, tmp_path: Path) -> None:
    """Of a run and of an array, the real side computed anew each time. Neither count is one of whole chunks."""
    url = str(find_checkpoint(str(trained)).manifest.config["data"]["url"])
    for source in (trained, samples / "x.npz"):
        alone: dict[str, float] = {}
        for size in (1, 2, 3):
            data = tmp_path / f"{source.name}-{size}"
            shutil.copytree(url, data, ignore=shutil.ignore_patterns("statistics"))
            options = EvaluationOptions(str(data), "frechet,kid,pr", samples=70, real_samples=70)
            ranks = run_workers(report_of, size, str(source), options)
            alone = alone or values(ranks[0])
            for found in ranks:
                assert values(found) == values(ranks[0])
                assert values(found) == pytest.approx(alone, rel=1e-6, abs=1e-6)
                assert found.workers == size


def test_files_of_all_kinds_hold_the_same_images(samples: Path, tmp_path: Path) -> None:
    with np.load(samples / "x.npz") as archive:
        np.savez_compressed(tmp_path / "squeezed.npz", arr_0=archive["arr_0"])
    np.save(tmp_path / "gray.npy", np.load(samples / "x.npy")[..., 0])
    sources = [samples / "x", samples / "x.npy", samples / "x.npz", tmp_path / "squeezed.npz", tmp_path / "gray.npy"]
    wanted = np.load(samples / "x.npy").transpose(0, 3, 1, 2)
    for source in sources:
        images = open_images(str(source))
        assert (images.count, images.shape) == (130, (1, 16, 16))
        # In any order, and again.
        for number in (2, 0, 1, 1):
            assert np.array_equal(images.chunk(number).numpy(), wanted[number * 64 : (number + 1) * 64])


def test_fewer_images_are_the_first_by_name(samples: Path, data: str, tmp_path: Path) -> None:
    np.save(tmp_path / "first.npy", np.load(samples / "x.npy")[:70])
    some, few = EvaluationOptions(data, real_samples=64, samples=70), EvaluationOptions(data, real_samples=64)
    found = [report_of(ALONE, *each) for each in ((str(samples / "x"), some), (str(tmp_path / "first.npy"), few))]
    assert values(found[0]) == values(found[1])
    assert [(one.samples, one.real_images) for one in found] == [(70, 64), (70, 64)]


def test_a_folder_may_have_files_of_several_formats(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.broadcast_to(np.arange(0, 240, 10, dtype=np.uint8)[:, None], (3, 24, 24, 3)[:3])[..., None]
    pixels = pixels * np.array([1, 0, 1], np.uint8)
    for name, array in zip(("a.JPG", "b.png", "c.webp"), pixels, strict=True):
        Image.fromarray(array).save(folder / name, lossless=True)
    (folder / "notes.txt").write_text("not counted")
    images = open_images(str(folder))
    assert (images.count, images.shape) == (3, (3, 24, 24))
    chunk = images.chunk(0).numpy()
    assert np.array_equal(chunk[1:], pixels[1:].transpose(0, 3, 1, 2))
    assert np.abs(chunk[0].astype(int) - pixels[0].transpose(2, 0, 1)).mean() < 3


def test_given_statistics_take_the_place_of_the_data(samples: Path, data: str, tmp_path: Path, cli: Cli) -> None:
    assert cli("data", "stats", data, "--real-samples", "64", "--out", "ours.npz").code == 0
    with np.load("ours.npz") as ours:
        np.savez("theirs.npz", mu=ours["mu"], sigma=ours["sigma"])
    wanted = report_of(ALONE, str(samples / "x"), EvaluationOptions(data, samples=70, real_samples=64))
    for file, silent in (("ours.npz", False), ("theirs.npz", True)):
        job = plan_evaluation(str(samples / "x"), EvaluationOptions(statistics=file, samples=70))
        assert job.data.url is None
        found = evaluate(job, ALONE)
        assert values(found) == values(wanted)
        assert (found.real_images, found.floor) == ((0, None) if silent else (64, wanted.floor))
        told = [note for note in notes(job, found) if "does not say its extractor and image size" in note]
        assert len(told) == silent
        assert job.against == str(tmp_path / file)
    with pytest.raises(UserError, match="kernel needs"):
        plan_evaluation(str(samples / "x"), EvaluationOptions(statistics="ours.npz", metrics="frechet,kid"))


def test_a_run_may_be_measured_against_given_statistics(trained: Path, data: str, tmp_path: Path) -> None:
    """As against its data where they are the same; the real images are then not read for it."""
    statistics = compute_statistics(plan_statistics(data, real_samples=64), ALONE).real
    (tmp_path / "given.npz").write_bytes(statistics.to_bytes())
    overrides = ["evaluation.samples=150", f"evaluation.statistics={tmp_path / 'given.npz'}"]
    summary, _ = run(tiny_config("quickstart", data, 4, *overrides), str(tmp_path))
    assert summary.best == evaluated_by_run(trained)["distance"]
    assert summary.floor == statistics.floor
    found = report_of(ALONE, str(trained), EvaluationOptions(statistics=str(tmp_path / "given.npz")))
    assert values(found)["frechet"] == summary.best
    job = plan_evaluation(str(tmp_path / "run"), EvaluationOptions())
    assert job.against == str(tmp_path / "given.npz")
    assert values(evaluate(job, ALONE)) == {"frechet": summary.best}
    unlike = RealStatistics(statistics.statistics, 1.0, "fd_lite0", 32)
    (tmp_path / "given.npz").write_bytes(unlike.to_bytes())
    with pytest.raises(UserError, match="images of 32 pixels, and the images to evaluate have 16"):
        run(tiny_config("quickstart", data, 4, *overrides), str(tmp_path), "other")


def test_data_that_have_changed_since_the_run_are_told_of(data: str, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(data, tmp_path / "data"))
    config = tiny_config("quickstart", str(copy), 1)
    run(config, str(tmp_path))
    assert plan_evaluation(str(tmp_path / "run"), EvaluationOptions()).notes == ()
    shutil.rmtree(copy)
    pack_bricks(copy, seed=1, samples=80)
    (note,) = plan_evaluation(str(tmp_path / "run"), EvaluationOptions()).notes
    assert note == f"{copy} has changed since the run was trained on it"
    assert plan_evaluation(str(tmp_path / "run"), EvaluationOptions(data=data)).notes == ()


@pytest.mark.slow
def test_each_class_is_compared_with_its_own_images(conditional: Path) -> None:
    options = EvaluationOptions(per_class=True, trust_code=True)
    found = report_of(ALONE, str(conditional), options)
    assert [(one.label, one.name, one.samples, one.real_images) for one in found.classes] == [
        (0, "kind 0", 50, 34),
        (1, "kind 1", 50, 33),
        (2, "kind 2", 50, 33),
    ]
    assert found.samples == 150
    assert found.metrics[0].value == evaluated_by_run(conditional)["distance"]
    for one in found.classes:
        assert one.distance == pytest.approx(class_distance(conditional, one.label), rel=1e-6)
    for size in (2, 3):
        for other in run_workers(report_of, size, str(conditional), options):
            distances = [one.distance for one in other.classes]
            assert distances == pytest.approx([one.distance for one in found.classes], rel=1e-6)


def class_distance(conditional: Path, label: int) -> float:
    """From all features of a class at once."""
    checkpoint = find_checkpoint(str(conditional))
    config = build_config(checkpoint.manifest.config, "run", trust_code=True)
    config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"samples": 50})})
    dataset, extractor = Dataset.open(config.data, config.image_shape), load_extractor("fd_lite0")
    labels = dataset.index.labels
    real = np.stack([image for _, image in dataset.images(np.flatnonzero(labels == label))])
    generator = average_generator(config, checkpoint, ALONE.device)
    fakes = GeneratedImages(config, labels, ALONE.device, generator, label).chunk(0)
    return frechet_distance(statistics_of(extractor(torch.from_numpy(real))), statistics_of(extractor(fakes)))


def statistics_of(features: torch.Tensor) -> GaussianStatistics:
    return GaussianStatistics(features.double().mean(0), features.double().T.cov(), len(features))


def test_the_table_has_a_row_a_class(conditional: Path, cli: Cli) -> None:
    result = cli("evaluate", str(conditional), "--per-class", "--trust-code", "--json", "scores.json")
    assert result.code == 0, result
    document = json.loads(Path("scores.json").read_text())
    assert [one["name"] for one in document["classes"]] == ["kind 0", "kind 1", "kind 2"]
    mean = sum(one["distance"] for one in document["classes"]) / CLASSES
    assert document["mean_class_distance"] == pytest.approx(mean)
    for one in document["classes"]:
        assert f"{one['distance']:,.0f}" in result.out
        assert one["name"] in result.out
    assert "33 images, not more than the 320 features" in result.out


def test_a_class_of_too_few_images_is_named(conditional: Path, tmp_path: Path) -> None:
    options = EvaluationOptions(per_class=True, trust_code=True, real_samples=6)
    with pytest.raises(UserError, match=r"has [0-3] real images of the class 'kind \d', and a distance needs 4; raise"):
        report_of(ALONE, str(conditional), options)


def test_a_class_without_images_is_passed_over(conditional: Path, tmp_path: Path) -> None:
    data = Storage.open(str(tmp_path))
    index = pack_numbered(tmp_path, 40)
    gap = np.where(index.labels == 1, 0, index.labels)
    table = pack_table(index.offsets, index.lengths, gap, index.checksums)
    header = index.header.model_copy(update={"table_sha256": hashlib.sha256(table).hexdigest()})
    dataclasses.replace(index, header=header, labels=gap).save(data)
    options = EvaluationOptions(per_class=True, trust_code=True, data=str(tmp_path))
    found = report_of(ALONE, str(conditional), options)
    assert [(one.label, one.name, one.samples) for one in found.classes] == [(0, "kind 0", 75), (2, "kind 2", 75)]
    assert found.small_classes == ["kind 1"]
    told = notes(plan_evaluation(str(conditional), options), found)
    assert "classes with no or very few real images have no distance: 'kind 1'" in told


def test_files_beside_the_images_of_a_folder_are_told(data: str, tmp_path: Path) -> None:
    for number in range(4):
        Image.new("L", (16, 16), number).save(tmp_path / f"{number}.png")
        (tmp_path / f"._{number}.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "more").mkdir()
    job = plan_evaluation(str(tmp_path), EvaluationOptions(data=data))
    assert job.evaluation.samples == 4
    assert job.notes == (f"files in {tmp_path} that are not images: 4 hidden or system, 1 dangling, 1 sub-folder",)


@pytest.mark.parametrize(("source", "told"), [("", "not a URL"), ("s3://b/x.npz", "copy them there")])
def test_what_is_no_place_of_images_here_is_refused(
    source: str, told: str, samples: Path, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No source is not the folder that the command was called in."""
    monkeypatch.chdir(samples / "x")
    with pytest.raises(UserError, match=told):
        plan_evaluation(source, EvaluationOptions(data=data))


@pytest.mark.parametrize(
    ("names", "metrics", "extractor"),
    [
        ("fid", ("frechet",), "fid"),
        ("fid_clean,kid", ("frechet", "kernel"), "fid_clean"),
        ("fd_lite0, pr ,dc", ("frechet", "precision", "recall", "density", "coverage"), "fd_lite0"),
        ("kid,kernel,frechet", ("kernel", "frechet"), None),
        ("is,recall,pr", ("inception_score", "recall", "precision"), None),
    ],
)
def test_short_names(names: str, metrics: tuple[str, ...], extractor: str | None) -> None:
    request = parse_metrics(names)
    assert (request.metrics, request.extractor) == (metrics, extractor)


def test_copies_are_looked_for_among_all_training_images(samples: Path, data: str, tmp_path: Path, cli: Cli) -> None:
    """An image of the data set among the first of an array; the picture and the numbers say so."""
    images = np.load(samples / "x.npy")
    dataset = Dataset.open(DataConfig(url=data), (1, 16, 16))
    ((_, real),) = dataset.images(np.array([123]))
    images[3] = real.transpose(1, 2, 0)
    np.save(tmp_path / "copied.npy", images)
    command = ["evaluate", "copied.npy", "--data", data, "--real-samples", "64", "--nearest", "6", "--picture", "n.png"]
    result = cli(*command, "--json", "found.json")
    assert result.code == 0
    found = json.loads((tmp_path / "found.json").read_text())["nearest"]
    assert (found["samples"], found["training_images"], found["exact_copies"]) == (6, 300, 1)
    for measure in ("pixels", "features"):
        assert found[measure]["sample_neighbors"][3] == 123
        assert found[measure]["sample_distances"][3] == pytest.approx(0, abs=1e-3)
        assert len(found[measure]["real_distances"]) == 6
    assert "exact copies of a training image: 1 of 6 samples" in result.out
    with Image.open(tmp_path / "n.png") as picture:
        assert picture.height > 6 * 128
