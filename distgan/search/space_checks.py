"""Checks that every trial of a space is a valid configuration, before any trial starts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from random import Random
from typing import Any, TypeAlias

from distgan.config.config_errors import unknown_key
from distgan.config.describe import list_keys
from distgan.config.load import flatten
from distgan.config.resume_rules import mutable_keys, runtime_keys
from distgan.config.schema import Config
from distgan.errors import UserError
from distgan.search.expressions import (
    Condition,
    Distribution,
    Entry,
    Product,
    Value,
    arguments,
    is_number,
    same,
    value_text,
)
from distgan.search.space import Space

_MEASURED = "each trial would be measured in another way, and trials could not be compared"

_BUDGET = "trials with other budgets could not be compared"

_REASONS = {
    "description": "it is text, and changes nothing",
    "source": "it is text, and changes nothing",
    "preset": "it is text, and changes nothing",
    "seed": "the search would pick the luckiest draw",
    "image_size": _MEASURED,
    "channels": _MEASURED,
    "evaluation": _MEASURED,
    "data.resize": _MEASURED,
    "data.bad_samples": _MEASURED,
    "data.url": "trials on other data could not be compared",
    "data.held_out": "trials on other data could not be compared",
    "training.kimg": _BUDGET,
    "training.max_minutes": _BUDGET,
    "scale": "it says how a batch is spread, which is the same for all trials",
}


def unsearchable_reason(key: str) -> str | None:
    """The reason why a key cannot be searched; None where it can."""
    reason = _REASONS.get(key) or _REASONS.get(key.partition(".")[0])
    if reason is None and key in runtime_keys():
        return "it decides where or how fast a run trains, not what it trains"
    return reason


def suited(space: Space, check: Callable[[Space], None]) -> Space:
    """The entries of a preset's own space that `check` accepts, each by itself."""
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
    live = mutable_keys()
    for key in space.varying:
        entry = space.entries[key]
        where = f"{key}: `{entry.text:.100}`: cannot change during training, as population-based training requires"
        if key not in live:
            raise UserError(f"{where}: leave it out, or give it one value; {', '.join(live)} can")
        if live[key].switch and entry.can_have((0,)):
            raise UserError(f"{where}, from 0 to another weight or back: take weights above 0")


Load: TypeAlias = Callable[[list[str]], Config]

Point: TypeAlias = dict[str, Value]

# Combinations that are tried: of the draws that decide whether one is used, and of all draws.
_SETTINGS = 8

_CORNERS = 64

# How the configuration says that a key goes with another component than the one that is searched.
_OTHERS_OPTIONS = ("it is an option of", "not a key of")


def validated(space: Space, load: Load) -> Space:
    """The space, bound to the configuration that `load` builds with no overrides.

    `load` takes `KEY=VALUE` overrides, and raises UserError for what cannot work. It is called for the ends of each
    range and every choice, under the conditions that they come with, and for combinations of them: about a
    hundred times, so it should not fetch a file each time. Raises UserError with the key, its entry and what is
    wrong.
    """
    bound = replace(space, base=flatten(load([]).model_dump(mode="json")))
    _check(bound, load)
    return bound


def _check(space: Space, load: Load) -> None:
    """Raises UserError for an entry of a bound space that is invalid in some trial (see `validated`)."""
    known = {key.key for key in list_keys()} | space.base.keys()
    for key, entry in space.entries.items():
        _check_key(key, known)
        if isinstance(entry.expression, Product):
            _check_product(space, key, entry, entry.expression.key, known)
        if entry.condition is not None:
            _check_condition(space, key, entry, entry.condition, known)
    _check_configurations(space, load)


def _check_key(key: str, known: set[str]) -> None:
    _check_exists(key, key, known)
    reason = unsearchable_reason(key)
    if reason is not None:
        raise UserError(f"{key}: cannot be searched: {reason}; set it for all trials with {key}=VALUE")


def _check_exists(where: str, key: str, known: set[str]) -> None:
    if key in known:
        return
    if any(other.startswith(f"{key}.") for other in known):
        raise UserError(f"{where:.200}: {key:.80} is a section; name a key in it (`distgan keys {key:.80}` lists them)")
    raise UserError(f"{where:.200}: unknown key{f' {key:.80}' if where != key else ''}{unknown_key(key, known)}")


def _check_product(space: Space, key: str, entry: Entry, other: str, known: set[str]) -> None:
    where = f"{key}: `{entry.text:.100}`"
    _check_exists(where, other, known)
    if other in space.entries:
        return
    if other not in space.base:
        raise UserError(f"{where}: the configuration has no {other}; give it an entry or its value")
    if not is_number(space.base[other]):
        raise UserError(
            f"{where}: {other} is {value_text(_hashable(space.base[other])):.60} in the configuration, no number; "
            f"give it an entry or a number"
        )


