"""Property tests of inputs: the same examples every time, and a user's error is one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hypothesis import HealthCheck, settings

from distgan.errors import UserError

T = TypeVar("T")


def fuzz(examples: int) -> Callable[[T], T]:
    """The same examples every time, so that a change is what fails a test."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def user_result(action: Callable[[], T]) -> T | None:
    """The action's result, None where it raised a `UserError` of one line; any other exception is a bug."""
    try:
        return action()
    except UserError as error:
        message = str(error)
    assert message
    assert "\n" not in message
    return None
