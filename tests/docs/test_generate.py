"""Pages of the documentation that are made from the code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from distgan.config.load import preset_names
from doc_blocks import ROOT

sys.path.insert(0, str(ROOT / "docs"))

import generate

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("generated")
    generate.generate(folder)
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_every_command_has_a_section(pages: dict[str, str]) -> None:
    headings = [line for line in pages["commands.md"].splitlines() if line.startswith("## ")]
    assert headings[:2] == ["## distgan data pack", "## distgan data index"]
    assert {"## distgan train", "## distgan tune", "## distgan jobs stop", "## distgan store up"} <= set(headings)
    assert "| `--fit` | `stretch or crop or pad` | `stretch` |" in pages["commands.md"]
    assert "| `--trials` | `INTEGER, 1 to 10000` | `10` |" in pages["commands.md"]
    assert "| `--address` | `URL` |" in pages["commands.md"]


def test_usage_and_options_can_be_copied(pages: dict[str, str]) -> None:
    lines = pages["commands.md"].splitlines()
    assert "distgan train [OPTIONS] [PRESET_OR_FILE] [KEY=VALUE]..." in lines
    assert "distgan submit [OPTIONS] -- COMMAND..." in lines
    words = [line for line in lines if "SOURCE by " in line]
    assert words == ["SOURCE by `--format`:"]
    assert "Example: `distgan sample s3://runs/first --count 50000 --out samples.npz`" in lines


def test_every_key_says_whether_it_may_change(pages: dict[str, str]) -> None:
    rows = {line.split("`")[1]: line for line in pages["keys.md"].splitlines() if line.startswith("| `")}
    assert "| resume |" in rows["training.kimg"]
    assert "| branch |" in rows["optimizer.generator.lr"]
    assert "|  |" in rows["training.batch_size"]
    assert "(of `bce`)" in rows["objective.label_noise"]


def test_every_preset_has_a_section(pages: dict[str, str]) -> None:
    assert [line.removeprefix("## ") for line in pages["presets.md"].splitlines() if line.startswith("## ")] == list(
        preset_names()
    )


def test_links_of_included_files_start_at_the_page() -> None:
    text = "[a](SECURITY.md#reporting), [b](cluster/README.md), [c](https://x.example), "
    text += "[d](#here), [e](cluster), [f](LICENSE)"
    assert generate.relocated(text, "CHANGELOG.md", "docs/project/changelog.md") == (
        "[a](../../docs/project/security.md#reporting), [b](../../docs/guides/clusters/index.md), "
        "[c](https://x.example), [d](#here), e, [f](../../LICENSE)"
    )


@pytest.mark.parametrize(
    ("page", "count"),
    [
        ('<a href="https://x.example">x</a> <script src="_static/a.js"></script>', 0),
        ('<script src="https://x.example/a.js"></script>', 1),
        ('<link rel="stylesheet" href="//x.example/a.css">', 1),
        ("body { background: url(https://x.example/a.png) }", 1),
    ],
)
def test_requests_to_other_hosts_are_found(page: str, count: int, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(page)
    assert len(generate.foreign_requests(tmp_path)) == count
