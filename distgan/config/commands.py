"""Commands of distgan that it tells a user to run: what is printed works in a shell as it stands."""

from __future__ import annotations

import shlex


def command(*words: str) -> str:
    """The shell's line that runs `distgan` with these words, each of them exactly as it is."""
    return shlex.join(["distgan", *words])


def options(**given: str | None) -> list[str]:
    """The words of options with a value, as `storage="s3://runs"`; those that are None are left out."""
    words: list[str] = []
    for name, value in given.items():
        if value is not None:
            option = f"--{name.replace('_', '-')}"
            words += [f"{option}={value}"] if value.startswith("-") else [option, value]
    return words
