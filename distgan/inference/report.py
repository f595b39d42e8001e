"""The report of an evaluation as a table and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

import distgan
from distgan.errors import UserError
from distgan.inference.evaluation import ClassResult, EvaluationReport, MetricResult
from distgan.inference.evaluation_plan import EvaluationSpec
from distgan.inference.memorization import Nearest
from distgan.storage.local_files import is_special, replacing
from distgan.storage.storage import translate_errors
from distgan.text import plural
from distgan.tracking.formatting import floor, number
from distgan.tracking.jsonl import to_json
from distgan.tracking.narrow import NarrowTable

_MAX_NAMED = 5  # classes without a distance that a note lists


def evaluation_table(spec: EvaluationSpec, report: EvaluationReport) -> RenderableType:
    """The metrics, the sizes of both sides, a row for each class, and the notes."""
    title = Text(f"{spec.source}\nagainst {spec.against}")
    table = NarrowTable(title=title, title_justify="left", title_style="bold")
    table.add_column("metric", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    for one in report.metrics:
        table.add_row(one.name, _value(one), f"{one.seconds:.1f}")
    table.add_section()
    for label, value, seconds in _setting(spec, report):
        table.add_row(Text(label, "dim"), value, seconds)
    parts: list[RenderableType] = [table]
    if report.classes:
        parts.append(_class_table(report.classes))
    if report.nearest is not None:
        parts += [Text(line) for line in nearest_lines(report.nearest)]
    parts += [Text(f"warning: {note}") for note in notes(spec, report)]
    return Group(*parts)


def evaluation_document(spec: EvaluationSpec, report: EvaluationReport) -> dict[str, Any]:
    """The report as JSON values; numbers by the metrics' names in reports."""
    document: dict[str, Any] = {
        "source": spec.source,
        "against": spec.against,
        "metrics": {one.name: one.value for one in report.metrics},
        "deviations": {one.name: one.std for one in report.metrics if one.std is not None},
        "floor": report.floor,
        "floor_images": report.floor_images,
        "extractor": report.extractor,
        "features": report.features,
        "image_size": spec.shape[1],
        "samples": report.samples,
        "real_images": report.real_images or None,
        "seconds": report.seconds | {one.name: one.seconds for one in report.metrics},
        "workers": report.workers,
        "device": report.device,
        "notes": notes(spec, report),
        "distgan": distgan.__version__,
    }
    if report.classes:
        document["classes"] = [vars(one) for one in report.classes]
        document["mean_class_distance"] = mean_distance(report.classes)
    if report.nearest is not None:
        document["nearest"] = nearest_document(report.nearest)
    return document


def check_json_path(path: str) -> None:
    """Raises UserError unless `path` names a file on this machine."""
    with translate_errors(path):
        elsewhere = not path or "://" in path or is_special(Path(path)) or Path(path).is_symlink()
    if elsewhere:
        raise UserError(f"--json {path}: give the name of a file on this machine, or - for standard output")


def write_document(document: dict[str, Any], path: str) -> None:
    """Writes JSON in one step. Raises UserError where that fails."""
    with translate_errors(path), replacing(Path(path)) as partial:
        partial.write_text(f"{to_json(document, indent=1)}\n", encoding="utf-8")


def mean_distance(classes: list[ClassResult]) -> float:
    """The mean distance of all classes, each with the same weight."""
    return sum(one.distance for one in classes) / len(classes)


def notes(spec: EvaluationSpec, report: EvaluationReport) -> list[str]:
    """Caveats about the numbers, a sentence each."""
    lines = list(spec.notes)
    sides = {plural(report.samples, "sample"): report.samples}
    if report.real_images:
        sides[plural(report.real_images, "real image")] = report.real_images
    few = [name for name, count in sides.items() if count <= report.features]
    if few and any(one.metric == "frechet" for one in report.metrics):
        lines.append(
            f"{' and '.join(few)} are not more than the {report.features:,} features, so the covariance lacks rank: "
            f"compare the distance only with distances of as many images"
        )
    if report.small_classes:
        names = ", ".join(repr(name)[:40] for name in report.small_classes[:_MAX_NAMED])
        rest = f" and {len(report.small_classes) - _MAX_NAMED:,} more" if len(report.small_classes) > _MAX_NAMED else ""
        lines.append(f"classes with no or very few real images have no distance: {names}{rest}")
    if report.classes:
        fewest = min(min(one.samples, one.real_images) for one in report.classes)
        if fewest <= report.features:
            lines.append(
                f"the smallest class has {plural(fewest, 'image')}, not more than the {report.features:,} features: "
                f"compare distances of classes only with distances of as many images"
            )
    return lines


