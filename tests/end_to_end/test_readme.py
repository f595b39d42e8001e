"""The README's commands on images of one's own and its Python code, as written, in miniature."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from processes import TINY, finish, our_processes, start, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]

README = Path(__file__).parents[2] / "README.md"
KEYS = [key for key in TINY if not key.startswith("image_size")]


def block(language: str) -> str:
    """The code of that language in the section on images of one's own."""
    section = README.read_text(encoding="utf-8").split("\n## Your own images", 1)[1].split("\n## ", 1)[0]
    (found,) = re.findall(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)
    return str(found)


def test_images_of_ones_own(tmp_path: Path) -> None:
    before = our_processes()
    random = np.random.default_rng(0)
    for number in range(160):
        picture = tmp_path / "photos" / ("cats" if number % 2 else "dogs") / f"{number}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(picture)
    commands = [shlex.split(line) for line in block("bash").splitlines()]
    assert [command[1] for command in commands] == ["data", "train", "sample", "evaluate", "report", "export"]
    for command in commands:
        process = start("-m", *command, *(KEYS if command[1] == "train" else []), cwd=tmp_path)
        output = finish(process)
        assert process.returncode == 0, f"{shlex.join(command)}\n{output}"
    with Image.open(tmp_path / "grid.png") as grid:
        assert min(grid.size) > 8 * 32
    wait_for(lambda: our_processes().keys() <= before.keys(), 20)

    code = block("python").replace('"quickstart", ', f'"quickstart", {KEYS!r}, ')
    code += "\nassert distgan.load_generator(run.url).sample(64, seed=0).images.shape == (64, 32, 32, 3)\n"
    (tmp_path / "script.py").write_text(code)
    process = start("script.py", cwd=tmp_path)
    output = finish(process)
    assert process.returncode == 0, output
