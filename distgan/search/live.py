"""A space whose draws can change while a run goes on, as population-based training changes them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from distgan.config.compare import live_keys
from distgan.errors import UserError
from distgan.search.space import Space


def suited(space: Space, check: Callable[[Space], None]) -> Space:
    """Those entries of a preset's own space that `check` lets pass, each by itself."""
    kept = {}
    for key, entry in space.entries.items():
        with suppress(UserError):
            check(Space({key: entry}))
            kept[key] = entry
    return Space(kept)


def check_live(space: Space) -> None:
    """Raises UserError for a space in which a draw changes a key that is built into a run when it starts.

    An R1 penalty is, by a weight above 0; the weight itself may change.
    """
    live = live_keys()
    for key in space.varying:
        entry = space.entries[key]
        where = f"{key}: `{entry.text:.100}`: cannot change while a run goes on, as population-based training does"
        if key not in live:
            raise UserError(f"{where}: leave it out, or give it one value; {', '.join(live)} can")
        if live[key].switch and entry.can_have((0,)):
            raise UserError(f"{where}, from 0 to another weight or back: take weights above 0")
