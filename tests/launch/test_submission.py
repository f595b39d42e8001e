"""What is shipped with a submitted command, and where it goes; without Ray."""

from __future__ import annotations

import asyncio
import os
import pwd
import shlex
import stat
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import distgan
from distgan.data.index import TABLE_NAME
from distgan.errors import UserError
from distgan.launch.jobs import bootstrap, packaging
from distgan.launch.jobs.bootstrap import SUBMITTED_FROM, difference, from_text, to_text, versions
from distgan.launch.jobs.client import JobState
from distgan.launch.jobs.command import ShippedFolder, check_paths, command_of, entry_point
from distgan.launch.jobs.logs import Follower
from distgan.launch.jobs.packaging import files_of, pack_distgan, pack_environment, pack_folder, read_env_file
from distgan.launch.jobs.profiles import find_cluster, is_plaintext
from distgan.launch.placement.waiting import waiting_text


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster and no token of the person who runs the tests."""
    for name in ("ADDRESS", "API_SERVER_ADDRESS", "AUTH_TOKEN", "AUTH_TOKEN_PATH"):
        monkeypatch.delenv(f"RAY_{name}", raising=False)
    for name in ("DISTGAN_CLUSTER", "DISTGAN_CLUSTERS", SUBMITTED_FROM):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def write(folder: Path, *names: str, content: bytes = b"x") -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


# Where


def test_the_nearest_name_of_a_cluster_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profiles = tmp_path / "config" / "distgan" / "clusters.toml"
    write(tmp_path, "config/distgan/clusters.toml", "config/distgan/lab.token")
    profiles.write_text(
        '[lab]\naddress = "http://lab:8265/"\ntoken_file = "lab.token"\npip = ["wandb"]\nenv_file = "~/lab.env"\n'
        'working_dir = "/code"\n[other]\naddress = "other:8265"\n'
    )
    monkeypatch.setenv("RAY_ADDRESS", "http://ray:8265")
    assert find_cluster().address == "http://ray:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://api")
    assert find_cluster().address == "https://api"
    monkeypatch.setenv("DISTGAN_CLUSTER", "other")
    assert find_cluster().address == "http://other:8265"
    lab = find_cluster(name="lab")
    assert (lab.address, lab.token, lab.pip) == ("http://lab:8265", "x", ("wandb",))
    assert (lab.env_file, lab.working_dir) == (tmp_path / "home" / "lab.env", Path("/code"))
    assert "'x'" not in repr(lab)
    assert find_cluster("http://given:1").address == "http://given:1"


def test_an_address_that_only_ray_understands_is_not_taken_for_a_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(UserError, match="no cluster is named"):
        find_cluster()


def test_tokens_are_found_where_ray_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_cluster("http://h").token is None
    write(tmp_path, "home/.ray/auth_token", content=b"of-home\n")
    assert find_cluster("http://h").token == "of-home"
    write(tmp_path, "file", content=b"of-file\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "file"))
    assert find_cluster("http://h").token == "of-file"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of-environment")
    assert find_cluster("http://h").token == "of-environment"


@pytest.mark.parametrize(
    ("address", "openly"),
    [
        ("http://127.0.0.1:8265", False), ("http://localhost:8265", False), ("http://[::1]:8265", False),
        ("http://10.1.2.3:8265", False), ("http://192.168.0.9", False), ("http://head:8265", False),
        ("https://8.8.8.8", False), ("http://8.8.8.8:8265", True), ("http://ray.example.org:8265", True),
    ],
)  # fmt: skip
def test_a_token_in_the_open_is_noticed(address: str, openly: bool) -> None:
    assert is_plaintext(address) is openly


# What travels


def test_a_working_folder_travels_without_what_is_no_code(tmp_path: Path) -> None:
    code = ["recipe.yaml", "mine.py", "nets/__init__.py", "nets/deep/x.py", "notes.txt", "small.npz"]
    left = [
        ".git/config", ".venv/bin/python", "nets/__pycache__/x.pyc", "runs/first/config.yaml", "data/00000.tar",
        f"data/{TABLE_NAME}",
        "a/checkpoints/step-1/state.pt", "weights.pth", ".env", "prod.env", "job.log", "server.pem",
        "x.egg-info/PKG-INFO", ".mypy_cache/x", "any/pyvenv.cfg", "any/lib/y.py",
    ]  # fmt: skip
    write(tmp_path, *code, *left)
    assert {str(path) for path in files_of(tmp_path)} == set(code)


def test_what_git_ignores_stays_here(tmp_path: Path) -> None:
    write(tmp_path, "kept.py", "new.py", "made.bin", "sub/made.bin", "sub/kept.py")
    (tmp_path / ".gitignore").write_text("*.bin\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "kept.py"], cwd=tmp_path, check=True)
    assert {str(path) for path in files_of(tmp_path)} == {"kept.py", "new.py", "sub/kept.py"}
    assert {str(path) for path in files_of(tmp_path / "sub")} == {"kept.py"}


def test_a_folder_is_too_large_by_what_would_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaging, "MOST_BYTES", 1_000_000)
    write(tmp_path, "data/0.tar", content=bytes(2_000_000))
    write(tmp_path, "a/1.npz", "a/2.npz", "b.npz", content=bytes(300_000))
    assert len(files_of(tmp_path)) == 3
    write(tmp_path, "c.npz", content=bytes(200_000))
    with pytest.raises(UserError, match=r"1\.1 MB would be shipped, .*: a/ 0\.6 MB, b\.npz 0\.3 MB, c\.npz 0\.2 MB"):
        files_of(tmp_path)


def test_the_same_content_is_the_same_package(tmp_path: Path) -> None:
    write(tmp_path / "one", "a.py", "b/c.py")
    (tmp_path / "one" / "a.py").chmod(0o755)
    pack_folder(tmp_path / "one", files_of(tmp_path / "one"), tmp_path / "1.zip")
    os.utime(tmp_path / "one" / "a.py", (0, 10_000))
    pack_folder(tmp_path / "one", files_of(tmp_path / "one"), tmp_path / "2.zip")
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "1.zip") as archive:
        modes = {info.filename: (info.external_attr >> 16) & 0o777 for info in archive.infolist()}
    assert modes == {"a.py": 0o755, "b/c.py": 0o644}


def test_what_is_secret_or_private_here_does_not_get_around(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, mode in (("net.py", 0o644), ("run", 0o755), ("notes", 0o600), ("lab.token", 0o600), ("keys.txt", 0o600)):
        (folder / name).touch()
        (folder / name).chmod(mode)
    found = files_of(folder, [tmp_path / "folder" / ".." / "folder" / "keys.txt"])
    pack_folder(folder, found, tmp_path / "folder.zip")
    with zipfile.ZipFile(tmp_path / "folder.zip") as archive:
        modes = {info.filename: info.external_attr >> 16 & 0o777 for info in archive.infolist()}
    assert modes == {"net.py": 0o644, "run": 0o755, "notes": 0o600}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^{tmp_path}/gone\.py: cannot be shipped: No such file"):
        pack_folder(tmp_path, [Path("gone.py")], tmp_path / "folder.zip")


def test_distgan_itself_travels_and_runs(tmp_path: Path) -> None:
    pack_distgan(tmp_path / "distgan.zip")
    with zipfile.ZipFile(tmp_path / "distgan.zip") as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "there")
    assert "distgan/config/presets/quickstart.yaml" in names
    assert not [name for name in names if "__pycache__" in name]
    shown = subprocess.run(
        [sys.executable, "-m", "distgan", "--version"],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "there")}, cwd=tmp_path, capture_output=True, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    assert shown.stdout == f"distgan {distgan.__version__}\n"


# Variables


def test_an_env_file_is_read_as_people_write_it(tmp_path: Path) -> None:
    file = tmp_path / "x.env"
    file.write_text(
        "# keys\n\nA=1\nexport B = two words \nC='it # is $A'\nD=\"x=y\"  # said\nE=\nF=a#b # said\nG=ä\n",
        encoding="utf-8",
    )
    assert read_env_file(file) == {
        "A": "1", "B": "two words", "C": "it # is $A", "D": "x=y", "E": "", "F": "a#b", "G": "ä",
    }  # fmt: skip


def test_variables_arrive_in_a_file_of_their_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "environment.zip"
    pack_environment({"PLANTED": "secret", "DISTGAN_TEST_X": "ü"}, package)
    assert stat.S_IMODE(package.stat().st_mode) == 0o600
    with zipfile.ZipFile(package) as archive:
        modes = {(info.external_attr >> 16) & 0o777 for info in archive.infolist()}
        archive.extractall(tmp_path / "there")
    assert modes == {0o600}
    pack_environment({"PLANTED": "secret", "DISTGAN_TEST_X": "ü"}, tmp_path / "again.zip")
    assert package.read_bytes() != (tmp_path / "again.zip").read_bytes()  # so that its hash tells nothing

    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "there")])
    monkeypatch.setenv("PLANTED", "before")
    monkeypatch.setenv("DISTGAN_TEST_X", "before")
    bootstrap.load_environment()
    assert (os.environ["PLANTED"], os.environ["DISTGAN_TEST_X"]) == ("secret", "ü")


# Versions


def test_other_versions_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    here = versions()
    assert from_text(to_text(here)) == here
    assert difference(here, "the cluster") is None
    assert "+" not in here["torch"]
    told = difference(here | {"torch": "1.0.0", "python": "3.8"}, "the cluster")
    assert told is not None
    assert told.startswith(
        f"the cluster has other versions than the place where this was started: torch {here['torch']} "
    )
    assert f"against 1.0.0, python {here['python']} against 3.8; install" in told


def test_a_command_that_arrives_where_versions_differ_is_one_line(tmp_path: Path) -> None:
    for text, code in ((to_text(versions() | {"ray": "2.0.0"}), 2), (to_text(versions()), 0)):
        ended = subprocess.run(
            [sys.executable, "-m", "distgan", "--version"],
            env=os.environ | {SUBMITTED_FROM: text}, cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert ended.returncode == code
        if code == 2:
            told = f"distgan: error: the cluster's head ({sys.executable}) has other versions than"
            assert ended.stderr.startswith(told)
            assert ended.stderr.count("\n") == 1


# Words


@pytest.mark.parametrize(
    "word", ["plain", "two words", "it's", "$(touch x)", "`x`", "a;b", "a && b", "\\", "*", "~", "#", "", "ä", "-x"]
)
def test_every_word_reaches_the_command_as_it_is(word: str) -> None:
    line = entry_point(["train", word]).replace("exec python -m distgan", "printf '%s\\0'")
    assert subprocess.run(["sh", "-c", line], capture_output=True, check=True).stdout.decode() == f"train\0{word}\0"
    assert command_of(entry_point(["train", word])) == f"distgan train {shlex.quote(word)}"


def test_jobs_of_others_are_shown_as_they_are() -> None:
    assert command_of("python train.py") == "python train.py"


@pytest.mark.parametrize(
    "parameters",
    [
        {"config": "quickstart", "storage": "s3://runs", "overrides": ["data.url=s3://x", "generator.width=8"]},
        {"config": "sub/recipe.yaml", "storage": "/shared/runs"},
        {"config": "s3://runs/first/config.yaml", "storage": "gs://runs"},
        {"config": "/shared/recipe.yaml", "storage": "/shared", "overrides": ["data.url=null"]},
        {"config": "quickstart", "storage": "s3://r", "space": ["space.yaml", "optimizer.generator.lr=choice(1, 2)"]},
        {"config": "quickstart", "storage": "s3://r", "overrides": ["generator.network=mine:Net"]},
        {"source": "s3://runs/first", "json": "-"},
        {"name": "first", "storage": "s3://r"},
    ],
)  # fmt: skip
def test_what_the_cluster_will_have_may_be_named(parameters: dict[str, object], tmp_path: Path) -> None:
    write(tmp_path, "sub/recipe.yaml", "space.yaml", "mine.py", "first")
    check_paths(parameters, ShippedFolder(Path(), frozenset(files_of(tmp_path))), tmp_path)


# What comes back


def state(status: str, code: int | None = None) -> JobState:
    return JobState("train-1", status, "", "", None, None, code)


def test_exit_codes_are_the_commands() -> None:
    assert [state("FAILED", code).exit_code for code in (2, 130, 1, -9)] == [2, 130, 1, 137]
    assert state("SUCCEEDED", 0).exit_code == 0
    assert state("STOPPED").exit_code == 143


class Broken:
    """The jobs of a cluster whose connections break after some chunks, and whose state cannot be asked for at first."""

    LOG = "".join(f"line {number}\n" for number in range(20))

    def __init__(self) -> None:
        self.client = self
        self.connections = self.questions = 0

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        self.connections += 1
        size = 7 + self.connections  # chunks begin anywhere
        for begin in range(0, min(len(self.LOG), 40 * self.connections), size):
            yield self.LOG[begin : begin + size]
        await asyncio.sleep(0)
        if self.connections == 1:
            raise ConnectionResetError("broken")
        if self.connections == 2:
            await asyncio.sleep(60)  # a connection that is dead and does not say so

    def state(self, job: str) -> JobState:
        self.questions += 1
        if self.questions == 1:
            raise UserError("no answer")
        return state("SUCCEEDED" if self.connections > 3 else "RUNNING", 0)

    def log(self, job: str) -> str:
        return self.LOG


@pytest.mark.timeout(20)
def test_every_line_is_shown_once_over_connections_that_break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distgan.launch.jobs.logs._SILENCE_S", 0.1)
    monkeypatch.setattr("distgan.launch.jobs.logs._RETRY_S", 0.01)
    monkeypatch.setattr("distgan.launch.jobs.logs._SETTLING_S", 0.01)
    shown: list[str] = []
    broken = Broken()
    assert Follower(broken, "train-1", shown.append).follow().status == "SUCCEEDED"  # type: ignore[arg-type]
    assert "".join(shown) == Broken.LOG
    assert broken.connections == 4


class Blocked(Broken):
    """Whose connections never open, as behind some proxies; a job that writes on."""

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        self.connections += 1
        raise ConnectionResetError("broken")
        yield ""

    def log(self, job: str) -> str:
        return self.LOG[: 40 * self.connections]


@pytest.mark.timeout(20)
def test_what_a_job_prints_is_shown_without_a_websocket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distgan.launch.jobs.logs._RETRY_S", 0.01)
    shown: list[str] = []
    assert Follower(Blocked(), "train-1", shown.append).follow().status == "SUCCEEDED"  # type: ignore[arg-type]
    assert "".join(shown) == Blocked.LOG[:160]
    assert len(shown) == 4


@pytest.mark.timeout(20)
def test_a_cluster_that_stays_away_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distgan.launch.jobs.logs._PATIENCE_S", 0.1)
    monkeypatch.setattr("distgan.launch.jobs.logs._RETRY_S", 0.05)

    class Away(Blocked):
        def log(self, job: str) -> str:
            raise UserError("Ray at http://head: no answer")

    with pytest.raises(UserError, match=r"^Ray at http://head: no answer$"):
        Follower(Away(), "train-1", print).follow()  # type: ignore[arg-type]


def test_what_workers_wait_for_is_named() -> None:
    everything, free = {"CPU": 16.0, "GPU": 2.0, "memory": 64e9}, {"CPU": 12.0, "memory": 64e9}
    told = waiting_text({"CPU": 1.0, "GPU": 1.0}, 2, everything, free)
    assert told.startswith("waiting: the workers need 2 GPUs (0 of 2 are free); the run starts when")
    assert "16 CPUs (12 of 16 are free); 2 GPUs" in waiting_text({"CPU": 8.0, "GPU": 1.0}, 2, everything, free)
    assert "need nodes with room for each of them" in waiting_text({"CPU": 4.0}, 2, everything, free)


def test_a_user_without_a_home_has_no_token_and_no_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name)
    assert find_cluster("http://10.0.0.1:8265").token is None
    with pytest.raises(UserError, match=r"clusters\.toml: cannot read"):
        find_cluster(name="lab")
