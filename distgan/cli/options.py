"""Options of several commands."""

from __future__ import annotations

import re
from typing import Annotated

import typer

_WORKERS = re.compile(r"([0-9]{1,4})(?::([0-9]{1,4}))?")


def worker_overrides(workers: str | None) -> list[str]:
    """The overrides for `--workers`: a number, or LOW:HIGH."""
    if workers is None:
        return []
    found = _WORKERS.fullmatch(workers)
    if found is None:
        words = f"{workers!r:.40} is no number, as 4, and not LOW:HIGH, as 1:8"
        raise typer.BadParameter(words, param_hint="--workers")
    low, high = found.groups()
    if high is not None and not 1 <= int(low) <= int(high):
        raise typer.BadParameter(f"{workers!r}: LOW is at least 1 and at most HIGH, as in 1:8", param_hint="--workers")
    return [f"scale.workers={int(high or low)}", f"scale.min_workers={'null' if high is None else int(low)}"]


WorkerCount = Annotated[int, typer.Option(min=1, max=4096, help="Worker processes; several run on Ray.")]

Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster, as HOST:PORT. Several workers use RAY_ADDRESS or a local cluster by default."),
]

NoRay = Annotated[bool, typer.Option("--no-ray", help="Work in this process or the processes of torchrun.")]

Extractor = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Feature extractor: fd_lite0, fid, fid_clean, fd_dinov2, fd_dinov2_b14, fd_dinov2_s14 or module:Class. "
        "By default the run's, or fd_lite0.",
    ),
]

RealSamples = Annotated[
    int | None, typer.Option(min=4, help="Largest number of real images, drawn by seed. By default the run's, or all.")
]

CheckpointName = Annotated[
    str | None,
    typer.Option(metavar="NAME|best|last", help="Checkpoint of a run, as step-000004250. By default the best."),
]

TrustCode = Annotated[bool, typer.Option("--trust-code", help="Run code outside distgan that the checkpoint names.")]

TrustAddresses = Annotated[
    bool,
    typer.Option(
        "--trust-addresses", help="Read data, statistics and weights from other hosts that the checkpoint names."
    ),
]

JobsAddress = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="The cluster's dashboard, as http://10.0.0.1:8265. By default RAY_API_SERVER_ADDRESS."
    ),
]

ClusterName = Annotated[
    str | None, typer.Option(metavar="NAME", help="Profile in clusters.toml. By default DISTGAN_CLUSTER.")
]
