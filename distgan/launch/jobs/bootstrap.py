"""The first steps of a submitted job's processes, with Python's standard library alone."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import distgan
from distgan import __version__
from distgan.errors import UserError

SUBMITTED_FROM = "DISTGAN_SUBMITTED_FROM"


def versions() -> dict[str, str]:
    """The versions of distgan, torch and Ray without build suffixes such as +cu130, and Python's major.minor.

    Imports none of them.
    """
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {"distgan": __version__, "torch": _installed("torch"), "ray": _installed("ray"), "python": python}


def difference(expected: Mapping[str, str], there: str) -> str | None:
    """How this environment's versions differ from the `expected` ones, as text; None where they do not.

    `there` names this environment, as in "the cluster".
    """
    found = versions()
    differing = [
        f"{name} {found.get(name, 'none')} against {wanted}"
        for name, wanted in expected.items()
        if found.get(name) != wanted
    ]
    if not differing:
        return None
    return (
        f"{there} has other versions than the place where this was started: {', '.join(differing)}; "
        f"install the same on both"
    )


def to_text(found: Mapping[str, str]) -> str:
    """The versions as the value of a variable."""
    return " ".join(f"{name}={value}" for name, value in found.items())


def from_text(text: str) -> dict[str, str]:
    """The inverse of `to_text`."""
    return dict(pair.split("=", 1) for pair in text.split() if "=" in pair)


def _installed(package: str) -> str:
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "none"


ENVIRONMENT_FILE = "distgan-environment.json"


def load_environment() -> None:
    """Sets the variables that were shipped with the job, if any. Ray calls it in each of the job's processes."""
    for folder in sys.path:
        file = Path(folder) / ENVIRONMENT_FILE
        if file.is_file():
            os.environ.update(json.loads(file.read_text(encoding="utf-8")))
            distgan.reach_loopback_directly(os.environ)
            return


def bootstrap() -> None:
    """At the start of a submitted command: sets its variables and checks versions. Elsewhere it does nothing.

    Raises UserError where versions differ from those of the machine that submitted the command.
    """
    submitted_from = os.environ.get(SUBMITTED_FROM)
    if submitted_from is None:
        return
    load_environment()
    differs = difference(from_text(submitted_from), f"the cluster's head ({sys.executable})")
    if differs is not None:
        raise UserError(differs)