def _check_condition(space: Space, key: str, entry: Entry, condition: Condition, known: set[str]) -> None:
    where = f"{key}: `{entry.text:.100}`"
    _check_exists(where, condition.key, known)
    other = space.entries.get(condition.key)
    own = space.base.get(condition.key)
    from_base = (other is None or other.condition is not None) and condition.key in space.base and condition.holds(own)
    if from_base or (other is not None and other.can_have(condition.values)):
        return
    if other is not None:
        raise UserError(
            f"{where}: never true: the entry of {condition.key} is `{other.text:.100}`; give one of its values"
        )
    has = (
        f"{condition.key} is {value_text(_hashable(own)):.60} in"
        if condition.key in space.base
        else f"there is no {condition.key} in"
    )
    raise UserError(
        f"{where}: never true: {has} the configuration, and it has no entry; leave {key} out, or give "
        f"{condition.key} an entry"
    )


def _check_configurations(space: Space, load: Load) -> None:
    """Builds the configuration of many draws, each once."""
    outside = {other for entry in space.entries.values() for other in entry.references} - space.entries.keys()
    tried: set[tuple[str, ...]] = set()
    for point in itertools.chain(_one_by_one(space), _corners(space)):
        overrides = space.overrides(point)
        given = arguments(overrides)
        if tuple(given) in tried:
            continue
        tried.add(tuple(given))
        try:
            config = load(given)
        except UserError as error:
            raise UserError(_explained(space, overrides, load, str(error))) from None
        _check_outside(space, flatten(config.model_dump(mode="json")), outside)


def _check_outside(space: Space, values: Mapping[str, Any], outside: set[str]) -> None:
    """Raises UserError where an entry refers to a key outside the space whose value differs between trials."""
    for key in sorted(outside & space.base.keys()):
        if key not in values or not same(values[key], space.base[key]):
            raise UserError(
                f"space: an entry refers to {key}, whose value is not the same in all trials; give it an "
                f"entry, or set it with {key}=VALUE"
            )


def _one_by_one(space: Space) -> Iterator[Point]:
    """Every probe of each draw, where the entry is used; the other draws are nearest to the configuration."""
    near = space.nearest(space.base)
    yield near
    for key, entry in space.entries.items():
        draw = {entry.free_name(key): entry.distribution.probes()} if entry.distribution else {}
        settings = (near | setting for setting in _combinations(_deciding(space, entry)))
        for setting in itertools.islice((point for point in settings if key in space.overrides(point)), _SETTINGS):
            for probe in _combinations(draw):
                yield setting | probe


def _deciding(space: Space, entry: Entry) -> dict[str, list[Value]]:
    """Values of the draws that decide whether an entry is used."""
    found: dict[str, list[Value]] = {}
    waiting = [entry.condition] if entry.condition else []
    while waiting:
        condition = waiting.pop()
        other = space.entries.get(condition.key)
        if other is None:
            continue
        if isinstance(other.expression, Distribution):
            asked = [value for value in condition.values if other.expression.contains(value)]
            found[condition.key] = [*asked, *other.expression.probes()]
        if other.condition is not None:
            waiting.append(other.condition)
    return found


def _corners(space: Space) -> Iterator[Point]:
    """Every combination of the probes of all draws, or some of them where they are many."""
    axes = {name: drawn.probes() for name, drawn in space.free.items()}
    if math.prod(map(len, axes.values())) <= _CORNERS:
        yield from _combinations(axes)
        return
    rng = Random(0)
    for _ in range(_CORNERS):
        yield {name: rng.choice(probes) for name, probes in axes.items()}


def _combinations(axes: Mapping[str, list[Value]]) -> Iterator[Point]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _explained(space: Space, overrides: Mapping[str, Any], load: Load, message: str) -> str:
    """The error message, after the entries that cause it; with a remedy for an option that some trials do not have."""
    left = dict(overrides)
    for key in overrides:
        without = {other: value for other, value in left.items() if other != key}
        if _message(load, without) == message:
            left = without
    entries = ", ".join(f"{key}: `{space.entries[key].text:.100}`" for key in left or overrides)
    chosen = next((key for key in left if key.endswith((".name", ".network"))), None)
    if chosen is not None and any(reason in message for reason in _OTHERS_OPTIONS):
        message = f"{message}; give the option a condition: `... if {chosen} == NAME`"
    return f"{entries}: {message}"


def _message(load: Load, overrides: Mapping[str, Any]) -> str:
    try:
        load(arguments(overrides))
    except UserError as error:
        return str(error)
    return ""


def _hashable(value: Any) -> Value:
    return tuple(value) if isinstance(value, list) else value
