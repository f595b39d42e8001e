"""`distgan export`: what is written runs elsewhere and gives the images of the run."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from distgan.cli.main import app
from distgan.config.load import load_config, preset_names
from distgan.errors import DamagedError, UserError
from distgan.inference.export import FORMATS, export_generator
from distgan.inference.exported import CONFIG, WEIGHTS, example_inputs
from distgan.inference.generator import load_generator
from distgan.training.networks import build_networks
from runs import pack_bricks, run, script_distances, tiny_config
from shrunken import shrunken_overrides

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two steps, evaluated at its end."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        script_distances(patch, 12.5)
        run(tiny_config("quickstart", pack_bricks(folder / "secret-place", samples=80), 2), str(folder))
    return folder / "run"


@pytest.fixture(scope="module")
def exported(trained: Path) -> Path:
    """That run in all formats."""
    export_generator(str(trained), str(trained.parent / "exported"), FORMATS)
    return trained.parent / "exported"


def test_weights_give_the_images_of_the_run_to_the_bit(trained: Path, exported: Path) -> None:
    wanted, found = load_generator(str(trained)), load_generator(str(exported))
    assert np.array_equal(found.sample(70, seed=3).images, wanted.sample(70, seed=3).images)
    again = export_generator(str(exported), str(exported.parent / "again"))
    assert again.files == [WEIGHTS, CONFIG, "README.md"]
    assert (exported.parent / "again" / WEIGHTS).read_bytes() == (exported / WEIGHTS).read_bytes()


def test_programs_run_without_distgan(trained: Path, exported: Path) -> None:
    latents = torch.randn(7, 8)
    wanted = load_generator(str(trained)).network(latents)
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    (images,) = session.run(["images"], {"latents": latents.numpy()})
    assert torch.allclose(torch.from_numpy(images), wanted, atol=1e-4)
    program = torch.export.load(exported / "model.pt2")
    assert torch.allclose(program.module()(latents), wanted, atol=1e-4)
    for name in (WEIGHTS, CONFIG, "model.onnx"):
        with pytest.raises((pickle.UnpicklingError, ValueError, EOFError, KeyError, IndexError, AttributeError)):
            pickle.loads((exported / name).read_bytes())
    with zipfile.ZipFile(exported / "model.pt2") as archive:
        assert not [one for one in archive.infolist() if one.file_size and one.filename.endswith((".pt", ".pkl"))]


def test_the_description(exported: Path) -> None:
    config = json.loads((exported / CONFIG).read_text())
    assert config["latents"] == ["N", 8]
    assert config["images"] == ["N", 1, 16, 16]
    assert config["metrics"] == {"fd_lite0_16": 12.5}
    assert config["checkpoint"] == "step-000000002"
    assert config["config"]["generator"]["width"] == 4
    for name, file in config["files"].items():
        data = (exported / name).read_bytes()
        assert file == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    card = (exported / "README.md").read_text()
    assert "| `fd_lite0_16` | 12.5 |" in card
    for text in (card, json.dumps(config)):
        assert "secret-place" not in text


def test_the_code_of_the_card_runs(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    blocks = (exported / "README.md").read_text().split("```python\n")[1:]
    assert len(blocks) == 3
    for block in blocks:
        names: dict[str, Any] = {}
        exec(block.partition("```")[0].replace("THIS_FOLDER", "."), names)
        if "images" in names:
            assert tuple(names["images"].shape) == (64, 1, 16, 16)
    assert Image.open("grid.png").size[0] > 64


def test_the_command(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["export", str(trained), "--checkpoint", "last"])
    assert result.exit_code == 0, result.output
    line = f"{tmp_path}/exported: {WEIGHTS}, {CONFIG}, README.md of step-000000002, fd_lite0_16 12.5\n"
    assert result.stdout == line
    assert CliRunner().invoke(app, ["sample", "exported", "--count", "2", "--out", "two.npy"]).exit_code == 0
    assert np.array_equal(np.load("two.npy"), load_generator(str(trained)).sample(2).images)
    with pytest.raises(UserError, match=r"^exported: the folder is not empty; give the name of a new one$"):
        export_generator(str(trained), "exported")
    with pytest.raises(UserError, match=r"--checkpoint last: .*exported is an exported generator, of step-000000002"):
        load_generator("exported", "last")
    result = CliRunner().invoke(app, ["export", str(trained), "--format", "onnx,pickle"])
    assert result.exit_code == 2
    assert "'pickle': allowed: safetensors, onnx, torch-export" in " ".join(result.output.replace("│", " ").split())


def change(folder: Path, **values: object) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | values))


DAMAGES = {
    "of a later version": (lambda folder: change(folder, format="distgan-generator-2"), "format: "),
    "without a field": (lambda folder: change(folder, latents=[]), "latents"),
    "a step that no run has": (lambda folder: change(folder, step=2**50), "writes: step: "),
    "no configuration": (lambda folder: change(folder, config={"generator": 3}), "generator"),
    "no JSON": (lambda folder: (folder / CONFIG).write_text("{"), "its config.json is no JSON"),
    "other weights": (
        lambda folder: (folder / WEIGHTS).write_bytes(b"x" * (folder / WEIGHTS).stat().st_size),
        "model.safetensors is not the file that was exported",
    ),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "model.safetensors: not found"),
    "another network": (
        lambda folder: change(folder, config=json.loads((folder / CONFIG).read_text())["config"] | {"latent_dim": 9}),
        "its tensors are not those of the run's networks",
    ),
    "programs only": (lambda folder: change(folder, files={}), "export it with --format safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_changed_folder_is_one_line(damage: str, exported: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "exported")
    do, line = DAMAGES[damage]
    do(folder)
    with pytest.raises(UserError, match=line) as caught:
        load_generator(str(folder))
    assert "\n" not in str(caught.value)


def test_weights_that_are_no_safetensors(exported: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "exported")
    data = b"x" * 100
    (folder / WEIGHTS).write_bytes(data)
    change(folder, files={WEIGHTS: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}})
    with pytest.raises(DamagedError, match=f"{WEIGHTS} cannot be read"):
        load_generator(str(folder))


class Branching(nn.Module):
    """Looks at the values of its latents, which no program can."""

    def __init__(self, latent_dim: int, image_size: int, channels: int) -> None:
        super().__init__()
        self.size, self.layer = (channels, image_size, image_size), nn.Linear(latent_dim, channels * image_size**2)

    def forward(self, latents: Tensor) -> Tensor:
        images = self.layer(latents).unflatten(1, self.size)
        return torch.tanh(images) if latents.sum().item() > 0 else images.clamp(-1, 1)


def test_a_network_that_is_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "branching", sys.modules[__name__])
    config = tiny_config(
        "quickstart", pack_bricks(tmp_path / "data", samples=80), 1, "generator={network: 'branching:Branching'}"
    )
    with pytest.MonkeyPatch.context() as patch:
        script_distances(patch, 1.0)
        run(config, str(tmp_path))
    for kind in ("onnx", "torch-export"):
        with pytest.raises(UserError, match=rf"^--format {kind}: torch cannot export this generator: ") as caught:
            export_generator(str(tmp_path / "run"), str(tmp_path / "out"), [kind], trust_code=True)  # type: ignore[list-item]
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()


def test_onnx_without_its_packages(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"^--format onnx needs onnxscript; pip install 'distgan\[export\]'$"):
        export_generator(str(trained), str(tmp_path / "out"), ["onnx"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_generators_of_all_presets_go_to_onnx() -> None:
    """Every network that the package has, labels and spectral normalization included."""
    from distgan.inference import export

    networks = {}
    for preset in preset_names():
        config = load_config(preset, [*shrunken_overrides(preset), "training.precision=float32"])
        networks.setdefault((config.generator.network, config.num_classes is None), config)
    assert len(networks) >= 5
    for config in networks.values():
        generator = build_networks(config, torch.device("cpu")).generator.eval().requires_grad_(False)
        write, load = export._PROGRAMS["onnx"]
        _, difference = export._program("onnx", generator, config, write, load)
        assert difference < 1e-5
        assert generator(*example_inputs(config, 3, torch.device("cpu"))).shape == (3, *config.image_shape)
