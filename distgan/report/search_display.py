"""Placeholder until the real one is merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from distgan.search.record import SearchRecord


@dataclass(frozen=True)
class Progress:
    kimg: float
    images_per_second: float


class SearchDisplay:
    def __init__(self) -> None:
        self._last = ""

    def __enter__(self) -> SearchDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def message(self, text: str) -> None:
        print(text, flush=True)

    def update(self, record: SearchRecord, progress: Mapping[int, Progress]) -> None:
        text = " | ".join(f"{t.number} {t.state} {t.overrides} {t.curve}" for t in record.trials)
        if text != self._last:
            self._last = text
            print(text, flush=True)
