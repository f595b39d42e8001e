"""Networks and objectives of a user's own modules: found, checked, trained, and never run for a stranger."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from command_line import Cli, one_line
from distgan.config.load import build_config, dump_config, load_config
from distgan.config.plugins import custom_sources
from distgan.errors import UserError
from distgan.inference.sampling import sample_images
from distgan.training.manifest import with_checksum
from distgan.training.networks import build_networks, build_objective
from distgan.training.run_spec import RunSpec, plan_run
from distgan.training.starting_point import find_checkpoint
from processes import finish, start
from runs import pack_bricks, run, tiny_config

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]

HEAD = """
from __future__ import annotations
from typing import Annotated
import torch
from annotated_types import Gt
from torch import Tensor, nn
"""
NETS = (
    HEAD
    + """
from distgan.losses import Objective

class Generator(nn.Module):
    def __init__(self, *, image_size: int, channels: int, latent_dim: int, width: Annotated[int, Gt(0)] = 4) -> None:
        super().__init__()
        self.shape = (channels, image_size, image_size)
        self.first = nn.Linear(latent_dim, width)
        self.second = nn.Linear(width, channels * image_size**2)

    def forward(self, latents: Tensor) -> Tensor:
        return self.second(self.first(latents).relu()).tanh().unflatten(1, self.shape)

class LeastSquares(Objective):
    def __init__(self, *, target: float = 1.0) -> None:
        self.target = target

    def discriminator_loss(self, real, fake, context):
        return ((real - self.target) ** 2).mean() + (fake**2).mean()

    def generator_loss(self, fake, real, context):
        return ((fake - self.target) ** 2).mean()
"""
)
OWN = ["generator={network: my_nets:Generator, width: 6}", "objective={name: my_nets:LeastSquares, target: 0.5}"]


@contextmanager
def working_in(folder: Path) -> Iterator[Path]:
    """In `folder`, which has `my_nets.py`; modules that are imported from it are forgotten again."""
    (folder / "my_nets.py").write_text(NETS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        yield folder
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture(autouse=True)
def place(tmp_path: Path) -> Iterator[Path]:
    """An empty folder but for `my_nets.py`, the current one."""
    with working_in(tmp_path) as folder:
        yield folder


def test_own_components_are_built_with_their_options() -> None:
    config = load_config("quickstart", OWN)
    assert config.generator.options == {"width": 6}
    networks = build_networks(config, torch.device("cpu"))
    assert type(networks.generator).__module__ == "my_nets"
    assert networks.generator.first.out_features == 6
    assert build_objective(config).target == 0.5  # type: ignore[attr-defined]
    assert load_config("quickstart", [*OWN, "generator.width=5"]).generator.options == {"width": 5}


def test_options_of_own_components_are_checked() -> None:
    for override, message in (
        ("generator.widht=5", "generator.widht: unknown key; did you mean 'generator.width'"),
        ("generator.width=0", "generator.width=0: allowed: integer, 1 or more"),
        ("objective.target=x", "objective.target='x': allowed: number"),
    ):
        with pytest.raises(UserError, match=message):
            load_config("quickstart", [*OWN, override])


GENERATOR = """
class Generator(nn.Module):
    def __init__(self, {signature}) -> None:
        super().__init__()
        {body}
    def forward(self, latents: Tensor) -> Tensor:
        {forward}
