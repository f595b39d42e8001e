"""`distgan store`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="A real S3 server on this machine (SeaweedFS), for laptops, demos and tests.", no_args_is_help=True
)

Directory = Annotated[Path, typer.Option("--dir", help="Folder of its data, credentials and log.")]

_DEFAULT = Path(".distgan/store")


@app.command()
def up(
    directory: Directory = _DEFAULT,
    port: Annotated[int | None, typer.Option(help="S3 port; a free one by default.")] = None,
    host: Annotated[
        str | None, typer.Option(help="Address of this machine that S3 listens on; by default 127.0.0.1.")
    ] = None,
    bucket: Annotated[list[str] | None, typer.Option(help="Bucket to make if it is missing; repeatable.")] = None,
) -> None:
    """Start the server, unless it runs; `source DIR/env.sh` sets its address and credentials in a shell."""
    from distgan.storage.s3_server.server import make_buckets
    from distgan.storage.s3_server.server import up as start

    handle = start(directory, port, host=host)
    make_buckets(handle, bucket or [])
    print(f"S3 at {handle.endpoint} (pid {handle.pid}), data in {handle.directory}")
    print(f"to use it: source {shlex.quote(str(directory / 'env.sh'))}")


@app.command()
def down(directory: Directory = _DEFAULT) -> None:
    """Stop the server. Its data stays."""
    from distgan.storage.s3_server.server import down as stop

    print("stopped" if stop(directory) else "was not running")


@app.command()
def status(directory: Directory = _DEFAULT) -> None:
    """Print whether the server runs, and where."""
    from distgan.storage.s3_server.server import status as ask

    handle = ask(directory)
    print(f"S3 at {handle.endpoint} (pid {handle.pid}), data in {handle.directory}" if handle else "not running")
