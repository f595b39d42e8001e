"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

WorkerCount = Annotated[int, typer.Option(min=1, max=4096, help="Number of workers; more than one run on Ray.")]

Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster; by default, with several workers, RAY_ADDRESS or one started on this machine."),
]

NoRay = Annotated[bool, typer.Option("--no-ray", help="Run in this process, or in the processes of torchrun.")]

Extractor = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Extractor: fd_lite0, fid, fid_clean, or module:Class; by default the run's, or fd_lite0."
    ),
]

RealSamples = Annotated[
    int | None, typer.Option(min=4, help="Most real images, drawn by seed; by default the run's number, or all.")
]

CheckpointName = Annotated[
    str | None,
    typer.Option(metavar="NAME|best|last", help="Checkpoint of a run, such as step-000004250; by default the best."),
]

TrustCode = Annotated[
    bool, typer.Option("--trust-code", help="Run code of modules outside distgan that the checkpoint names.")
]

TrustAddresses = Annotated[
    bool,
    typer.Option("--trust-addresses", help="Read data, statistics and weights from hosts that the checkpoint names."),
]

JobsAddress = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Dashboard of the cluster, such as http://10.0.0.1:8265; by default RAY_API_SERVER_ADDRESS."
    ),
]

ClusterName = Annotated[
    str | None, typer.Option(metavar="NAME", help="Profile in clusters.toml; by default DISTGAN_CLUSTER.")
]
