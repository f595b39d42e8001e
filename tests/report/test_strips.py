"""Images between latents on a report page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from command_line import Cli, one_line
from conditional import NETWORKS
from distgan.config.load import load_config
from distgan.storage.storage import Storage
from page_reader import PageReader
from run_folders import write_run
from runs import TINY, pack_bricks, run, tiny_config
from toy_data import pack_numbered

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]


def check_strip(cli: Cli, url: str, *options: str) -> None:
    out = Path(url).with_name("report.html")
    assert cli("report", url, "--out", str(out), "--interpolate", *options).code == 0
    (strip,) = [found for found in PageReader.of(out.read_text()).tags_of("img") if "src" in found]
    kind, _, data = str(strip["src"]).partition(";base64,")
    assert kind == "data:image/png"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.size == (9 * 66 + 2, 5 * 66 + 2)


@pytest.mark.slow
def test_a_run_has_strips(cli: Cli, tmp_path: Path) -> None:
    run(tiny_config("quickstart", pack_bricks(tmp_path / "bricks", samples=80), 2), str(tmp_path))
    write_run(Storage.open(str(tmp_path / "run")))
    check_strip(cli, str(tmp_path / "run"))


def test_a_conditional_run_of_other_networks_has_strips_if_trusted(cli: Cli, tmp_path: Path) -> None:
    pack_numbered(tmp_path / "data", 100)
    overrides = ["num_classes=3", f"data.url={tmp_path / 'data'}", "training.kimg=0.016", *NETWORKS]
    tiny = [key for key in TINY if "width" not in key]
    run(load_config("quickstart", [*tiny, "evaluation.real_samples=null", *overrides]), str(tmp_path))
    url = str(tmp_path / "run")
    write_run(Storage.open(url))
    message = one_line(cli("report", url, "--out", str(tmp_path / "x.html"), "--interpolate"))
    assert message.endswith("add --trust-code")
    check_strip(cli, url, "--trust-code")


def test_a_run_without_checkpoints_has_none(cli: Cli, tmp_path: Path) -> None:
    write_run(Storage.open(str(tmp_path / "toy")))
    message = one_line(cli("report", str(tmp_path / "toy"), "--out", str(tmp_path / "x.html"), "--interpolate"))
    assert "checkpoint" in message
