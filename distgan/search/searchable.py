"""Which keys of the configuration a search may not touch, and why."""

from __future__ import annotations

from distgan.config.compare import free_keys

_MEASURED = "the distance of each trial would be measured in another way, and trials could not be compared"
_BUDGET = "trials with other budgets could not be compared"
_REASONS = {
    "description": "it is words, and changes nothing",
    "source": "it is words, and changes nothing",
    "seed": "the search would pick the luckiest draw",
    "image_size": _MEASURED,
    "channels": _MEASURED,
    "evaluation": _MEASURED,
    "data.resize": _MEASURED,
    "data.bad_samples": _MEASURED,
    "data.url": "trials on other data could not be compared",
    "training.kimg": _BUDGET,
    "training.max_minutes": _BUDGET,
    "scale": "it says how a batch is spread, which is the same for all trials",
}


def why_not(key: str) -> str | None:
    """Why a key cannot be searched; None where it can."""
    reason = _REASONS.get(key) or _REASONS.get(key.partition(".")[0])
    if reason is None and key in free_keys():
        return "it says where or how fast a run goes, and changes nothing of what is trained"
    return reason
