"""`distgan doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from distgan.tracking.console import Terminal


def doctor(
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to examine; by default RAY_ADDRESS, or one started here.")
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="URL", help="Data set that every node reads a part of.")] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="Folder in which every node writes, reads and removes objects.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=2, max=4096, help="Workers of the all-reduces; by default one a node, two on a single node."),
    ] = None,
    json: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Also write JSON; `-` prints only JSON.")
    ] = None,
) -> None:
    """Examine a Ray cluster as a run would use it; print what is wrong and what to do about it.

    On every node: processors, GPUs, memory, versions, clock; whether and how fast it reads the data and uses the
    storage with its own credentials. Between nodes: connections, and all-reduces by gloo or NCCL. Takes one or two
    minutes.

    Exit code: 0 if no check fails (there may be warnings), 1 if a check fails, 2 if no diagnosis can be made.

    Example: `distgan doctor --address 10.0.0.1:6379 --data s3://bricks/64 --storage s3://runs`
    """
    from distgan.doctor.checks import run_checks
    from distgan.doctor.ray.diagnose import diagnose
    from distgan.doctor.report import diagnosis_document, diagnosis_table
    from distgan.inference.evaluation_report import check_json_path, write_document
    from distgan.tracking.jsonl import to_json

    if json not in {None, "-"}:
        check_json_path(str(json))
    console = Terminal(stderr=True, soft_wrap=True)

    def log(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    diagnosis = diagnose(address, data=data, storage=storage, workers=workers, log=log)
    findings = run_checks(diagnosis)
    document = diagnosis_document(diagnosis, findings)
    if json == "-":
        print(to_json(document, indent=1))
    else:
        Terminal().print(diagnosis_table(diagnosis, findings))
    if json not in {None, "-"}:
        write_document(document, str(json))
    raise typer.Exit(0 if document["ok"] else 1)
