"""What a run records of its making: preset, command, versions, hardware, and the code of a user's own modules."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest

import distgan
from command_line import Cli
from distgan.config.load import dump_config, load_config
from distgan.report.run_data import read_run
from distgan.report.settings import settings_of
from distgan.training.own_modules import own_modules
from distgan.training.session import this_command
from distgan.training.starting_point import find_checkpoint
from runs import pack_bricks, tiny_config

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]

LOSS = """
from distgan.losses import Objective

class LeastSquares(Objective):
    def discriminator_loss(self, real, fake, context):
        return ((real - 1) ** 2).mean() + (fake**2).mean()

    def generator_loss(self, fake, real, context):
        return ((fake - 1) ** 2).mean()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with data and a module of one's own, `kept_loss`."""
    pack_bricks(tmp_path / "data", samples=80)
    (tmp_path / "kept_loss.py").write_text(LOSS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def session_of(
    cli: Cli, place: Path, steps: int, *overrides: str, name: str = "own", more: tuple[str, ...] = ()
) -> str:
    """Trains with `kept_loss` as the file has it now; returns what was printed."""
    sys.modules.pop("kept_loss", None)
    tree = dump_config(tiny_config("quickstart", "data", steps, "objective={name: kept_loss:LeastSquares}", *overrides))
    (place / "own.yaml").write_text(tree)
    result = cli("train", "own.yaml", "--no-ray", "--name", name, *more)
    assert result.code == 0, result.err
    return result.out.replace("\n", " ")


def test_a_module_is_kept_and_a_change_is_told_at_a_resume(cli: Cli, place: Path) -> None:
    session_of(cli, place, 1)
    first = find_checkpoint("runs/own", "last").manifest.session
    assert first is not None
    (module,) = own_modules(["kept_loss:LeastSquares"])
    assert first.modules == {"kept_loss": module.sha256}
    assert (place / "runs" / "own" / module.folder / "kept_loss.py").read_text() == LOSS
    assert "has changed" not in session_of(cli, place, 2)

    (place / "kept_loss.py").write_text(LOSS.replace("- 1", "- 0.5"))
    printed = session_of(cli, place, 3)
    assert "kept_loss: this module has changed since step-000000002" in printed
    assert f"runs/own/{module.folder}" in printed
    assert "has changed" in session_of(
        cli, place, 3, name="branch", more=("--continue-from", "runs/own/checkpoints/step-000000002")
    )
    (now,) = own_modules(["kept_loss:LeastSquares"])
    assert now.sha256 != module.sha256
    kept = {(path.parent.name, path.name) for path in (place / "runs" / "own" / "code").glob("*/*")}
    assert kept == {(folder.rpartition("/")[2], "kept_loss.py") for folder in (module.folder, now.folder)}


def test_the_modules_of_a_package(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its Python files, and nothing else; one that is far too large is left out."""
    package = place / "kept_package"
    (package / "deep").mkdir(parents=True)
    (package / ".venv").mkdir()
    for name in ("__init__.py", "deep/loss.py", ".venv/other.py", "weights.bin"):
        (package / name).write_text(LOSS)
    (module,) = own_modules(["kept_package.deep.loss:LeastSquares"])
    assert (module.name, sorted(module.files)) == (
        "kept_package",
        ["kept_package/__init__.py", "kept_package/deep/loss.py"],
    )
    monkeypatch.setattr("distgan.training.own_modules._MOST_BYTES", 2 * len(LOSS) - 1)
    assert own_modules(["kept_package.deep.loss:LeastSquares"]) == []


def test_a_checkpoint_says_how_it_was_made(cli: Cli, place: Path) -> None:
    session_of(cli, place, 1, "seed=3")
    session = find_checkpoint("runs/own").manifest.session
    assert session is not None
    assert abs((datetime.now(UTC) - datetime.fromisoformat(session.began)).total_seconds()) < 600
    assert session.command == "distgan train own.yaml --no-ray --name own"
    assert session.versions["distgan"] == distgan.__version__
    assert session.versions["torch"] == version("torch")
    assert {"python", "ray"} <= session.versions.keys()
    assert session.hardware["cpu"]
    assert session.hardware["processors"] >= 1


def test_no_secret_of_the_command_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/opt/bin/distgan", "train", "x.yaml", "--storage", "s3://me:secret@bucket/runs"])
    assert this_command() == "distgan train x.yaml --storage s3://…@bucket/runs"
    monkeypatch.setattr(sys, "argv", ["/home/me/search.py", "--api-key", "secret"])
    assert this_command() == "search.py"
    monkeypatch.setattr(sys, "argv", ["/opt/other/__main__.py", "train"])
    assert this_command() == "__main__.py"


def test_the_preset_is_recorded_by_name(cli: Cli, place: Path) -> None:
    """In the configuration of its run, also where the run is repeated from its config.yaml in other words."""
    assert load_config("quickstart").preset == "quickstart"
    session_of(cli, place, 1, "description=mine", name="named")
    again = load_config("runs/named/config.yaml")
    assert (again.preset, again.description) == ("quickstart", "mine")
    settings = settings_of(read_run("runs/named"))
    assert settings.preset == "quickstart"
    assert "seed" not in {row.key for row in settings.different}
