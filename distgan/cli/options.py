"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

WorkerCount = Annotated[
    int, typer.Option(min=1, max=4096, help="Processes that share the work, on Ray if more than one.")
]

Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster to work on; by default, with several workers, RAY_ADDRESS or one started here."),
]

NoRay = Annotated[bool, typer.Option("--no-ray", help="In this process or the processes of torchrun.")]

Extractor = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="fd_lite0, fid, fid_clean, or module:Class; by default the run's, or fd_lite0."),
]

RealSamples = Annotated[
    int | None, typer.Option(min=4, help="Real images at most, drawn by seed; by default the run's number, or all.")
]

CheckpointName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|best|last", help="Which of a run's checkpoints, as step-000004250; by default the best."
    ),
]

TrustCode = Annotated[
    bool, typer.Option("--trust-code", help="Run code of the modules outside distgan that the checkpoint names.")
]

TrustAddresses = Annotated[
    bool,
    typer.Option("--trust-addresses", help="Read data, statistics and weights from hosts that the checkpoint names."),
]

JobsAddress = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="Of the cluster's dashboard, as http://10.0.0.1:8265; by default RAY_API_SERVER_ADDRESS."
    ),
]

ClusterName = Annotated[
    str | None, typer.Option(metavar="NAME", help="A profile of clusters.toml; by default DISTGAN_CLUSTER.")
]
