"""What a submitted job's processes do first on the cluster, before anything but Python's own library is imported."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import distgan
from distgan.errors import UserError
from distgan.submission.versions import SUBMITTED_FROM, difference, from_text

ENVIRONMENT_FILE = "distgan-environment.json"


def load_environment() -> None:
    """Takes over the variables that the job brought along, if any. Ray calls it in each of its processes."""
    for folder in sys.path:
        file = Path(folder) / ENVIRONMENT_FILE
        if file.is_file():
            os.environ.update(json.loads(file.read_text(encoding="utf-8")))
            distgan.reach_loopback_directly(os.environ)
            return


def arrive() -> None:
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
