"""The example that judges a conditional run by a classifier: on shades of gray that a made-up generator paints."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from distgan.data.pack import PackOptions, pack
from distgan.data.sources.base import Source
from distgan.storage.storage import Storage
from runs import run, tiny_config

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("one_thread")]

EXAMPLES = Path(__file__).parents[2] / "examples"
SHADES = ["dark", "gray", "light"]
CRITIC = "discriminator={network: conditional:Critic}"


@dataclass(frozen=True)
class Shades(Source):
    """Noisy images of one shade each, the classes in turn, but only one image of the last with `rare`."""

    classes: list[str]
    count: int = 900
    rare: bool = False

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        label = number % (2 if self.rare and number else 3)
        label = 2 if self.rare and not number else label
        noise = np.random.default_rng(number).integers(-20, 20, (16, 16, 1))
        return (noise + 30 + 100 * label).clip(0, 255).astype(np.uint8), label


class Painter(nn.Module):
    """Paints the shade that is asked for; a careless one, light for gray and dark for light."""

    def __init__(self, *, image_size: int, latent_dim: int, num_classes: int, careless: bool = False) -> None:
        super().__init__()
        self.size, self.careless = image_size, careless
        self.grain = nn.Linear(latent_dim, image_size**2)

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        painted = torch.tensor([0, 2, 0] if self.careless else [0, 1, 2])[labels]
        shades = ((30 + 100 * painted) / 127.5 - 1)[:, None]
        return (shades + 0.1 * self.grain(latents).tanh()).view(-1, 1, self.size, self.size)


def packed(folder: Path, source: Shades) -> str:
    pack(source, Storage.open(str(folder)), PackOptions(16, 1, processes=1))
    return str(folder)


@pytest.fixture(scope="module")
def shades(tmp_path_factory: pytest.TempPathFactory) -> str:
    return packed(tmp_path_factory.mktemp("shades"), Shades(SHADES))


@pytest.fixture(scope="module")
def runs(shades: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one step: of painters who obey and who do not, of the source's networks, and without labels."""
    folder = tmp_path_factory.mktemp("runs")
    for name, options in (("obeying", ""), ("careless", ", careless: true")):
        painter = f"generator={{network: test_label_agreement:Painter{options}}}"
        run(tiny_config("quickstart", shades, 1, "num_classes=3", painter, CRITIC), str(folder), name)
    run(tiny_config("cgan-fashion", shades, 1, "num_classes=3"), str(folder), "cgan")
    run(tiny_config("quickstart", shades, 1), str(folder), "unconditional")
    return folder


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The script's, with arguments of any kind."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv("COLUMNS", "120")
    script = importlib.import_module("label_agreement")
    return lambda *arguments: script.main([str(argument) for argument in arguments])


@pytest.mark.slow
def test_samples_of_the_label_that_was_asked_for(
    runs: Path, shades: str, main: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found: dict[str, Any] = {}
    for name in ("obeying", "careless"):
        file = tmp_path / f"{name}.json"
        assert main(runs / name, "--data", shades, "--samples", 60, "--json", file, "--trust-code") == 0
        found[name] = json.loads(file.read_text())
        assert [one["label"] for one in found[name]["classes"]] == SHADES
        assert [one["real"] for one in found[name]["classes"]] == [1, 1, 1]
    judged = {name: [(one["samples"], one["mistaken_for"]) for one in each["classes"]] for name, each in found.items()}
    assert judged["obeying"] == [(1, None)] * 3
    assert judged["careless"] == [(1, None), (0, "light"), (0, "dark")]
    assert (found["obeying"]["samples"], found["careless"]["samples"]) == (1, pytest.approx(1 / 3))
    printed = capsys.readouterr().out
    assert "33.3%" in printed
    assert all(shade in printed for shade in SHADES)


def test_every_label_equally_often_and_the_same_figures_again(
    runs: Path, shades: str, main: Callable[..., int], tmp_path: Path
) -> None:
    for name in ("once", "again"):
        assert main(runs / "cgan", "--data", shades, "--samples", 14, "--seed", 7, "--json", tmp_path / name) == 0
    assert (tmp_path / "once").read_bytes() == (tmp_path / "again").read_bytes()
    for one in json.loads((tmp_path / "once").read_text())["classes"]:
        assert one["samples"] * 4 == round(one["samples"] * 4)


def test_mistakes_are_one_line(
    runs: Path, shades: str, main: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = packed(tmp_path / "other", Shades(["black", "gray", "white"], 6))
    rare = packed(tmp_path / "rare", Shades(SHADES, 90, rare=True))
    cgan = runs / "cgan"
    for arguments, message in (
        ((runs / "unconditional", "--data", shades), "its generator takes no labels; give a run with num_classes"),
        ((cgan, "--data", other), "its classes are not those of"),
        ((cgan, "--data", rare), "too few images of class 'light' to judge by"),
        ((cgan, "--data", tmp_path), "not a data set but a folder with a data set in it; give"),
        ((tmp_path, "--data", shades), "no checkpoints there"),
        ((cgan, "--data", shades, "--samples", 0), "--samples is from 1 to 65536"),
        ((cgan, "--data", shades, "--seed", -1), "--seed from 0"),
        ((cgan, "--data", shades, "--samples", 3, "--json", tmp_path), "cannot be written: Is a directory"),
        ((runs / "obeying", "--data", shades), "add --trust-code"),
    ):
        assert main(*arguments) == 2
        told = capsys.readouterr().err
        assert message in told
        assert told.startswith("label_agreement: error: ")
        assert told.count("\n") == 1
