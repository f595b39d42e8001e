"""What a user may get wrong about where a run is to compute: one line, exit code 2, never a traceback."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from command_line import Cli, one_line
from toy_data import pack_numbered

pytestmark = pytest.mark.timeout(60)

T = "train quickstart --dry-run data.url={data} image_size=32 channels=1"

CASES = [
    ("part of a CPU too many", f"{T} placement.cpus_per_worker=1.5", r"placement\.cpus_per_worker: 1\.5: .* 1 or 2"),
    ("no CPU", f"{T} placement.cpus_per_worker=0", r"cpus_per_worker=0: allowed: number at least 0\.01, or null"),
    ("half GPUs above one", f"{T} placement.gpus_per_worker=2.25", r"gpus_per_worker: 2\.25: .*ask for 2 or 3"),
    ("crumb of a GPU", f"{T} placement.gpus_per_worker=1e-3", r"gpus_per_worker: 0\.001: give at least 0\.01, or 0"),
    ("no number", f"{T} placement.gpus_per_worker=.inf", r"gpus_per_worker=inf: allowed: number at least 0"),
    ("no memory", f"{T} placement.memory_gb_per_worker=-1", r"memory_gb_per_worker=-1: allowed: number above 0"),
    ("unknown strategy", f"{T} placement.strategy=spred", r"strategy='spred': allowed: pack, spread, strict_pack or"),
    ("unknown key", f"{T} placement.accelerator=H100", r"unknown key; did you mean 'placement\.accelerator_type'"),
    ("key without its section", f"{T} accelerator_type=H100", r"did you mean 'placement\.accelerator_type'"),
    ("section of labels", f"{T} placement.labels.ray.io/market-type=spot", r"labels: write a list of NAME=VALUE"),
    ("one label", f"{T} placement.labels=spot", r"labels='spot': allowed: list, each text"),
    ("label without a value", f"{T} placement.labels=[spot]", r"'spot': write KEY=SELECTOR, as in ray\.io/market"),
    ("comma not quoted", f"{T} placement.labels=[zone=in(a,b)]", r"'in\(a': no selector; .*quote it, for its commas"),
    ("label twice", f"{T} placement.labels=[zone=a,zone=b]", r"zone: given twice; write zone=in\(A,B\)"),
    ("label's bad name", f"{T} placement.labels=[a/b/c=d]", r"'a/b/c=d': write KEY=SELECTOR"),
    ("section of resources", f"{T} placement.resources_per_worker.fpga=1", r"write a list .* as in \[fpga=1\]"),
    ("resource without amount", f"{T} placement.resources_per_worker=[fpga]", r"'fpga': write NAME=AMOUNT"),
    ("negative amount", f"{T} placement.resources_per_worker=[fpga=-1]", r"fpga=-1: the amount is a number above 0"),
    ("Ray's own resource", f"{T} placement.resources_per_worker=[GPU=1]", r"set placement\.gpus_per_worker"),
    ("resource twice", f"{T} placement.resources_per_worker=[a=1,a=2]", r"a: given twice"),
    ("empty interface", f"{T} placement.interface=", r"interface='': string should have at least 1 character"),
    ("no such interface", "train quickstart data.url={data} image_size=32 channels=1 --no-ray placement.interface=nic9",
     r"^placement\.interface=nic9: is not there on .* which has .*127\.0\.0\.1"),
    ("placement searched", "tune quickstart data.url={data} --space placement.strategy=choice(pack,spread)",
     r"placement\.strategy: cannot be searched: it decides where or how fast a run trains"),
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 gray images of 32x32 pixels."""
    made = tmp_path_factory.mktemp("data") / "numbered"
    pack_numbered(made, 100, size=32)
    return made


@pytest.mark.parametrize(("line", "message"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_bad_placement_is_one_line(
    line: str, message: str, data: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    told = one_line(cli(*line.format(data=data).split()))
    assert re.search(message, told), told
