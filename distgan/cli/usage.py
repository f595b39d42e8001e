"""A command line that cannot be parsed, as one line."""

from __future__ import annotations

from typing import Any

import typer

from distgan.config.suggest import did_you_mean

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
