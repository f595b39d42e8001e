"""Answers of actors, and why there are none, within a limit."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

K = TypeVar("K", bound=Hashable)
_MOST_CHARACTERS = 300


@dataclass(frozen=True)
class Silence:
    """There is no answer, and why."""

    reason: str


def answers(asked: Mapping[K, Any], seconds: float) -> dict[K, Any]:
    """What each call has returned, or a Silence where it fails or takes longer than `seconds`."""
    ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=seconds) if asked else ([], [])
    arrived = set(ready)
    return {key: _answer(call) if call in arrived else _late(seconds) for key, call in asked.items()}


def answer(call: Any, seconds: float) -> Any:
    """Of one call."""
    return answers({0: call}, seconds)[0]


def _late(seconds: float) -> Silence:
    return Silence(f"no answer within {seconds:.0f} s")


def _answer(call: Any) -> Any:
    try:
        return ray.get(call)
    except RayTaskError as error:
        return Silence(_line(error.cause if error.cause is not None else error))
    except RayError as error:
        return Silence(_line(error))


def _line(error: BaseException) -> str:
    """The last words of an error: Ray's carry the remote traceback before them."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no reason given'}"[:_MOST_CHARACTERS]
