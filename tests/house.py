"""Prints what CONTRIBUTING promises about the package's layout: `.venv/bin/python tests/house.py`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "distgan"
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

from distgan.cli.main import main  # noqa: E402
from distgan.config import load  # noqa: E402
from distgan.losses import wgan_gp  # noqa: E402
from processes import TINY  # noqa: E402
from runs import pack_bricks  # noqa: E402


def print_files() -> None:
    """Files and lines of each folder, and names that stand twice."""
    lines = {path: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    lines = {path: count for path, count in lines.items() if count}
    folders = Counter(path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in lines)
    names = Counter(path.name for path in lines if path.name != "__init__.py")
    short, long = sum(count < 40 for count in lines.values()), sum(count > 300 for count in lines.values())
    mean = sum(lines.values()) / len(lines)
    print(f"{len(lines)} files that are not empty, {mean:.0f} lines on average, {short} under 40, {long} over 300")
    print("  " + ", ".join(f"{folder} {count}" for folder, count in folders.most_common()))
    print("file names that stand twice:", ", ".join(sorted(name for name in names if names[name] > 1)) or "none")


def print_way_of_a_key() -> None:
    """Through which files `objective.gp_weight` comes from the command line to the penalty."""
    ways: dict[str, list[str]] = {}
    calls: Counter[str] = Counter()

    def noting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            calls[name] += 1
            frames = [Path(frame.filename) for frame in traceback.extract_stack()[:-1]]
            files = [str(path.relative_to(PACKAGE)) for path in frames if path.is_relative_to(PACKAGE)]
            ways.setdefault(name, list(dict.fromkeys(files)))
            return function(*arguments, **options)

        return call

    objective = wgan_gp.WassersteinGradientPenalty
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(load, "build_config", noting("validated", load.build_config)),
        patch.object(objective, "__init__", noting("built", objective.__init__)),
        patch.object(wgan_gp, "gradient_penalty", noting("used", wgan_gp.gradient_penalty)),
    ):
        data = pack_bricks(Path(folder) / "bricks")
        command = [
            "train",
            "wgan-gp-faces",
            f"data.url={data}",
            *TINY,
            "training.kimg=0.1",
            "objective.gp_weight=5",
            "channels=1",
        ]
        with patch.object(sys, "argv", ["distgan", *command, "--no-ray", "--storage", folder]):
            try:
                main()
            except SystemExit as end:
                if end.code:
                    raise
    print(f"objective.gp_weight: validated {calls['validated']} times, its objective built {calls['built']} times")
    for name, files in ways.items():
        print(f"  {name}, {len(files)} files: {' → '.join(files)}")
    print(f"  together {len({file for files in ways.values() for file in files})} files")


if __name__ == "__main__":
    subprocess.run([str(Path(sys.executable).with_name("lint-imports"))], cwd=ROOT, check=False)
    print_files()
    print_way_of_a_key()
