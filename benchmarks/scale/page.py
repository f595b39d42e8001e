"""The tables and the picture of docs/project/scale.md, from the model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.scale.check import Row
from benchmarks.scale.facts import Facts
from benchmarks.scale.machine import Machine
from benchmarks.scale.machines import MACHINES
from benchmarks.scale.predict import predict
from benchmarks.scale.scaling import SCALINGS, limit

SHOWN = (1, 8, 64, 256, 1024)
Check = tuple[dict[str, Any], Sequence[Row]]


def write(docs: Path, facts: Facts, check: Check) -> None:
    """Renews what lies between the page's marks, and the picture."""
    page = docs / "project" / "scale.md"
    page.write_text(renewed(page.read_text(encoding="utf-8"), facts, check), encoding="utf-8")
    draw(docs / "scale.png", facts, check)


def renewed(text: str, facts: Facts, check: Check) -> str:
    """The page with today's tables between `<!-- NAME -->` and `<!-- end of NAME -->`."""
    for name, table in tables(facts, check).items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        assert pattern.search(text), f"the page has no place for {name}"
        text = pattern.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)  # type: ignore[misc]
    return text


def tables(facts: Facts, check: Check) -> dict[str, str]:
    """Markdown by name."""
    return {
        "facts": facts_table(facts),
        "strong": scaling_table(facts, "h100", "strong"),
        "weak": scaling_table(facts, "h100", "weak"),
        "weak-by-steps": scaling_table(facts, "h100", "weak-by-steps"),
        "machines": machines_table(facts),
        "check": check_table(check),
    }


def facts_table(facts: Facts) -> str:
    rows = []
    for name, run in facts.runs.items():
        sizes = run.all_reduces(gpu=True)
        step = [f"{run.flops / 1e9:.2f}", f"{run.operators:,.0f}", f"{len(sizes)}", f"{sum(sizes) / 1e6:.1f}"]
        stored = [f"{run.state_bytes / 1e6:.1f}", f"{run.image_bytes / 1e3:.1f}", f"{facts.decode_s[name] * 1e6:.0f}"]
        rows.append([f"`{name}`", f"{run.batch}", *step, *stored])
    heads = ["preset", "batch", "GFLOP an image", "operators a step, one group", "all-reduces a step"]
    heads += ["MB of them", "checkpoint MB", "kB an image", "µs to decode it"]
    return _markdown(heads, rows)


def machine_for(facts: Facts, preset: str, machine: str) -> Machine:
    return replace(MACHINES[machine], decode_s=facts.decode_s[preset])


def scaling_table(facts: Facts, machine: str, scaling: str) -> str:
    """Images a second and efficiency of all presets; where a half is left, and what costs it."""
    rows = []
    for name, run in facts.in_memory().items():
        on = machine_for(facts, name, machine)
        one = predict(run, on, 1)
        cells = [f"`{name}`"]
        for workers in SHOWN:
            if scaling == "strong" and workers > run.batch:
                cells.append("")
                continue
            found = predict(SCALINGS[scaling](run, workers), on, workers)
            cells.append(f"{found.rate:,.0f}" + ("" if workers == 1 else f" ({found.efficiency(one):.0%})"))
        reached = limit(run, on, scaling)
        rows.append([*cells, f"{reached.workers:,}", NAMES.get(reached.reason, reached.reason)])
    heads = ["preset", *(f"{workers:,}" for workers in SHOWN)]
    return _markdown([*heads, "half left at", "then"], rows)


NAMES = {"compute": "dispatch", "all_reduce": "all-reduce", "batch": "batch used up", "1,024": "scales on"}


def machines_table(facts: Facts, preset: str = "dcgan-bricks") -> str:
    """One preset on all machines."""
    run, rows = facts.in_memory()[preset], []
    for machine in MACHINES:
        on = machine_for(facts, preset, machine)
        for scaling in SCALINGS:
            one, reached = predict(run, on, 1), limit(run, on, scaling)
            cells = [on.name, scaling]
            for workers in (1, 8, 64):
                found = predict(SCALINGS[scaling](run, workers), on, workers)
                cells.append(f"{found.rate:,.0f}" + ("" if workers == 1 else f" ({found.efficiency(one):.0%})"))
            rows.append([*cells, f"{reached.workers:,}", NAMES.get(reached.reason, reached.reason)])
    return _markdown(["machine", "scaling", "1", "8", "64", "half left at", "then"], rows)


def check_table(check: Check) -> str:
    rows = []
    for row in check[1]:
        training, everything = row.errors
        first = [f"{row.predicted_training:,.0f}", f"{row.measured_training:,.0f}", f"{training:+.0%}"]
        second = [f"{row.predicted:,.0f}", f"{row.measured:,.0f}", f"{everything:+.0%}"]
        rows.append([f"`{row.preset}`", f"{row.workers}", *first, *second])
    heads = ["preset, made small", "workers", "training: predicted", "measured", "error"]
    return _markdown([*heads, "with everything: predicted", "measured", "error"], rows)


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def draw(path: Path, facts: Facts, check: Check) -> None:
    """Strong and weak scaling of all presets on H100, and the check."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 5.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    colors = dict(zip(facts.runs, _COLORS, strict=False))
    _draw_scaling(left, facts, "strong", colors)
    left.set_title("strong: the same batch (on paper)")
    _draw_scaling(middle, facts, "weak", colors)
    _draw_scaling(middle, facts, "weak-by-steps", colors, style=":")
    middle.set_title("weak: a batch on each (on paper)")
    middle.set_xlabel("H100s; dotted: an evaluation every so many steps")
    right.set_title("the check: two processor cores")
    _draw_check(right, check, colors)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)


_COLORS = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
    "#000000",
)  # fmt: skip


def _draw_scaling(axes: Any, facts: Facts, scaling: str, colors: dict[str, str], style: str = "-") -> None:
    for name, run in facts.in_memory().items():
        on = machine_for(facts, name, "h100")
        counts = [2**power for power in range(11) if scaling != "strong" or 2**power <= run.batch]
        rates = [predict(SCALINGS[scaling](run, workers), on, workers).rate for workers in counts]
        axes.plot(counts, rates, style, color=colors[name], label=name, linewidth=1.4 if style == "-" else 0.9)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([1, 8, 64, 256, 1024], labels=["1", "8", "64", "256", "1,024"])
    axes.set_xlabel("H100s")
    axes.set_ylabel("images a second")
    axes.grid(alpha=0.3, which="major")


def _draw_check(axes: Any, check: Check, colors: dict[str, str]) -> None:
    for preset in dict.fromkeys(row.preset for row in check[1]):
        rows = [row for row in check[1] if row.preset == preset]
        workers = [row.workers for row in rows]
        axes.plot(workers, [row.predicted for row in rows], "-", color=colors[preset])
        axes.plot(workers, [row.measured for row in rows], "o", color=colors[preset])
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set_xticks([1, 2, 4], labels=["1", "2", "4"])
    axes.set_xlabel("workers of one thread; lines predicted, dots measured")
    axes.set_ylabel("images a second, with everything")
    axes.grid(alpha=0.3)
