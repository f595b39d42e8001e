"""What a process keeps from one run for the next one on the same data."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """A value that takes long to make. It is made anew for another key, after the former one is gone."""

    def __init__(self) -> None:
        self._found: tuple[Hashable, T] | None = None

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key: the kept one, or what `make` returns."""
        if self._found is None or self._found[0] != key:
            self._found = None
            self._found = key, make()
        return self._found[1]
