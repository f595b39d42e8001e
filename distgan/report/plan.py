"""What a job will do, as text."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from distgan.report import words
from distgan.training.job import Plan


def print_plan(plan: Plan, device: str, console: Console) -> None:
    """Prints the networks and the run's arithmetic; `device` says where its workers compute."""
    for name, rows in plan.layers.items():
        table = Table(title=f"{name}: {plan.parameters[name]:,} parameters", title_justify="left")
        table.add_column("layer")
        table.add_column("output")
        table.add_column("parameters", justify="right")
        for layer, shape, parameters in rows:
            table.add_row(layer, shape, f"{parameters:,}" if parameters else "")
        console.print(table)
    table = Table(title="plan", title_justify="left", show_header=False)
    for key, value in _arithmetic(plan, device):
        table.add_row(key, value)
    console.print(table)
    if plan.few_images is not None:
        console.print(f"warning: {words.few_images(plan.few_images)}", highlight=False, markup=False)


def _arithmetic(plan: Plan, device: str) -> list[tuple[str, str]]:
    config = plan.job.config
    batch, groups, streams = config.training.batch_size, config.scale.groups, config.data.streams
    workers = config.scale.workers
    shares = [groups * (rank + 1) // workers - groups * rank // workers for rank in range(workers)]
    rows = [
        ("budget", f"{config.training.kimg:g} kimg: {plan.steps:,} steps of {config.objective.critic_steps} x {batch}"),
        (
            "batch",
            f"{batch} images: {groups} groups of {batch // groups}, {batch // streams} from each of {streams} streams",
        ),
        ("workers", f"{workers}"),
        ("device", device),
        ("groups a worker", _range(shares)),
        ("images a worker", _range([share * batch // groups for share in shares])),
        ("streams a worker", _range([share * streams // groups for share in shares])),
        ("run", plan.job.run.url),
        ("goes on from", _beginning(plan)),
    ]
    if config.num_classes is not None:
        rows.append(("labels", f"{config.num_classes} classes"))
    if plan.index is not None:
        epochs = config.training.kimg * 1000 / len(plan.index)
        rows.append(("data", f"{len(plan.index):,} images at {config.data.url}: {epochs:.1f} epochs"))
    return rows


def _beginning(plan: Plan) -> str:
    job = plan.job
    if plan.resumes is not None:
        of = "" if job.continue_from is None else f"; its run began from the whole state of {job.continue_from}"
        return f"{plan.resumes.kimg:g} kimg{of}"
    return "the beginning" if job.init_from is None else f"the weights of {job.init_from}"


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"