"""


def generator(
    signature: str = "*, latent_dim: int",
    body: str = "self.w = nn.Linear(latent_dim, 4)",
    forward: str = "return latents",
) -> str:
    return HEAD + GENERATOR.format(signature=signature, body=body, forward=forward)


WRONG = {
    "no module": ("gone_nets:Net", ""),
    "no submodule": ("wrong.nets:Net", "x = 1"),
    "no module's name": (":Net", ""),
    "relative": (".nets:Net", ""),
    "no class": ("wrong:Genrator", generator()),
    "a function": ("wrong:make", "def make(): pass"),
    "nothing": ("wrong:", generator()),
    "missing import": ("wrong:N", "import not_there"),
    "raises": ("wrong:N", "x = 1\n1 / 0"),
    "syntax": ("wrong:N", "def ("),
    "exits": ("wrong:N", "import sys\nsys.exit(3)"),
    "no network": ("wrong:N", "class N: pass"),
    "no signature": ("wrong:N", HEAD + "class N(nn.Module):\n    pass"),
    "no type": ("wrong:Generator", generator("*, latent_dim: int, width=3")),
    "unknown type": ("wrong:Generator", generator("*, width: Widht = 3")),
    "type of no key": ("wrong:Generator", generator("*, width: nn.Foo = 3")),
    "constructor": ("wrong:Generator", generator(body="self.w = undefined")),
    "value": ("wrong:Generator", generator(body="raise ValueError('odd width')")),
    "no parameters": ("wrong:Generator", generator(body="pass")),
    "forward": ("wrong:Generator", generator(forward="return self.w(latents[:, :3])")),
    "shape": ("wrong:Generator", generator()),
    "no tensor": ("wrong:Generator", generator(forward="return [latents]")),
    "labels": ("wrong:Generator", generator("*, latent_dim: int, num_classes: int")),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_network_is_one_line(case: str, cli: Cli, place: Path, same_words: Callable[..., None]) -> None:
    name, source = WRONG[case]
    (place / "wrong.py").write_text(source)
    arguments = ["image_size=16", "channels=1", "latent_dim=8", "discriminator.width=4"]
    message = one_line(cli("train", "quickstart", f"generator={{network: '{name}'}}", *arguments, "--dry-run"))
    assert re.search(rf"^(preset quickstart: )?generator(: odd|\.network(: |=){name})", message), message
    same_words(message)


WRONG_OBJECTIVES = {
    "no objective": "class N: pass",
    "constructor": NETS.replace("self.target = target", "self.target = x"),
    "abstract": NETS.replace("discriminator_loss", "critic_loss"),
    "parameters": NETS.replace("(self, fake, real, context)", "(self, fake)"),
    "loss": NETS.replace("(real - self.target)", "x"),
    "real logits": NETS.replace("((fake - self.target) ** 2)", "(fake - real.mean())"),
    "no mean": NETS.replace("((fake - self.target) ** 2).mean()", "(fake - self.target) ** 2"),
    "no tensor": NETS.replace("((fake - self.target) ** 2).mean()", "0.5"),
}


@pytest.mark.parametrize("case", WRONG_OBJECTIVES)
def test_a_wrong_objective_is_one_line(case: str, cli: Cli, place: Path, same_words: Callable[..., None]) -> None:
    source = WRONG_OBJECTIVES[case]
    (place / "wrong.py").write_text(source)
    name = "N" if "class N" in source else "LeastSquares"
    message = one_line(cli("train", "quickstart", f"objective={{name: wrong:{name}}}", "--dry-run"))
    assert message.startswith(f"objective.name=wrong:{name}: ")
    same_words(message)


# Runs.


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of two steps of a network and an objective of one's own, and its module."""
    folder = tmp_path_factory.mktemp("own")
    with working_in(folder):
        data = pack_bricks(folder / "data", samples=80)
        run(tiny_config("quickstart", data, 2, *OWN), str(folder))
    return folder


