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

from distgan import __version__
from distgan.cli import config_info, data, doctor, evaluate, jobs, store, submit, tune
from distgan.cli.options import CheckpointName, TrustCode
from distgan.cli.streams import exit_code, protect_streams
from distgan.errors import UserError
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


app = typer.Typer(
    name="distgan",
    help="Train GANs on one machine or many: shards from object storage, Ray Train, runs that resume to the bit.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

app.add_typer(data.app, name="data")

app.add_typer(config_info.app, name="presets")

app.add_typer(store.app, name="store")

app.add_typer(jobs.app, name="jobs")

app.command()(config_info.keys)

app.command()(evaluate.evaluate)

app.command()(tune.tune)

app.command()(submit.submit)

app.command()(doctor.doctor)


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


@app.command()
def train(
    config: Annotated[
        str | None,
        typer.Argument(metavar="PRESET_OR_FILE", help="Preset, or YAML file or its URL."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Keys, such as optimizer.generator.lr=1e-4.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="DDP workers; sets scale.workers.")] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster; by default RAY_ADDRESS, or one started on this machine.")
    ] = None,
    storage: Annotated[str, typer.Option(help="Folder or URL (s3://…) of the runs.")] = "runs",
    name: Annotated[
        str | None, typer.Option(help="Run name; by default the preset's. An existing run is resumed.")
    ] = None,
    no_ray: Annotated[
        bool, typer.Option("--no-ray", help="Train without Ray, in this process or the processes of torchrun.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the whole configuration as YAML, and the plan to stderr, and end."),
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Profile some steps: a trace, and a table of where their time goes.")
    ] = False,
    init_from: Annotated[
        str | None,
        typer.Option(
            metavar="RUN_OR_CHECKPOINT",
            help="Start a new run with the weights of both networks and their average from there.",
        ),
    ] = None,
    continue_from: Annotated[
        str | None,
        typer.Option(
            metavar="RUN_OR_CHECKPOINT",
            help="Start a new run with the whole state from there (of a run its last) and new settings.",
        ),
    ] = None,
    from_trial: Annotated[
        str | None,
        typer.Option(
            metavar="SEARCH",
            help="In place of a preset: start a new run with the configuration and best state of a search's winner.",
        ),
    ] = None,
) -> None:
    """Train a GAN, or resume a run that was stopped.

    The run's folder STORAGE/NAME gets checkpoints, config.yaml, metrics.jsonl, TensorBoard events, sample grids,
    curves.png and summary.json. Ctrl-C saves the state and ends the run; the same command resumes it. A higher
    training.kimg extends a run that has ended; after a plateau, a higher evaluation.patience (or null) does.
    `distgan keys` lists the keys for KEY=VALUE. The config.yaml of a run, or what --dry-run prints, is a FILE that
    starts the same run again.

    Example: `distgan train quickstart data.url=s3://bricks --workers 2 --storage s3://runs --name first`
    """
    from distgan.cli.train import run_training

    if config is None and from_trial is None:
        raise typer.BadParameter("name a preset or a file, or --from-trial SEARCH", param_hint="PRESET_OR_FILE")
    raise typer.Exit(
        run_training(
            config, overrides or [], workers=workers, address=address, storage=storage, name=name,
            no_ray=no_ray, dry_run=dry_run, profile=profile, init_from=init_from, continue_from=continue_from,
            from_trial=from_trial,
        )
    )  # fmt: skip


@app.command()
def sample(
    source: Annotated[str, typer.Argument(metavar="RUN_OR_CHECKPOINT", help="Folder or URL of either.")],
    count: Annotated[int, typer.Option(min=1, max=10_000_000, help="How many; in a grid at most 65,536.")] = 64,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Draws the latents.")] = 0,
    out: Annotated[
        str,
        typer.Option(
            metavar="FILE|FOLDER/",
            help="x.png: one grid. x/: a PNG each. x.npy, x.npz: an array uint8 (N, H, W, C), in x.npz as arr_0, "
            "with the labels as arr_1.",
        ),
    ] = "grid.png",
    checkpoint: CheckpointName = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|INDEX|all",
            help="Of a conditional generator: the label of all samples, or a column of the same latents for each.",
        ),
    ] = None,
    trust_code: TrustCode = False,
) -> None:
    """Draw samples from a run's best checkpoint, or from another one, on the CPU.

    Sample i is the same for every --count and in every kind of file.

    Example: `distgan sample s3://runs/first --count 50000 --out samples.npz`
    """
    from distgan.cli.sample import run_sampling

    run_sampling(source, count, seed, out, label, checkpoint, trust_code=trust_code)


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
