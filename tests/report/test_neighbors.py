"""The training images nearest to samples, on a report page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from command_line import Cli, one_line
from distgan.config.schema import DataConfig
from distgan.data.dataset import Dataset
from distgan.inference.memorization import find_nearest
from distgan.report.neighbors import rows_of
from distgan.storage.storage import Storage
from page_reader import PageReader
from run_folders import write_run
from runs import ALONE, pack_bricks, run, tiny_config

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]


def test_the_nearest_rows_come_first(tmp_path: Path) -> None:
    pack_bricks(tmp_path / "bricks", samples=60)
    dataset = Dataset.open(DataConfig(url=str(tmp_path / "bricks")), (1, 16, 16))
    noise = torch.randint(0, 256, (20, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    copy = torch.tensor(next(dataset.images(np.array([7])))[1])
    fakes = torch.cat([noise, copy[None]])
    found = rows_of(find_nearest(ALONE, dataset, None, fakes))
    assert len(found.rows) == 8
    assert found.measures == ["pixels: mean difference in gray levels"]
    sample, ((nearest, *others),) = found.rows[0]
    assert (sample.caption, nearest.caption, nearest.close) == ("sample 20", "0.000, no. 7", True)
    assert nearest.source == sample.source
    assert len(others) == 2
    assert not any(tile.close for _, (tiles,) in found.rows[1:] for tile in tiles)
    assert "Exact copies of a training image: 1 of 21 samples" in "".join(found.lines)
    with Image.open(io.BytesIO(base64.b64decode(sample.source.partition(";base64,")[2]))) as picture:
        assert picture.size == (64, 64)


@pytest.mark.slow
def test_a_run_has_rows(cli: Cli, tmp_path: Path) -> None:
    run(tiny_config("quickstart", pack_bricks(tmp_path / "bricks", samples=80), 2), str(tmp_path))
    url, out = str(tmp_path / "run"), tmp_path / "report.html"
    write_run(Storage.open(url))
    assert cli("report", url, "--out", str(out), "--memorization").code == 0
    page = PageReader.of(out.read_text())
    assert "64 samples against 80 training images" in page.text
    assert len([found for found in page.tags_of("img") if "src" in found]) == 8 * 7
    assert "leave out --watch" in one_line(cli("report", url, "--out", str(out), "--memorization", "--watch"))


def test_a_run_without_checkpoints_has_none(cli: Cli, tmp_path: Path) -> None:
    write_run(Storage.open(str(tmp_path / "toy")))
    message = one_line(cli("report", str(tmp_path / "toy"), "--out", str(tmp_path / "x.html"), "--memorization"))
    assert "checkpoint" in message