def test_a_run_of_own_components_goes_on(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    summary, recorder = run(tiny_config("quickstart", f"{trained}/data", 3, *OWN), str(tmp_path))
    assert (summary.steps, summary.resumed_at_kimg) == (3, 0.032)
    assert recorder.events


class Trap:
    """A module that writes a file when it is imported."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self.sprung = name, folder / f"{name} was imported"
        (folder / f"{name}.py").write_text(f"{NETS}\nopen({str(self.sprung)!r}, 'w').close()\n")


def strangers_run(trained: Path, place: Path, name: str) -> Path:
    """A copy of the run whose configuration names another module."""
    copy = shutil.copytree(trained / "run", place / "stranger" / "run")
    for manifest in copy.glob("checkpoints/*/manifest.json"):
        content = json.loads(manifest.read_text().replace("my_nets:", f"{name}:"))
        manifest.write_text(json.dumps(with_checksum(content)))
    return copy


def test_a_strangers_code_is_run_only_where_it_is_trusted(trained: Path, cli: Cli, place: Path) -> None:
    trap = Trap(place, "trap_of_sample")
    copy = strangers_run(trained, place, trap.name)
    told = one_line(cli("sample", str(copy)))
    assert "generator.network=trap_of_sample:Generator, objective.name=trap_of_sample:LeastSquares" in told
    assert "add --trust-code" in told
    assert not trap.sprung.exists()
    assert cli("sample", str(copy), "--trust-code").code == 0
    assert trap.sprung.exists()


def test_resuming_a_strangers_run_does_not_run_its_code(trained: Path, cli: Cli, place: Path) -> None:
    trap = Trap(place, "trap_of_resume")
    strangers_run(trained, place, trap.name)
    for own in (OWN, []):
        config = tiny_config("quickstart", f"{trained}/data", 3, *own)
        with pytest.raises(UserError, match=r"generator\.network was trap_of_resume:Generator and is (my_nets|dcgan)"):
            plan_run(RunSpec(config, "run", str(place / "stranger")))
    assert not trap.sprung.exists()


def test_a_configuration_from_elsewhere_is_not_trusted_by_default(trained: Path) -> None:
    manifest = find_checkpoint(str(trained / "run")).manifest
    with pytest.raises(UserError, match="--trust-code"):
        build_config(manifest.config, "test")
    with pytest.raises(UserError, match="--trust-code"):
        sample_images(find_checkpoint(str(trained / "run")), 1, 0)
    extractor = {"evaluation": {"extractor": "os:PathLike"}}
    with pytest.raises(UserError, match=r"evaluation\.extractor=os:PathLike"):
        build_config(extractor, "test")


def test_sources_are_what_other_machines_lack(place: Path) -> None:
    (place / "my_package" / "deep").mkdir(parents=True)
    (place / "my_package" / "deep" / "nets.py").write_text(NETS)
    names = ["my_nets:Generator", "my_package.deep.nets:Generator", "dcgan", "torch.nn:Linear", "collections:Counter"]
    assert custom_sources([*names, "distgan.models.dcgan:Generator"]) == [
        str(place / "my_nets.py"),
        str(place / "my_package"),
    ]


@pytest.mark.slow
def test_torchrun_and_the_installed_command_find_the_module(trained: Path, tmp_path: Path) -> None:
    """The command that is not started with `python -m` has no current folder on its path."""
    command = shutil.which("distgan", path=str(Path(sys.executable).parent))
    assert command is not None
    arguments = ["train", "quickstart", *OWN, "image_size=16", "--dry-run"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [command, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "network: my_nets:Generator" in done.stdout


DRIVER = """
import sys
import distgan
sys.path.append(sys.argv[1])
distgan.train(sys.argv[2], workers=2, name="own")
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(300)
def test_ray_workers_get_the_module(trained: Path, place: Path) -> None:
    """It lies in a folder that only the driver's own path names; data and runs in folders relative to the driver's."""
    shutil.copytree(trained / "data", place / "data")
    (place / "modules").mkdir()
    (place / "modules" / "ray_nets.py").write_text(NETS)
    own = [each.replace("my_nets", "ray_nets") for each in OWN]
    sys.path.append(str(place / "modules"))
    (place / "run.yaml").write_text(dump_config(tiny_config("quickstart", "data", 2, *own)))
    process = start("-c", DRIVER, str(place / "modules"), "run.yaml", cwd=place)
    output = finish(process, 240)
    assert process.returncode == 0, output
    assert find_checkpoint("runs/own").manifest.workers == 2
