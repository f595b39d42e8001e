"""`distgan submit`: runs a command as a job of a Ray cluster."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from distgan.cli.options import ClusterName, JobsAddress
from distgan.errors import UserError
from distgan.text import command as line_of
from distgan.text import plural

if TYPE_CHECKING:
    from distgan.launch.jobs.command import ShippedFolder


class SubmitCommand(TyperCommand):
    """Says where the `--` belongs that a user has left out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            # The parser's class, which some versions of typer contain and others import.
            if type(error).__name__ == "NoSuchOption":
                self._check_separator(given, str(getattr(error, "option_name", "")))
            raise

    def _check_separator(self, words: list[str], option: str) -> None:
        """Raises UserError where the unknown option stands after the word of a command."""
        from distgan.launch.jobs.command import COMMANDS

        takes_value = {name: not getattr(one, "is_flag", True) for one in self.params for name in one.opts}
        own: list[str] = []
        command: list[str] = []
        left = iter(words)
        for word in left:
            name, has_value, _ = word.partition("=")
            if name == option and not command:
                return
            if name in takes_value:
                own += [word, *islice(left, int(takes_value[name] and not has_value))]
            elif command or word in COMMANDS:
                command.append(word)
            else:
                return
        line = line_of("submit", *own, "--", *command)
        raise UserError(f"{option:.60} is no option of submit; put -- before {command[0]}: `{line}`")


def submit(
    context: typer.Context,
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="-- COMMAND",
            help="train, tune, evaluate, data … or doctor, with its arguments.",
        ),
    ],
    address: JobsAddress = None,
    cluster: ClusterName = None,
    env_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="NAME=VALUE lines for this job alone: credentials, keys of trackers."),
    ] = None,
    pip: Annotated[
        list[str] | None,
        typer.Option(metavar="REQUIREMENT", help="Package to install for the job; may be given several times."),
    ] = None,
    working_dir: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder with your own code and YAML files, in which the job runs."),
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the job's id and return.")] = False,
) -> None:
    """Run a command of distgan as a job of a remote cluster, and print its output.

    distgan's own code is shipped with it. Ctrl-C asks whether to stop the job or leave it running. The exit code is
    the command's.

    Example: `distgan submit --cluster lab -- train quickstart data.url=s3://bricks --workers 8 --storage s3://runs`
    """
    from distgan.launch.jobs.command import ShippedFolder, check_arguments, check_paths
    from distgan.launch.jobs.packaging import files_of, read_env_file
    from distgan.launch.jobs.profiles import find_cluster, is_plaintext

    check_arguments(command)
    there = find_cluster(address, cluster)
    folder, env_file = working_dir or there.working_dir, env_file or there.env_file
    requirements = _checked_requirements([*there.pip, *(pip or [])])
    variables = {} if env_file is None else read_env_file(env_file)
    secret = [path for path in (env_file, there.token_file) if path is not None]
    shipped = ShippedFolder() if folder is None else ShippedFolder(folder, frozenset(files_of(folder, secret)))
    check_paths(_parameters(context.find_root().command, command), shipped, Path.cwd())
    if there.token is not None and is_plaintext(there.address):
        print(
            f"distgan: warning: the token is sent to {there.address} over plain http, which others may read; use "
            f"https, or ssh -L 8265:localhost:8265 HEAD and --address http://localhost:8265",
            file=sys.stderr,
        )
    from distgan.launch.jobs.client import Jobs

    jobs = Jobs(there)
    job = jobs.submit(
        command, variables=variables, folder=folder, files=sorted(shipped.files), pip=requirements
    )  # fmt: skip
    print(f"job {job} on {there.address}{_shipped_text(shipped)}", flush=True)
    if no_wait:
        print(f"follow it: {line_of('jobs', 'logs', '-f', *there.named, job)}")
        return
    from distgan.cli.jobs import follow_job

    raise typer.Exit(follow_job(jobs, job))


def _parameters(group: Any, arguments: list[str]) -> dict[str, Any]:
    """The parameters that a command line sets; raises what the command line itself would."""
    context = group.make_context("distgan", list(arguments))
    while hasattr(context.command, "resolve_command"):
        # Where the parser keeps a group's command, and the words after it.
        name, found, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
        context = found.make_context(name, rest, parent=context)
    given = {
        name: value
        for name, value in context.params.items()
        if (source := context.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"
    }
    if given.get("from_trial") is not None and "config" in given:
        given["overrides"] = [given.pop("config"), *given.get("overrides", [])]
    if arguments[0] in {"train", "tune"} and not given.get("dry_run") and not given.get("results"):
        given["storage"] = context.params["storage"]
    if given.get("nearest"):
        given["picture"] = context.params["picture"]
    return given


def _checked_requirements(requirements: list[str]) -> list[str]:
    from distgan.text import without_credentials

    for one in requirements:
        if not one.strip() or one.startswith("-") or "\n" in one:
            raise UserError(f"--pip {one!r:.80}: write a requirement, as in wandb or wandb==0.19")
        if without_credentials(one) != one:
            raise UserError("--pip: no passwords in a URL: everyone on the cluster could read them")
    return requirements


def _shipped_text(shipped: ShippedFolder) -> str:
    return "" if shipped.folder is None else f", with {plural(len(shipped.files), 'file')} of {shipped.folder}"
