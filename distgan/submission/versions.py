"""What must be the same where a job is submitted from and where it runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from distgan import __version__

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
