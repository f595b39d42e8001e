"""Folders of runs that were never trained, for what reads them."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from typing import Any

import numpy as np
from PIL import Image

from distgan.config.load import dump_config, load_config
from distgan.storage.storage import Storage
from distgan.training.events import Attempt, Summary
from distgan.training.health import HealthWarning

WARNING = HealthWarning(30, 3.0, "mode collapse", "its diversity was 0.05", "lower the rate", 2, 6.0)


def summary(**changes: Any) -> dict[str, Any]:
    """The content of `summary.json`."""
    values: dict[str, Any] = {
        "name": "toy",
        "metric": "fd_lite0_300",
        "reason": "plateau",
        "kimg": 10.0,
        "budget_kimg": 20.0,
        "steps": 100,
        "untrained": 2701.0,
        "best": 757.0,
        "best_kimg": 8.0,
        "latest": 800.0,
        "latest_kimg": 10.0,
        "floor": 245.0,
        "without_improvement": 1,
        "best_checkpoint": "step-000000080",
        "last_checkpoint": "step-000000100",
        "workers": 2,
        "resumed_at_kimg": 0.0,
        "images_per_second": 415.0,
        "seconds": {"total": 240.0, "training": 180.0, "data wait": 12.0},
        "health": [WARNING],
        "attempts": [Attempt(2, 0.0, "worker 1 was lost: out of memory"), Attempt(2, 4.0)],
        "goodput": 0.75,
    }
    return asdict(Summary(**(values | changes)))


def step_row(kimg: float, **terms: Any) -> dict[str, Any]:
    row = {"event": "step", "step": round(10 * kimg), "kimg": kimg, "images_per_second": 400.0}
    return row | {"loss/generator": 1.5, "loss/discriminator": 0.5 + kimg / 100, "gradients/generator": 2.0} | terms


def evaluation_row(kimg: float, value: float | None, **more: Any) -> dict[str, Any]:
    row = {"event": "evaluation", "step": round(10 * kimg), "kimg": kimg, "metric": "fd_lite0_300", "value": value}
    return row | {"best": 757.0, "best_kimg": 8.0, "higher_is_better": False, "diversity": 0.5} | more


def write_run(
    folder: Storage,
    *,
    rows: list[dict[str, Any]] | None = None,
    end: dict[str, Any] | None = None,
    overrides: tuple[str, ...] = ("objective.label_noise=0.25",),
    grids: int = 4,
    size: int = 8,
) -> None:
    """Writes a run of 10 kimg of the preset quickstart, whose grids are noise of `size` pixels a side."""
    if rows is None:
        rows = [step_row(kimg) for kimg in range(1, 11)]
        rows += [evaluation_row(kimg, value) for kimg, value in ((0, 2701.0), (8, 757.0), (10, 800.0))]
    folder.write_bytes("metrics.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    folder.write_bytes("config.yaml", dump_config(load_config("quickstart", overrides)).encode())
    folder.write_bytes("summary.json", json.dumps(summary() if end is None else end).encode())
    random = np.random.default_rng(0)
    for place in range(grids):
        buffer = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (size, size), np.uint8)).save(buffer, "PNG")
        folder.write_bytes(f"samples/kimg-{10 * (place + 1) / grids:010.3f}.png", buffer.getvalue())
