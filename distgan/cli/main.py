"""The command line: parse, call one function, print. torch and Ray are imported by the commands that need them."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from distgan import __version__
from distgan.cli import (
    config_info,
    data,
    doctor,
    evaluate,
    export,
    jobs,
    push,
    report,
    runs,
    sample,
    store,
    submit,
    train,
    tune,
)
from distgan.cli.streams import exit_code, protect_streams
from distgan.errors import Interrupted, UserError
from distgan.launch.print_once import print_once
from distgan.launch.signals import end_on_signals
from distgan.text import did_you_mean, printable, without_credentials

# What the parser raises: click's class, which some versions of typer contain and others import.
UsageError: Any = typer.BadParameter.__base__


_REPLACED = {". Did you mean": "; did you mean", "Value error, ": "", "Input should": "it should"}


def shows_help(error: Any) -> bool:
    """Whether a group without a command has shown its help, which is no error of the user."""
    return type(error).__name__ == "NoArgsIsHelpError"


def usage_line(error: Any) -> str:
    """One line for an error of the parser, with the nearest option and the command that shows the help."""
    option = getattr(error, "option_name", None)
    if type(error).__name__ == "NoSuchOption" and error.ctx is not None:
        options = [name for parameter in error.ctx.command.get_params(error.ctx) for name in parameter.opts]
        longs = [name for name in options if name.startswith("--")]
        message = f"no such option: {option!r:.60}{did_you_mean(str(option), longs)}"
    else:
        message = " ".join(error.format_message().split()).rstrip(".")
        for theirs, ours in _REPLACED.items():
            message = message.replace(theirs, ours)
        message = f"{message[:1].lower()}{message[1:]}"
    command = "distgan" if error.ctx is None else error.ctx.command_path
    return f"{message}{' ' if message.endswith('?') else '; '}see `{command} --help`"


# Typer lists groups of commands after commands.
_ORDER = (
    "data",
    "train",
    "sample",
    "evaluate",
    "export",
    "push",
    "report",
    "runs",
    "tune",
    "presets",
    "keys",
    "submit",
    "jobs",
    "doctor",
    "store",
)


class _Commands(TyperGroup):
    """Lists commands in the order of use. A command that a signal stopped exits with the code of the signal."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_ORDER)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Interrupted as stopped:
            raise typer.Exit(stopped.exit_code) from None


app = typer.Typer(
    name="distgan",
    cls=_Commands,
    help="Train GANs on one machine or many: shards from object storage, Ray Train, runs that resume to the bit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

_TRAINING, _CONFIGURATION, _CLUSTERS = "Data, training, results", "Configuration", "Clusters and storage"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"distgan {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.add_typer(data.app, name="data", rich_help_panel=_TRAINING)
app.command(rich_help_panel=_TRAINING)(train.train)
app.command(rich_help_panel=_TRAINING)(sample.sample)
app.command(rich_help_panel=_TRAINING)(evaluate.evaluate)
app.command(rich_help_panel=_TRAINING)(export.export)
app.command(rich_help_panel=_TRAINING)(push.push)
app.command(rich_help_panel=_TRAINING)(report.report)
app.add_typer(runs.app, name="runs", rich_help_panel=_TRAINING)
app.command(rich_help_panel=_TRAINING)(tune.tune)
app.add_typer(config_info.app, name="presets", rich_help_panel=_CONFIGURATION)
app.command(rich_help_panel=_CONFIGURATION)(config_info.keys)
app.command(cls=submit.SubmitCommand, rich_help_panel=_CLUSTERS)(submit.submit)
app.add_typer(jobs.app, name="jobs", rich_help_panel=_CLUSTERS)
app.command(rich_help_panel=_CLUSTERS)(doctor.doctor)
app.add_typer(store.app, name="store", rich_help_panel=_CLUSTERS)


def main() -> None:
    """Runs the command line. Exit code 2 and one line for a user error, 128 + its number for a signal."""
    end_on_signals()
    protect_streams()
    logging.getLogger("distgan").addHandler(_warnings)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of a cache folder that it cannot write
    os.environ["MPLBACKEND"] = "agg"  # figures go to files; a notebook's backend exists only in its kernel
    sys.exit(exit_code(_run()))


class _Warnings(logging.Handler):
    """Prints the package's warnings to standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"distgan: warning: {printable(without_credentials(record.getMessage()))}", file=sys.stderr, flush=True)


_warnings = _Warnings()


def _run() -> int:
    try:
        _check_working_folder()
        return app(prog_name=app.info.name, standalone_mode=False) or 0
    except UserError as error:
        message = str(error)
    except UsageError as error:
        if shows_help(error):
            return 2
        message = usage_line(error)
    print_once(message)
    return 2


def _check_working_folder() -> None:
    """Raises UserError if the working folder was deleted: torch, Ray and relative paths need it."""
    try:
        Path.cwd()
    except OSError as error:
        raise UserError(f"the working folder cannot be used: {error.strerror}; change to another folder") from None


if __name__ == "__main__":
    main()