def _class_table(classes: list[ClassResult]) -> Table:
    table = NarrowTable(title="by class", title_justify="left")
    table.add_column("class", overflow="fold")
    for title in ("samples", "real images", "Fréchet distance"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in classes:
        table.add_row(Text(one.name), f"{one.samples:,}", f"{one.real_images:,}", number(one.distance))
    table.add_section()
    table.add_row(Text("mean", "dim"), "", "", number(mean_distance(classes)))
    return table


def _value(one: MetricResult) -> str:
    if one.std is None:
        return number(one.value)
    return f"{number(one.value)} ± {number(one.std)}"


def _setting(spec: EvaluationSpec, report: EvaluationReport) -> list[tuple[str, str, str]]:
    """Label, value and seconds of each row below the metrics."""
    seconds = {name: f"{spent:.1f}" for name, spent in report.seconds.items()}
    channels, size, _ = spec.shape
    rows = []
    if report.floor is not None:
        rows.append(("floor", floor(report.floor, report.floor_images), ""))
    real = f"{report.real_images:,}" if report.real_images else "unknown"
    rows += [
        ("samples", f"{report.samples:,}", seconds["features"]),
        ("real images", real, seconds["real images"]),
        ("images", f"{channels}x{size}x{size}", ""),
        ("extractor", f"{report.extractor}, {report.features:,} features", ""),
        ("workers", f"{plural(report.workers, 'worker')} on {report.device}", seconds["total"]),
    ]
    return rows


def nearest_lines(nearest: Nearest) -> list[str]:
    """The distances of samples to training images beside those of real images, a line each."""
    samples, real = plural(len(nearest.fakes), "sample"), plural(len(nearest.real), "real image")
    lines = [
        f"{samples} against {plural(nearest.searched, 'training image')}; beside them {real} against all others",
    ]
    for measure, found in nearest.measures.items():
        name, _ = name_and_unit(measure, nearest.extractor)
        lines.append(
            f"{name}: median distance to the nearest {number(found.fake_median)} (real images "
            f"{number(found.real_median)}); {found.fake_close:.1%} of samples within {number(found.limit)} "
            f"({found.real_close:.1%} of real images)"
        )
    lines.append(
        f"exact copies of a training image: {nearest.copies} of {samples}; with an exact duplicate in the data: "
        f"{nearest.duplicates} of {real}"
    )
    return lines


def nearest_document(nearest: Nearest) -> dict[str, Any]:
    """The same as JSON values, with the distance of each sample and real image to its nearest training image."""
    document: dict[str, Any] = {
        "samples": len(nearest.fakes),
        "training_images": nearest.searched,
        "exact_copies": nearest.copies,
        "real_images": len(nearest.real),
        "real_images_with_duplicates": nearest.duplicates,
    }
    for measure, found in nearest.measures.items():
        document[measure] = {
            "sample_median": found.fake_median,
            "real_median": found.real_median,
            "limit": found.limit,
            "samples_within_limit": found.fake_close,
            "real_images_within_limit": found.real_close,
            "sample_distances": found.fake[:, 0].tolist(),
            "sample_neighbors": found.fake_numbers[:, 0].tolist(),
            "real_distances": found.real[:, 0].tolist(),
        }
    return document


def name_and_unit(measure: str, extractor: str | None) -> tuple[str, str]:
    if measure == "pixels":
        return "pixels", "mean difference in gray levels"
    return f"features of {extractor}", "Euclidean distance"
