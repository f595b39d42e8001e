"""The nearest valid name, for error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

_LISTED_CHARACTERS = 150


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the nearest of `known`, or as many choices as fit into a line when none is near."""
    choices = sorted(known)
    near = difflib.get_close_matches(name[:100], choices, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are: {_listed(choices)}" if choices else ""


def _listed(choices: Sequence[str]) -> str:
    shown = list(choices)
    while len(shown) > 1 and len(", ".join(shown)) > _LISTED_CHARACTERS:
        shown.pop()
    left = len(choices) - len(shown)
    return ", ".join(shown) + (f" and {left} more" if left else "")
