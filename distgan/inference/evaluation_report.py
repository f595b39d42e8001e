"""An evaluation of its own as a table and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

import distgan
from distgan.errors import UserError
from distgan.inference.evaluation import ClassFinding, Finding, Findings
from distgan.inference.evaluation_plan import EvaluationJob
from distgan.inference.memorization_report import nearest_document, nearest_words
from distgan.storage.local_files import is_special, replacing
from distgan.storage.storage import translate_errors
from distgan.tracking import formatting
from distgan.tracking.jsonl import to_json

_NAMED = 5  # of the classes that are not measured


def scores_table(job: EvaluationJob, found: Findings) -> RenderableType:
    """The measures, what they were taken of, and a row a class where there are any; below it what to beware of."""
    table = Table(title=Text(f"{job.source}\nagainst {job.against}"), title_justify="left", title_style="bold")
    table.add_column("metric", no_wrap=True)
    table.add_column("value", justify="right")
    table.add_column("seconds", justify="right")
    for one in found.measures:
        table.add_row(one.name, _value(one), f"{one.seconds:.1f}")
    table.add_section()
    for label, value, seconds in _circumstances(job, found):
        table.add_row(Text(label, "dim"), value, seconds)
    parts: list[RenderableType] = [table]
    if found.classes:
        parts.append(_class_table(found.classes))
    if found.nearest is not None:
        parts += [Text(line) for line in nearest_words(found.nearest)]
    parts += [Text(f"warning: {note}") for note in notes(job, found)]
    return Group(*parts)


def scores_document(job: EvaluationJob, found: Findings) -> dict[str, Any]:
    """The same for programs: numbers by the names of their measures."""
    document: dict[str, Any] = {
        "source": job.source,
        "against": job.against,
        "metrics": {one.name: one.value for one in found.measures},
        "deviations": {one.name: one.deviation for one in found.measures if one.deviation is not None},
        "floor": found.floor,
        "floor_images": found.floor_images,
        "extractor": found.extractor,
        "features": found.features,
        "image_size": job.shape[1],
        "samples": found.samples,
        "real_images": found.real_images or None,
        "seconds": found.seconds | {one.name: one.seconds for one in found.measures},
        "workers": found.workers,
        "device": found.device,
        "notes": notes(job, found),
        "distgan": distgan.__version__,
    }
    if found.classes:
        document["classes"] = [vars(one) for one in found.classes]
        document["mean_class_distance"] = mean_distance(found.classes)
    if found.nearest is not None:
        document["nearest"] = nearest_document(found.nearest)
    return document


def check_json_path(path: str) -> None:
    """Raises UserError for what is no name of a file on this machine."""
    with translate_errors(path):
        elsewhere = not path or "://" in path or is_special(Path(path)) or Path(path).is_symlink()
    if elsewhere:
        raise UserError(f"--json {path}: give the name of a file on this machine, or - for standard output")


def write_document(document: dict[str, Any], path: str) -> None:
    """Writes JSON, which appears whole. Raises UserError where it cannot."""
    with translate_errors(path), replacing(Path(path)) as partial:
        partial.write_text(f"{to_json(document, indent=1)}\n", encoding="utf-8")


def mean_distance(classes: list[ClassFinding]) -> float:
    """Of all classes, each counting alike."""
    return sum(one.distance for one in classes) / len(classes)


def notes(job: EvaluationJob, found: Findings) -> list[str]:
    """What a reader of the numbers should beware of."""
    told = list(job.notes)
    sides = {f"{found.samples:,} samples": found.samples}
    if found.real_images:
        sides[f"{found.real_images:,} real images"] = found.real_images
    few = [name for name, count in sides.items() if count <= found.features]
    if few and any(one.measure == "frechet" for one in found.measures):
        told.append(
            f"{' and '.join(few)} are not more than the {found.features:,} features, so that a covariance lacks rank: "
            f"compare the distance with those of as many only"
        )
    if found.small_classes:
        names = ", ".join(repr(name)[:40] for name in found.small_classes[:_NAMED])
        rest = f" and {len(found.small_classes) - _NAMED:,} more" if len(found.small_classes) > _NAMED else ""
        told.append(f"classes of no or very few real images are not measured: {names}{rest}")
    if found.classes:
        fewest = min(min(one.samples, one.real_images) for one in found.classes)
        if fewest <= found.features:
            told.append(
                f"the classes have from {fewest:,} images, not more than the {found.features:,} features: compare "
                f"their distances with each other's of as many only"
            )
    return told


def _class_table(classes: list[ClassFinding]) -> Table:
    table = Table(title="by class", title_justify="left")
    table.add_column("class", overflow="fold")
    for title in ("samples", "real images", "Fréchet distance"):
        table.add_column(title, justify="right")
    for one in classes:
        table.add_row(Text(one.name), f"{one.samples:,}", f"{one.real_images:,}", formatting.number(one.distance))
    table.add_section()
    table.add_row(Text("mean", "dim"), "", "", formatting.number(mean_distance(classes)))
    return table


def _value(one: Finding) -> str:
    if one.deviation is None:
        return formatting.number(one.value)
    return f"{formatting.number(one.value)} ± {formatting.number(one.deviation)}"


def _circumstances(job: EvaluationJob, found: Findings) -> list[tuple[str, str, str]]:
    """Label, value and seconds of what was compared."""
    seconds = {name: f"{spent:.1f}" for name, spent in found.seconds.items()}
    channels, size, _ = job.shape
    rows = []
    if found.floor is not None:
        rows.append(("floor", formatting.floor(found.floor, found.floor_images), ""))
    real = f"{found.real_images:,}" if found.real_images else "unknown"
    rows += [
        ("samples", f"{found.samples:,}", seconds["features"]),
        ("real images", real, seconds["real images"]),
        ("images", f"{channels}x{size}x{size}", ""),
        ("extractor", f"{found.extractor}, {found.features:,} features", ""),
        ("workers", f"{formatting.plural(found.workers, 'worker')} on {found.device}", seconds["total"]),
    ]
    return rows
