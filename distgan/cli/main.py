"""The command line: parse, call one function, print.

Nothing heavy is imported before a command needs it, so that help comes at once.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from distgan import __version__
from distgan.cli import config_info, data, doctor, evaluate, jobs, sample, store, submit, train, tune
from distgan.cli.streams import exit_code, protect_streams
from distgan.errors import Interrupted, UserError
from distgan.launch.print_once import print_once
from distgan.launch.signals import end_on_signals
from distgan.text import did_you_mean, printable, without_credentials

# What the parser raises. Some versions of typer bring click's classes along, others take those of the package click.
UsageError: Any = typer.BadParameter.__base__


_WORDS = {". Did you mean": "; did you mean", "Value error, ": "", "Input should": "it should"}


def shows_help(error: Any) -> bool:
    """Whether it is no mistake: a group of commands without a command has shown its help."""
    return type(error).__name__ == "NoArgsIsHelpError"


def usage_line(error: Any) -> str:
    """What is wrong, the nearest option where one is unknown, and where the help is."""
    option = getattr(error, "option_name", None)
    if type(error).__name__ == "NoSuchOption" and error.ctx is not None:
        options = [name for parameter in error.ctx.command.get_params(error.ctx) for name in parameter.opts]
        longs = [name for name in options if name.startswith("--")]
        message = f"no such option: {option!r:.60}{did_you_mean(str(option), longs)}"
    else:
        message = " ".join(error.format_message().split()).rstrip(".")
        for words, ours in _WORDS.items():
            message = message.replace(words, ours)
        message = f"{message[:1].lower()}{message[1:]}"
    command = "distgan" if error.ctx is None else error.ctx.command_path
    return f"{message}{' ' if message.endswith('?') else '; '}see `{command} --help`"


# Typer lists groups of commands after commands.
_ORDER = ("data", "train", "sample", "evaluate", "tune", "presets", "keys", "submit", "jobs", "doctor", "store")


class _Commands(TyperGroup):
    """The commands in the order in which they are needed; one that a signal stopped exits with the signal's code."""

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
app.command(rich_help_panel=_TRAINING)(tune.tune)
app.add_typer(config_info.app, name="presets", rich_help_panel=_CONFIGURATION)
app.command(rich_help_panel=_CONFIGURATION)(config_info.keys)
app.command(rich_help_panel=_CLUSTERS)(submit.submit)
app.add_typer(jobs.app, name="jobs", rich_help_panel=_CLUSTERS)
app.command(rich_help_panel=_CLUSTERS)(doctor.doctor)
app.add_typer(store.app, name="store", rich_help_panel=_CLUSTERS)


def main() -> None:
    """Runs the command line: exit code 2 and one line for a user's mistake, 128 and its number for a signal."""
    end_on_signals()
    protect_streams()
    logging.getLogger("distgan").addHandler(_warnings)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # its folder of caches is a convenience too
    os.environ["MPLBACKEND"] = "agg"  # pictures go to files; a notebook names a backend that only its kernel has
    sys.exit(exit_code(_run()))


class _Warnings(logging.Handler):
    """Shows what a command goes on without."""

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
    """Raises UserError where it was deleted: torch, Ray and relative paths need one."""
    try:
        Path.cwd()
    except OSError as error:
        raise UserError(f"the working folder cannot be used: {error.strerror}; cd to one that is there") from None


if __name__ == "__main__":
    main()
