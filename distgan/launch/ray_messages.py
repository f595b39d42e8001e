"""What Ray itself tells a driver, of a lost node above all: one line a matter, not the end of its log."""

from __future__ import annotations

from typing import Any

import ray._private.worker as ray_worker

_LONGEST = 300
_print = ray_worker.print_to_stdstream


def shorten_ray_messages() -> None:
    """From now on, in this process."""
    ray_worker.print_to_stdstream = _print_shortened


def _print_shortened(data: dict[str, Any], ignore_prefix: bool = False) -> None:
    """In the place of Ray's function, which is given `lines` of some process, `pid`."""
    if data.get("pid") == "raylet":
        data = data | {"lines": [_first_line(message) for message in data["lines"]]}
    _print(data, ignore_prefix)


def _first_line(message: str) -> str:
    line = next((line.strip() for line in message.splitlines() if line.strip()), "")
    line = line.partition(" Possible reasons include")[0].partition(" This can happen when")[0]
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
