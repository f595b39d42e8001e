"""The steps of the Dockerfile, run here with stand-ins for pip and torch (no test can pull the base image)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cluster_files import CLUSTER, ROOT, pinned, project, run_steps

pytestmark = pytest.mark.slow

TORCH, DEPENDENCIES, PACKAGE = run_steps((CLUSTER / "docker" / "Dockerfile").read_text())
PIP = '#!/usr/bin/env bash\nprintf "%s\\n" "$*" >>pip.log\n'


class Build:
    """A folder like the image's, in which steps run as Docker runs them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        programs = folder / "bin"
        programs.mkdir()
        (programs / "pip").write_text(PIP)
        (programs / "uname").write_text('#!/bin/sh\necho "$MACHINE"\n')
        for program in programs.iterdir():
            program.chmod(0o755)
        (programs / "python").symlink_to(sys.executable)
        for name in ("pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, folder)

    def run(self, step: str, **variables: str) -> tuple[int, str, list[str]]:
        """Exit code, what was said, and the lines that pip was called with."""
        (self.folder / "pip.log").write_text("")
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", step],
            cwd=self.folder,
            env={"PATH": f"{self.folder / 'bin'}:{os.defpath}", "TORCH_INDEX": "", "MACHINE": "x86_64", **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stderr, (self.folder / "pip.log").read_text().splitlines()


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return Build(tmp_path)


def test_the_variants_install_the_pinned_torch(build: Build) -> None:
    assert build.run(TORCH, VARIANT="cuda") == (0, "", ["install -c constraints.txt -r torch.txt"])
    assert (build.folder / "torch.txt").read_text() == f"torch=={pinned('torch')}\n"
    index = "https://wheels.example/cpu"
    _, _, called = build.run(TORCH, VARIANT="cpu", TORCH_INDEX=index)
    assert called == [f"install --no-deps --index-url {index} -r torch.txt"]
    # Elsewhere than on x86 the default index has the CPU build.
    assert build.run(TORCH, VARIANT="cpu", MACHINE="aarch64") == (0, "", ["install -c constraints.txt -r torch.txt"])


@pytest.mark.parametrize(
    ("variant", "says"), [("cpu", "give --build-arg TORCH_INDEX=URL"), ("gpu", "it is cpu or cuda")]
)
def test_what_cannot_be_built_says_why_before_it_installs(build: Build, variant: str, says: str) -> None:
    code, said, called = build.run(TORCH, VARIANT=variant)
    assert code == 2
    assert says in said
    assert said.count("\n") == 1
    assert called == []


@pytest.mark.parametrize(
    ("installed", "variant", "code"), [(None, "cpu", 0), ("13.0", "cuda", 0), ("13.0", "cpu", 1), (None, "cuda", 1)]
)
def test_the_image_has_the_torch_that_it_says(build: Build, installed: str | None, variant: str, code: int) -> None:
    (build.folder / "torch.py").write_text(
        f"from types import SimpleNamespace\n__version__ = '2'\nversion = SimpleNamespace(cuda={installed!r})\n"
    )
    given, said, called = build.run(DEPENDENCIES, VARIANT=variant)
    assert given == code
    assert called == ["install -c constraints.txt -r requirements.txt"]
    wanted = project()["dependencies"] + project()["optional-dependencies"]["store"]
    assert (build.folder / "requirements.txt").read_text().splitlines() == wanted
    assert said == ("" if code == 0 else f"torch 2 is not for {variant}\n")


def test_with_a_lock_every_package_has_its_hash(build: Build) -> None:
    (build.folder / "lock.txt").write_text("torch==2 --hash=sha256:0\n")
    (build.folder / "torch.py").write_text("from types import SimpleNamespace\nversion = SimpleNamespace(cuda=None)\n")
    assert build.run(TORCH, VARIANT="cuda") == (0, "", ["install --require-hashes -r lock.txt"])
    index = "https://wheels.example/cpu"
    _, _, called = build.run(TORCH, VARIANT="cpu", TORCH_INDEX=index)
    assert called == [f"install --require-hashes --extra-index-url {index} -r lock.txt"]
    assert build.run(DEPENDENCIES, VARIANT="cpu") == (0, "", [])


def test_the_package_comes_last_and_alone() -> None:
    assert PACKAGE.startswith("pip install --no-deps . && useradd --uid 1000 ")
