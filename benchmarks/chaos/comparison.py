"""Whether two runs are equal to the bit: states, metrics, samples."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from benchmarks.chaos.record import read_samples
from benchmarks.chaos.runs import Run
from benchmarks.chaos.searches import Search
from distgan.storage.storage import Storage
from distgan.training.checkpoints import Checkpoint, CheckpointStore, checkpoint_name

NO_STATE = "no state"

# What depends on the moment and the machine.
_MEASURED = (
    *("images_per_second", "storage/retries", "scale/workers", "checkpoint/skipped"),
    *("data/bytes_read", "data/memory_hits", "data/cache_hits"),
    *("seconds", "memory/", "time"),
)


def difference(run: Run, calm: Run) -> str | None:
    """The first difference of two runs or searches that have ended; None without one."""
    if isinstance(run, Search) and isinstance(calm, Search) and run.trials() != calm.trials():
        return "search.json"
    for part, other in zip(run.parts, calm.parts, strict=True):
        found = (
            state_difference(part, other, other.steps)
            or metrics_difference(part, other)
            or samples_difference(part, other)
        )
        if found is not None:
            return found if part is run else f"trial {part.name}: {found}"
    return None


def state_difference(run: Run, calm: Run, step: int) -> str | None:
    """Compares the first states that both have from this step on: weights, optimizers, counters."""
    stores = [CheckpointStore(Storage.open(each.url)) for each in (run, calm)]
    for name in sorted({*stores[0].names()} & {*stores[1].names()}):
        if name >= checkpoint_name(step):
            found, wanted = (store.load(name) for store in stores)
            if found is not None and wanted is not None:
                return _checkpoint_difference(found, wanted)
    return NO_STATE


def _checkpoint_difference(found: Checkpoint, wanted: Checkpoint) -> str | None:
    where, tensors, others = wanted.manifest.name, dict(_flat(found.tensors)), dict(_flat(wanted.tensors))
    if tensors.keys() != others.keys():
        return f"other tensors in {where}"
    for name, value in others.items():
        if not torch.equal(tensors[name], value):
            return f"tensor {name.lstrip('.')} of {where}"
    return None if found.manifest.progress == wanted.manifest.progress else f"counters of {where}"


def _flat(tree: Any, name: str = "") -> list[tuple[str, Tensor]]:
    if isinstance(tree, Tensor):
        return [(name, tree)]
    if isinstance(tree, dict):
        return [found for key, branch in tree.items() for found in _flat(branch, f"{name}.{key}")]
    return []


def metrics_difference(run: Run, calm: Run) -> str | None:
    """Compares the rows of `metrics.jsonl`.

    Rows of checkpoints come when the checkpoint is complete; at a stop there is one more, and slow storage skips some.
    """
    found, wanted = (_rows(each) for each in (run, calm))
    saved, expected_saved = ([row for row in rows if row["event"] == "checkpoint"] for rows in (found, wanted))
    for row in [*saved, *expected_saved[-1:]]:
        if saved.count(row) != 1:
            return f"metrics: not one row of {row['name']}"
    found, wanted = ([row for row in rows if row["event"] != "checkpoint"] for rows in (found, wanted))
    for row, expected in zip(found, wanted, strict=False):
        if row != expected:
            keys = [key for key in {**expected, **row} if row.get(key) != expected.get(key)]
            return f"metrics: {expected['event']} of step {expected['step']}: {', '.join(keys)}"
    return None if len(found) == len(wanted) else f"metrics: {len(found)} rows, not {len(wanted)}"


def _rows(run: Run) -> list[dict[str, Any]]:
    lines = Storage.open(run.url).read_bytes("metrics.jsonl").splitlines()
    return [{key: value for key, value in json.loads(line).items() if not key.startswith(_MEASURED)} for line in lines]


def samples_difference(run: Run, calm: Run) -> str | None:
    """Compares the checksums of the images that each group got in each batch, repeated ones too."""
    found, wanted = (read_samples(each.file("samples")) for each in (run, calm))
    for key, expected in wanted.items():
        if found.get(key) != expected:
            return f"samples of batch {key[0]}, group {key[1]}"
    return None if found.keys() == wanted.keys() else "samples: more batches"
