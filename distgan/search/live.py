"""Keys that can change while a run goes on, as population-based training asks for."""

from __future__ import annotations

from distgan.errors import UserError
from distgan.search.space import Space

LIVE_KEYS = (
    "optimizer.generator.lr",
    "optimizer.discriminator.lr",
    "objective.critic_steps",
    "objective.gp_weight",
    "objective.r1_weight",
)


def check_live(space: Space) -> None:
    """Raises UserError for a space in which a draw changes a key that is built into a run when it starts.

    An R1 penalty is, by a weight above 0; the weight itself may change.
    """
    for key in space.varying:
        entry = space.entries[key]
        where = f"{key}: `{entry.text:.100}`: cannot change while a run goes on, as population-based training does"
        if key not in LIVE_KEYS:
            raise UserError(f"{where}: leave it out, or give it one value; {', '.join(LIVE_KEYS)} can")
        if key == "objective.r1_weight" and entry.can_have((0,)):
            raise UserError(f"{where}, from 0 to another weight or back: take weights above 0")
