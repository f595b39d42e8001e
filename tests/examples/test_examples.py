"""The examples of the Python API: the scripts and every cell of the notebook run."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from processes import TINY, finish, start
from runs import pack_bricks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """Executes a notebook's cell; returns the value of its last line, where that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("one_thread")
def test_the_notebook_runs_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = json.loads((EXAMPLES / "tour.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            shown.append(run_cell("".join(cell["source"]), names))
    (picture,) = [value._repr_png_() for value in shown if hasattr(value, "_repr_png_")]
    assert picture.startswith(b"\x89PNG")
    assert len(shown[-1]) == 3
    assert len(names["samples"]) == 64
    assert "ray" not in sys.modules or names["run"].summary.workers == 1


def test_the_training_script(tmp_path: Path) -> None:
    process = start(str(EXAMPLES / "train.py"), "--data", pack_bricks(tmp_path / "bricks"), *TINY, cwd=tmp_path)
    output = finish(process, 300)
    assert process.returncode == 0, output
    assert "first: budget after 2.0" in output
    assert "fd_lite0" in output


@pytest.mark.ray
def test_the_search_script(tmp_path: Path) -> None:
    data = pack_bricks(tmp_path / "bricks")
    process = start(str(EXAMPLES / "tune.py"), "--data", data, "--trials", "2", *TINY, cwd=tmp_path)
    output = finish(process, 350)
    assert process.returncode == 0, output
    assert output.count("trial ") >= 2
    assert (tmp_path / "runs" / "best" / "summary.json").exists()
