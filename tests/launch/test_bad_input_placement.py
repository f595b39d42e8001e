"""What a user may get wrong about where a run is to compute: one line, exit code 2, never a traceback."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from command_line import Cli, one_line
from toy_data import pack_numbered

pytestmark = pytest.mark.timeout(60)

T = "train quickstart --dry-run data.url={data} image_size=32 channels=1"

CASES = {
    "part of a CPU too many": f"{T} placement.cpus_per_worker=1.5",
    "no CPU": f"{T} placement.cpus_per_worker=0",
    "half GPUs above one": f"{T} placement.gpus_per_worker=2.25",
    "crumb of a GPU": f"{T} placement.gpus_per_worker=1e-3",
    "no number": f"{T} placement.gpus_per_worker=.inf",
    "no memory": f"{T} placement.memory_gb_per_worker=-1",
    "unknown strategy": f"{T} placement.strategy=spred",
    "unknown key": f"{T} placement.accelerator=H100",
    "key without its section": f"{T} accelerator_type=H100",
    "section of labels": f"{T} placement.labels.ray.io/market-type=spot",
    "one label": f"{T} placement.labels=spot",
    "label without a value": f"{T} placement.labels=[spot]",
    "comma not quoted": f"{T} placement.labels=[zone=in(a,b)]",
    "label twice": f"{T} placement.labels=[zone=a,zone=b]",
    "label's bad name": f"{T} placement.labels=[a/b/c=d]",
    "section of resources": f"{T} placement.resources_per_worker.fpga=1",
    "resource without amount": f"{T} placement.resources_per_worker=[fpga]",
    "negative amount": f"{T} placement.resources_per_worker=[fpga=-1]",
    "Ray's own resource": f"{T} placement.resources_per_worker=[GPU=1]",
    "resource twice": f"{T} placement.resources_per_worker=[a=1,a=2]",
    "empty interface": f"{T} placement.interface=",
    "placement searched": "tune quickstart data.url={data} --space placement.strategy=choice(pack,spread)",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 gray images of 32x32 pixels."""
    made = tmp_path_factory.mktemp("data") / "numbered"
    pack_numbered(made, 100, size=32)
    return made


@pytest.mark.parametrize("name", CASES)
def test_bad_placement_is_one_line(
    name: str, data: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, same_words: Callable[..., None]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    message = one_line(cli(*CASES[name].format(data=data).split()))
    assert re.search(r"placement\.\w+", message), message
    same_words(message)


def test_an_interface_that_is_not_there(data: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    line = f"train quickstart data.url={data} image_size=32 channels=1 --no-ray placement.interface=nic9"
    message = one_line(cli(*line.split()))
    assert re.search(r"^placement\.interface=nic9: is not there on .* which has .*127\.0\.0\.1", message), message
