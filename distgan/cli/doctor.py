"""`distgan doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from distgan.tracking.console import Terminal


def doctor(
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to examine; by default RAY_ADDRESS, or one started here.")
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="URL", help="Data set that every node is to read of.")] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="Folder that every node is to write, read and remove objects in.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=2, max=4096, help="Workers of the all-reduces; by default one a node, two on a single one."),
    ] = None,
    json: Annotated[
        str | None, typer.Option("--json", metavar="FILE|-", help="Also write JSON; `-` prints that and nothing else.")
    ] = None,
) -> None:
    """Examine a Ray cluster as a run would use it, and say what is wrong and what to do about it.

    Of every node: processors, GPUs, memory, versions, clock, whether it reads the data and uses the storage with its
    own credentials, and how fast; between nodes: connections, and all-reduces by gloo or NCCL. Takes a minute or two.

    Exit code: 0 where nothing fails (warnings may be there), 1 where a check fails, 2 where no diagnosis can be made.

    Example: `distgan doctor --address 10.0.0.1:6379 --data s3://bricks/64 --storage s3://runs`
    """
    from distgan.doctor.checks import judge
    from distgan.doctor.ray.diagnose import Questions, diagnose
    from distgan.doctor.report import diagnosis_document, diagnosis_table
    from distgan.inference.report import check_json_path, write_document
    from distgan.tracking.jsonl import to_json

    if json not in {None, "-"}:
        check_json_path(str(json))
    console = Terminal(stderr=True, soft_wrap=True)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    found = diagnose(Questions(data, storage, workers), address, say)
    findings = judge(found)
    document = diagnosis_document(found, findings)
    if json == "-":
        print(to_json(document, indent=1))
    else:
        Terminal().print(diagnosis_table(found, findings))
    if json not in {None, "-"}:
        write_document(document, str(json))
    raise typer.Exit(0 if document["ok"] else 1)
