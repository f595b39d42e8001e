"""The summary of `benchmarks.gpu` as a page of Markdown, from the files of its parts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.step_table import markdown

Tree = Mapping[str, Any]


def write_summary(folder: Path) -> None:
    """Writes `summary.md` of the parts that have left a file so far."""
    trees = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")}
    steps = {name: trees[name] for name in trees["parts"]["parts"] if "rows" in trees[name] and name[:5] == "step-"}
    machines = [tree["about"] for tree in trees.values() if "about" in tree]
    blocks = ["# A GPU, measured" if trees["parts"]["device"] == "cuda" else "# Measured on the CPU"]
    if trees["parts"]["quick"]:
        blocks.append("Of `--quick`: these are no figures, only a test that everything runs.")
    if machines:
        blocks.append(_machine(machines[-1]))
    blocks.append(_parts(trees["parts"]["parts"]))
    blocks += [f"## Steps\n\n{_overview(steps)}"] if steps else []
    blocks += [f"### {name.removeprefix('step-')}\n\n{markdown(tree)}" for name, tree in steps.items()]
    for name, section in (("tests", _tests), ("resume", _resume), ("roofline", _roofline), ("train", _train)):
        if name in trees and set(trees[name]) - {"error"}:
            blocks.append(section(trees[name]))
    (folder / "summary.md").write_text("\n\n".join(blocks) + "\n", encoding="utf-8")


def _table(head: str, rows: list[str]) -> str:
    return "\n".join([f"| {head} |", "|" + " --- |" * (head.count(" | ") + 1), *(f"| {row} |" for row in rows)])


def _machine(about: Tree) -> str:
    versions = [
        f"torch {about['torch']}",
        *(f"{key} {about[key]}" for key in ("cuda", "cudnn", "driver") if about.get(key)),
    ]
    return f"{about['device']}; {about['machine']}; {', '.join(versions)}; {about['date']}."


def _parts(parts: Tree) -> str:
    rows = [f"{name} | {of['seconds']:.0f} | {of['error'] or 'done'}" for name, of in parts.items()]
    return _table("part | seconds | ", rows)


def _overview(steps: Tree) -> str:
    """The plain loop, eager, and the fastest side that computes the same, of each preset."""
    rows = []
    for name, tree in steps.items():
        timed = {row["name"]: row for row in tree["rows"] if row.get("images_per_s")}
        plain, eager = timed.get("plain PyTorch"), timed.get("eager")
        same = [row for row in timed.values() if row.get("ok") or row is eager]
        if not plain or not eager:
            continue
        best = max(same, key=lambda row: float(row["images_per_s"]))
        rows.append(
            f"{name.removeprefix('step-')} | {plain['images_per_s']:,.0f} | {eager['images_per_s']:,.0f} "
            f"({eager['ratio']:.2f}) | {best['name']} | {best['images_per_s']:,.0f} ({best['ratio']:.2f})"
        )
    return _table("preset | plain PyTorch, images/s | eager (to plain) | fastest that is the same | images/s", rows)


def _tests(tree: Tree) -> str:
    return f"## GPU tests\n\n`tests/training/test_gpu.py`: {tree['result']}."


def _resume(tree: Tree) -> str:
    rows = []
    for row in tree["rows"]:
        result = row["reason"] or ("the same bits" if row["same_bits"] else "**other bits**")
        rows.append(f"{' '.join(row['keys']) or 'eager'} | {row['steps']} | {result}")
    return "## Exact resume\n\n" + _table("`dcgan-bricks` with | steps, stopped at half | ", rows)


def _roofline(tree: Tree) -> str:
    rows, notes = [], []
    for preset, of in tree.items():
        if preset in ("about", "error"):
            continue
        work, peaks, notes = of["work"], of["peaks"], [of["note"]]
        counts = f"{work['flops'] / 1e9:,.4g} | {(work['product_bytes'] + work['update_bytes']) / 1e9:,.3g}"
        for precision, found in of["limits"].items():
            peak = f"{peaks['flops'][precision] / 1e12:,.3g} TFLOP/s, {peaks['bytes'] / 1e9:,.0f} GB/s"
            limit = f"{found['images_per_s']:,.0f} ({found['bound']})"
            rows.append(f"{preset} | {precision} | {counts} | {peak} | {limit} | {_best(of['reached'], precision)}")
    head = "preset | precision | GFLOP a step | GB a step | peaks | limit, images/s | reached at most"
    return "\n\n".join(["## Roofline", _table(head, rows), *notes])


def _best(reached: list[Tree], precision: str) -> str:
    of = [row for row in reached if row["precision"] == precision]
    best = max(of, key=lambda row: float(row["share"]), default=None)
    return f"{best['share']:.1%} ({best['name']})" if best else ""


def _train(tree: Tree) -> str:
    last = tree["evaluations"][-1] if tree["evaluations"] else None
    rows = [f"{row['kimg']:,.0f} | {row['value']:,.4g}" for row in tree["evaluations"] if row["value"] is not None]
    text = f"`dcgan-bricks {' '.join(tree['keys'])}`: {tree['images_per_s']:,.0f} images/s (median)."
    pictures = "![Losses and distance](train-curves.png)\n\n![Samples](train-samples.png)"
    distances = _table(f"kimg | {last['metric']}", rows) if last else ""
    return "\n\n".join(["## Training", text, distances, pictures])
