"""What was counted of the presets, kept in a JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.scale.run import Run, Update, in_memory


def save(path: Path, about: dict[str, Any], runs: Sequence[Run], decode_s: dict[str, float]) -> None:
    tree = {"about": about, "decode_s": decode_s, "runs": [asdict(run) for run in runs]}
    path.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Facts:
    """What `facts` has counted: runs by preset, and seconds to decode an image of each."""

    about: dict[str, Any]
    runs: dict[str, Run]
    decode_s: dict[str, float]

    def in_memory(self) -> dict[str, Run]:
        """The runs with `data.memory_mb` large enough."""
        return {name: in_memory(run) for name, run in self.runs.items()}

    @classmethod
    def load(cls, path: Path) -> Facts:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return cls(tree["about"], {row["name"]: run_from(row) for row in tree["runs"]}, tree["decode_s"])


def run_from(row: dict[str, Any]) -> Run:
    """The inverse of `asdict`."""
    updates: list[dict[str, Any]] = [
        {key: tuple(value) if isinstance(value, list) else value for key, value in update.items()}
        for update in row["updates"]
    ]
    return Run(**row | {"updates": tuple(Update(**update) for update in updates)})
