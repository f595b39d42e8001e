"""Statistics of a data set, told and copied."""

from __future__ import annotations

from pathlib import Path

from distgan.assessment.data_statistics import KeptStatistics, StatisticsJob
from distgan.data.storage import translate_errors
from distgan.data.whole_files import is_special, replacing
from distgan.errors import UserError
from distgan.report import words

_NOWHERE = "neither the data's folder nor this machine's cache folder can be written; --out FILE.npz keeps a copy"


def statistics_lines(job: StatisticsJob, found: KeptStatistics, copy: str | None) -> list[str]:
    """What they are of, where they are kept, and the floor."""
    real, (channels, size, _) = found.real, job.shape
    resized = "" if job.data.resize == "none" else f", data.resize={job.data.resize}"
    lines = [
        f"{job.data.url}: statistics of {real.statistics.count:,} images, {channels}x{size}x{size}{resized}",
        f"  extractor {real.extractor}, {len(real.statistics.mean):,} features",
        f"  kept at {found.kept_at}" if found.kept_at else f"  not kept: {_NOWHERE}",
    ]
    if real.floor is not None:
        lines.insert(2, f"  floor {words.floor(real.floor, real.floor_images)}")
    return lines if copy is None else [*lines, f"  copied to {copy}"]


def check_out(out: str) -> None:
    """Raises UserError for what is no name of an .npz file on this machine."""
    with translate_errors(out):
        elsewhere = "://" in out or is_special(Path(out)) or Path(out).is_symlink()
    if elsewhere or not out.endswith(".npz"):
        raise UserError(f"--out {out}: give the name of an .npz file on this machine")


def write_statistics(found: KeptStatistics, out: str) -> None:
    """Writes a copy, which appears whole. Raises UserError where it cannot."""
    with translate_errors(out), replacing(Path(out)) as partial:
        partial.write_bytes(found.real.to_bytes())
