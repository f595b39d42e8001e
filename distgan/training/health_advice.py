"""Advice for each failure mode, in keys that the configuration has."""

from __future__ import annotations

from typing import Any

from distgan.config.config_errors import value_text
from distgan.config.load import flatten
from distgan.config.schema import Config
from distgan.training.health import Episode, FailureMode, HealthWarning

# Which way to change which key: Foster, Generative Deep Learning, 2nd ed., ch. 4.
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

_MORE_IMAGES = (
    ("set", "training.augment"),
    ("set", "training.augment_target"),
    ("raise", "discriminator.dropout"),
    ("raise", "objective.r1_weight"),
    ("lower", "discriminator.width"),
    ("lower", "optimizer.discriminator.lr"),
)

_BOUND_GRADIENTS = (("set", "optimizer.generator.max_grad_norm"), ("set", "optimizer.discriminator.max_grad_norm"))

_CHANGES: dict[FailureMode, tuple[tuple[str, str], ...]] = {
    "discriminator overpowers": _WEAKER_DISCRIMINATOR,
    "mode collapse": (*_LOWER_RATES, ("raise", "training.batch_size"), *_STRONGER_DISCRIMINATOR),
    "dead generator": _LOWER_RATES,
    "diverged": (*_LOWER_RATES, *_BOUND_GRADIENTS),
    "discriminator overfits": _MORE_IMAGES,
}


def warning(mode: FailureMode, episode: Episode, config: Config) -> HealthWarning:
    """The event, and the summary's entry, of a failure mode."""
    until_kimg = None if episode.until is None else episode.until / 1000
    return HealthWarning(
        step=episode.step,
        kimg=episode.images / 1000,
        state=mode,
        seen=episode.seen,
        remedy=advice(mode, config),
        times=episode.times,
        until_kimg=until_kimg,
    )


def advice(mode: FailureMode, config: Config) -> str:
    """What to change in a new run: keys that the configuration has, with their current values."""
    values = flatten(config.model_dump(mode="json"), whole_schedules=True)
    changes = [
        f"{direction} {key} (now {_shown(values[key])})"
        for direction, key in _CHANGES[mode]
        if _can_change(direction, key, values)
    ]
    return f"in a new run: {', '.join(changes)}"


def _can_change(direction: str, key: str, values: dict[str, Any]) -> bool:
    """Whether the configuration has the key and it can be changed that way: 0 is not lowered, a set one not set."""
    if key not in values:
        return False
    return values[key] in (None, []) if direction == "set" else direction == "raise" or bool(values[key])


def _shown(value: Any) -> str:
    return "none" if value is None else value_text(value)
