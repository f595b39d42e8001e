"""What a run's warnings say: a state of ill health, and what helps, in the keys that the configuration has."""

from __future__ import annotations

from typing import Any

from distgan.config.load import flatten
from distgan.config.schema import Config
from distgan.training.health import Episode, FailureMode, HealthWarning

# Foster, Generative Deep Learning, 2nd ed., ch. 4: key and which way to move it.
_WEAKER_DISCRIMINATOR = (
    ("raise", "discriminator.dropout"),
    ("lower", "optimizer.discriminator.lr"),
    ("lower", "discriminator.width"),
    ("raise", "objective.label_noise"),
    ("raise", "objective.label_flips"),
)

_STRONGER_DISCRIMINATOR = (
    ("lower", "discriminator.dropout"),
    ("raise", "discriminator.width"),
    ("lower", "objective.label_noise"),
    ("lower", "objective.label_flips"),
)

_LOWER_RATES = (("lower", "optimizer.generator.lr"), ("lower", "optimizer.discriminator.lr"))

_BOUND_GRADIENTS = (("set", "optimizer.generator.max_grad_norm"), ("set", "optimizer.discriminator.max_grad_norm"))

_CHANGES: dict[FailureMode, tuple[tuple[str, str], ...]] = {
    "discriminator overpowers": _WEAKER_DISCRIMINATOR,
    "mode collapse": (*_LOWER_RATES, ("raise", "training.batch_size"), *_STRONGER_DISCRIMINATOR),
    "dead generator": _LOWER_RATES,
    "diverged": (*_LOWER_RATES, *_BOUND_GRADIENTS),
}


def warning(state: FailureMode, spell: Episode, config: Config) -> HealthWarning:
    """The event and the summary's entry of a state that a run is in, or was."""
    until_kimg = None if spell.until is None else spell.until / 1000
    seen, helps = spell.seen, remedy(state, config)
    return HealthWarning(spell.step, spell.images / 1000, state, seen, helps, spell.times, until_kimg)


def remedy(state: FailureMode, config: Config) -> str:
    """What to change in a new run, each key with its value now; only keys that this configuration has."""
    values = flatten(config.model_dump(mode="json"))
    changes = [f"{way} {key} (now {_told(values[key])})" for way, key in _CHANGES[state] if _possible(way, key, values)]
    return f"in a new run: {', '.join(changes)}"


def _possible(way: str, key: str, values: dict[str, Any]) -> bool:
    """Whether the key is there and can be moved that way: what is 0 is not lowered, what is set is not set."""
    if key not in values:
        return False
    return values[key] is None if way == "set" else way == "raise" or bool(values[key])


def _told(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, int | float) else str(value)
