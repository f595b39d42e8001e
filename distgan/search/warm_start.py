"""What an earlier search found, for the draws of another."""

from __future__ import annotations

from distgan.config.load import flatten
from distgan.errors import UserError
from distgan.search.plan import Plan
from distgan.search.record import require_record
from distgan.search.space import Space
from distgan.search.trials import Trial
from distgan.search.values import close


def known_trials(plan: Plan, space: Space) -> list[Trial]:
    """Ended trials of the plan's `warm_start` that a draw of the space could have been; none without one.

    Raises UserError where that is no search, it was measured by something else or on other data, or none of its trials
    is in the space.
    """
    if plan.warm_start is None:
        return []
    earlier = require_record(plan.warm_start)
    if earlier.plan.metric != plan.metric:
        raise UserError(
            f"--warm-start {plan.warm_start}: it was measured by {earlier.plan.metric}, and this search is by "
            f"{plan.metric}; ask for the same --metric and evaluation.samples"
        )
    if earlier.plan.data_hash != plan.data_hash:
        raise UserError(f"--warm-start {plan.warm_start}: it was a search on other data; leave it out")
    shared = flatten(earlier.plan.config)
    found = []
    for trial in earlier.trials:
        if not trial.ended or trial.repeats is not None:
            continue
        values = {**shared, **trial.overrides}
        draw = space.nearest(values)
        resolved = space.overrides(draw)
        if all(key in values and close(value, values[key]) for key, value in resolved.items()):
            found.append(trial.model_copy(update={"draw": draw}))
    if not found:
        raise UserError(
            f"--warm-start {plan.warm_start}: none of its {len(earlier.trials)} trials is in this space; leave it out, "
            f"or widen the ranges"
        )
    return found
