"""A space for each preset, so that it can be searched with nothing else."""

from __future__ import annotations

from importlib import resources

from distgan.config.allowed import either
from distgan.errors import UserError
from distgan.search.files import parse_file

_SPACES = resources.files("distgan.search") / "spaces"


def default_names() -> list[str]:
    """Names of the presets that have a space, sorted."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _SPACES.iterdir() if entry.name.endswith(".yaml"))


def default_entries(preset: str) -> dict[str, str]:
    """The entries of a preset's own space, for `Space.parse`. Raises UserError for what is no preset."""
    if preset not in default_names():
        raise UserError(
            f"{preset:.200}: only presets have a space of their own ({either(default_names())}); give one, as "
            f"optimizer.generator.lr=loguniform(1e-5, 1e-3) or a file"
        )
    return parse_file((_SPACES / f"{preset}.yaml").read_text(encoding="utf-8"), f"the space of {preset}")
