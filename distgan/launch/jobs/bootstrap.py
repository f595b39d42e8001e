"""What a submitted job's processes do first on the cluster, before anything but Python's own library is imported."""

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
    """Of distgan, torch and Ray, without the suffix of a build such as +cu130, and Python's first two numbers.

    Nothing is imported for it.
    """
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {"distgan": __version__, "torch": _installed("torch"), "ray": _installed("ray"), "python": python}


def difference(expected: Mapping[str, str], there: str) -> str | None:
    """How this environment differs from the `expected` versions, in words for a user; None where it does not.

    `there` says where this environment is, as in "the cluster".
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
    """As a variable carries them."""
    return " ".join(f"{name}={value}" for name, value in found.items())


def from_text(text: str) -> dict[str, str]:
    """The reverse of `to_text`."""
    return dict(pair.split("=", 1) for pair in text.split() if "=" in pair)


def _installed(package: str) -> str:
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "none"


ENVIRONMENT_FILE = "distgan-environment.json"


def load_environment() -> None:
    """Takes over the variables that the job brought along, if any. Ray calls it in each of its processes."""
    for folder in sys.path:
        file = Path(folder) / ENVIRONMENT_FILE
        if file.is_file():
            os.environ.update(json.loads(file.read_text(encoding="utf-8")))
            distgan.reach_loopback_directly(os.environ)
            return


def bootstrap() -> None:
    """At the start of a submitted command: its variables, and whether it fits this place. Elsewhere nothing.

    Raises UserError where the versions here are others than where the command was submitted.
    """
    submitted_from = os.environ.get(SUBMITTED_FROM)
    if submitted_from is None:
        return
    load_environment()
    differs = difference(from_text(submitted_from), f"the cluster's head ({sys.executable})")
    if differs is not None:
        raise UserError(differs)
