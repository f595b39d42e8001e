"""The README's commands, as written, in miniature."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from processes import TINY, finish, our_processes, start, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(500)]

README = Path(__file__).parents[2] / "README.md"
KEYS = [key for key in TINY if not key.startswith("image_size")]


def commands() -> list[list[str]]:
    """The `distgan` commands of the walk-through, in their order."""
    text = README.read_text(encoding="utf-8")
    section = text.split("\n## A walk-through", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"```bash\n(.*?)```", section, flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith(("distgan ", "source "))]


def in_miniature(command: list[str]) -> list[str]:
    """The same command with few images and a small network."""
    if command[1:4] == ["data", "render", "bricks"]:
        return [*command[:-1], command[-1], "--samples", "256"]
    if command[1] == "train":
        return [*command, *KEYS]
    return ["130" if word == "50000" else word for word in command]


@pytest.mark.slow
def test_walk_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = our_processes()
    seen = []
    try:
        for command in commands():
            if command[0] == "source":
                for line in (tmp_path / command[1]).read_text().splitlines():
                    for word in shlex.split(line.removeprefix("export ")):
                        name, _, value = word.partition("=")
                        monkeypatch.setenv(name, value)
                continue
            process = start("-m", *in_miniature(command), cwd=tmp_path)
            output = finish(process)
            assert process.returncode == 0, f"{shlex.join(command)}\n{output}"
            seen.append(command[1])
    finally:
        finish(start("-m", "distgan", "store", "down", cwd=tmp_path))
    assert {"store", "data", "train", "sample", "presets"} <= set(seen)
    assert (tmp_path / "grid.png").stat().st_size > 0
    with np.load(tmp_path / "samples.npz", allow_pickle=False) as archive:
        assert archive["arr_0"].shape == (130, 32, 32, 1)
    wait_for(lambda: our_processes().keys() <= before.keys(), 20)
