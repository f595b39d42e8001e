"""The wheel and the sdist: their files, and the package where the wheel and its dependencies alone are installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.metadata import Metadata

import distgan
from distgan.config.load import preset_names
from processes import TINY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]

# As this process began: conftest.py moves the cache, and pip's downloads are in the user's. Without bytecode each
# command would compile torch again.
_ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name not in {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV"}
}

# What a build adds.
_IN_SDIST = {"PKG-INFO", "setup.cfg"}
_IN_WHEEL = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt"}

# A shorter run still.
_SMALLEST = [*TINY, "training.kimg=0.5", "evaluation.every_kimg=0.5", "checkpoint.every_kimg=null"]

_CHECK = """
import importlib, importlib.metadata, json, pkgutil, sys
import distgan

assert not {"torch", "ray"} & sys.modules.keys()
config = distgan.load_config("quickstart", training={"kimg": 3})
modules = [module.name for module in pkgutil.walk_packages(distgan.__path__, "distgan.")]
for name in modules:
    if name != "distgan.__main__":
        importlib.import_module(name)
print(json.dumps({
    "file": distgan.__file__, "versions": [distgan.__version__, importlib.metadata.version("distgan")],
    "kimg": config.training.kimg, "presets": importlib.import_module("distgan.config.load").preset_names(),
    "modules": modules,
}))
"""


@dataclass(frozen=True)
class Built:
    """Both distributions, and the files of the repository that they are built from."""

    files: list[str]
    sdist: Path
    wheel: Path


@dataclass(frozen=True)
class Installation:
    """A virtual environment, and an empty folder that its commands run in."""

    folder: Path
    work: Path

    def __call__(self, program: str, *arguments: str, code: int = 0) -> str:
        """All that a program of the environment prints."""
        programs = self.folder / "bin"
        environment = _ENVIRONMENT | {"PATH": f"{programs}:/usr/bin:/bin", "XDG_CACHE_HOME": str(self.work / "cache")}
        return run(str(programs / program), *arguments, cwd=self.work, environment=environment, seconds=240, code=code)


def run(
    *command: str, cwd: Path, environment: dict[str, str] = _ENVIRONMENT, seconds: float = 120, code: int = 0
) -> str:
    """A command's output; stops it and its children, and fails, where it takes longer."""
    process = subprocess.Popen(
        command, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0
    )
    try:
        output = process.communicate(timeout=seconds)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == code, f"{command}\n{output}"
    return output


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Of a copy of the files that git tracks, as they are now."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    files = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    for name in files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
    run(sys.executable, "-m", "build", "--outdir", str(folder), cwd=source, seconds=240)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    assert {sdist, wheel} == set(folder.iterdir())
    return Built(files, sdist, wheel)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder, work = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("work")
    try:
        run(sys.executable, "-m", "venv", "--without-pip", str(folder), cwd=work)
        pip = (sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"))
        options = ("--quiet", "--no-compile", "--disable-pip-version-check", "-c", str(ROOT / "constraints.txt"))
        run(*pip, "install", *options, str(built.wheel), cwd=work, seconds=600)
        run(*pip, "check", cwd=work)
        yield Installation(folder, work)
    finally:
        shutil.rmtree(folder)


def test_the_wheel_holds_the_package_and_the_sdist_what_git_tracks(built: Built) -> None:
    stem = f"distgan-{distgan.__version__}"
    assert (built.sdist.name, built.wheel.name) == (f"{stem}.tar.gz", f"{stem}-py3-none-any.whl")
    with zipfile.ZipFile(built.wheel) as wheel:
        package = {name for name in built.files if name.startswith("distgan/")}
        assert set(wheel.namelist()) == package | {f"{stem}.dist-info/{name}" for name in _IN_WHEEL}
    with tarfile.open(built.sdist) as sdist:
        modes = {one.name.removeprefix(f"{stem}/"): one.mode for one in sdist if one.isfile()}
    added = {name for name in modes if name in _IN_SDIST or name.startswith("distgan.egg-info/")}
    assert set(modes) - added == set(built.files)
    executable = {name for name in built.files if os.access(ROOT / name, os.X_OK)}
    assert {name for name in modes if modes[name] & 0o100} == executable


def test_the_metadata_are_valid(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        text = wheel.read(f"distgan-{distgan.__version__}.dist-info/METADATA")
    metadata = Metadata.from_email(text, validate=True)
    assert str(metadata.version) == distgan.__version__
    assert (metadata.license_expression, metadata.license_files) == ("Apache-2.0", ["LICENSE"])
    assert metadata.description == (ROOT / "README.md").read_text(encoding="utf-8")
    assert (metadata.description_content_type or "").startswith("text/markdown")
    texts = [ROOT / "README.md", ROOT / "Makefile", *(ROOT / "docs").rglob("*.md"), *(ROOT / "distgan").rglob("*.py")]
    named = {
        extra
        for text in texts
        for extras in re.findall(r"(?:distgan|\.|\$\(echo dist/\*\.whl\))\[([a-z,]+)\]['\"]", text.read_text())
        for extra in extras.split(",")
    }
    assert "store" in named
    assert named <= set(metadata.provides_extra or ())


def test_every_module_imports_with_the_declared_dependencies_alone(built: Built, installed: Installation) -> None:
    found = json.loads(installed("python", "-c", _CHECK).splitlines()[-1])
    assert Path(found["file"]).is_relative_to(installed.folder)
    assert found["versions"] == [distgan.__version__] * 2
    assert found["kimg"] == 3
    assert found["presets"] == preset_names()
    files = {name.removesuffix(".py") for name in built.files if re.fullmatch(r"distgan/.+\.py", name)}
    assert {"distgan", *found["modules"]} == {name.removesuffix("/__init__").replace("/", ".") for name in files}


def test_commands(installed: Installation) -> None:
    assert installed("distgan", "--version") == f"distgan {distgan.__version__}\n"
    assert "data, training, results" in installed("distgan", "--help").lower()
    installed("distgan", "data", "render", "bricks", "--out", "bricks", "--samples", "128", "--size", "16")
    train = ("distgan", "train", "quickstart", "data.url=bricks", *_SMALLEST, "--no-ray", "--name", "tiny")
    assert "image_size: 16\n" in installed(*train, "--dry-run")
    installed(*train)
    manifests = [*installed.work.glob("runs/tiny/checkpoints/*/manifest.json")]
    assert {json.loads(manifest.read_text())["distgan"] for manifest in manifests} == {distgan.__version__}
    installed("distgan", "sample", "runs/tiny", "--count", "4", "--out", "grid.png")


def test_a_command_that_needs_an_extra_names_it(installed: Installation) -> None:
    said = installed("distgan", "store", "up", code=2)
    assert said == "distgan: error: the store needs SeaweedFS's `weed` program; pip install 'distgan[store]'\n"
