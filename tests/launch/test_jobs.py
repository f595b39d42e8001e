"""Commands submitted to a real Ray cluster that asks for a token: logs, exit codes, stopping, secrets."""

from __future__ import annotations

import json
import os
import pty
import secrets
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from distgan.storage.s3_server.server import StoreHandle
from distgan.storage.storage import Storage
from distgan.tracking import formatting
from distgan.training.checkpoints import CheckpointStore
from processes import TINY, finish, kill_ray_nodes, our_processes, start, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]

OWN_CODE = """
from torch import nn


class Linear(nn.Module):
    def __init__(self, *, image_size: int, channels: int, latent_dim: int) -> None:
        super().__init__()
        self.shape = (channels, image_size, image_size)
        self.layer = nn.Linear(latent_dim, channels * image_size * image_size)

    def forward(self, latent):
        return self.layer(latent).tanh().view(-1, *self.shape)
"""


@dataclass
class Head:
    """A Ray head that asks for a token, and its files."""

    url: str
    address: str
    token: str
    folder: Path

    def ask(self, path: str) -> str:
        """What its dashboard answers."""
        request = urllib.request.Request(f"{self.url}{path}", headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=20) as reply:
            return str(reply.read().decode())


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """Two processors, and nothing in its environment that a job could use."""
    before = our_processes()
    token, folder = secrets.token_hex(32), tmp_path_factory.mktemp("h")
    port, jobs_port = free_port(), free_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", token)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        process = start(
            "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port", str(port), "--num-cpus", "2",
            "--node-ip-address", "127.0.0.1", "--dashboard-host", "127.0.0.1", "--dashboard-port", str(jobs_port),
            "--dashboard-agent-listen-port", str(free_port()),
            "--object-store-memory", "100000000", "--temp-dir", str(folder), cwd=folder,
        )  # fmt: skip
        assert process.stdout is not None
        assert any("Process exit logs" in line for line in process.stdout)
    yield Head(f"http://127.0.0.1:{jobs_port}", f"127.0.0.1:{port}", token, folder)
    kill_ray_nodes([process], before)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@pytest.fixture(autouse=True)
def as_a_user(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the token, and nothing that names the cluster."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", head.token)
    for name in ("RAY_AUTH_MODE", "RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "DISTGAN_CLUSTER"):
        monkeypatch.delenv(name, raising=False)


def distgan(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    return start("-m", "distgan", *arguments, cwd=cwd)


@pytest.fixture(scope="module")
def local_data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data")
    render(str(folder))
    return str(folder)


def render(url: str) -> None:
    command = ["data", "render", "bricks", "--out", url, "--samples", "512", "--size", "16"]
    subprocess.run([sys.executable, "-m", "distgan", *command], check=True, timeout=60)


def test_own_code_trains_with_variables_that_nobody_sees(
    head: Head, object_store: StoreHandle, bucket: str, tmp_path: Path
) -> None:
    render(f"{bucket}/bricks")
    code = tmp_path / "code"
    code.mkdir()
    (code / "mine.py").write_text(OWN_CODE)
    (code / "recipe.yaml").write_text("{channels: 1, generator: {network: 'mine:Linear'}}\n")
    secret = f"planted-{secrets.token_hex(16)}"
    lines = [f"{name}={value}" for name, value in object_store.environment().items()]
    (tmp_path / "job.env").write_text("\n".join([*lines, f"WANDB_API_KEY='{secret}'"]))
    settings = [setting for setting in TINY if not setting.startswith("generator.")]
    process = distgan(
        "submit", "--address", head.url, "--env-file", str(tmp_path / "job.env"), "--working-dir", ".", "--",
        "train", "recipe.yaml", f"data.url={bucket}/bricks", *settings, "--workers", "2", "--storage", bucket,
        cwd=code,
    )  # fmt: skip
    output = finish(process)
    assert process.returncode == 0, output
    assert "image budget reached" in output
    assert "connecting to Ray" in output
    assert "Traceback" not in output
    assert Storage.open(f"{bucket}/recipe").exists("summary.json")

    hidden = [secret, *(value for name, value in object_store.environment().items() if "SECRET" in name)]
    assert len(hidden) == 2
    told = output + head.ask("/api/jobs/") + command_lines()
    for log in head.folder.rglob("logs/**/*"):
        if log.is_file():
            told += log.read_text(errors="replace")
    assert "recipe.yaml" in told
    for value in hidden:
        assert value not in told
    shown = json.loads(head.ask("/api/jobs/"))
    assert all(value not in json.dumps(shown) for value in hidden)


def command_lines() -> str:
    found = ""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found += (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
    return found


def test_a_job_is_left_and_found_again_stopped_and_gone_on_with(head: Head, local_data: str, tmp_path: Path) -> None:
    runs = str(tmp_path / "runs")
    cluster = ["--address", head.url]
    command = ["train", "quickstart", f"data.url={local_data}", *TINY, "--workers", "2", "--storage", runs]
    process = distgan("submit", *cluster, "--", *command, "training.kimg=100000", cwd=tmp_path)
    assert process.stdout is not None
    job = next(process.stdout).split()[1]
    assert any(" images/s" in line for line in process.stdout)

    # Without a terminal, Ctrl-C leaves the job alone.
    process.send_signal(signal.SIGINT)
    output = finish(process)
    assert process.returncode == 130, output
    assert f"distgan jobs stop --address {head.url} {job}" in output
    assert "Traceback" not in output

    # The job holds all processors: another run says what it waits for.
    waits = distgan("train", "quickstart", f"data.url={local_data}", *TINY, "--workers", "2", "--storage",
                    str(tmp_path / "others"), "--address", head.address, cwd=tmp_path)  # fmt: skip
    assert waits.stdout is not None
    assert any("waiting: the workers need 2 CPUs (0 of 2 are free)" in line for line in waits.stdout)
    waits.send_signal(signal.SIGINT)
    output = finish(waits)
    assert waits.returncode == 130, output

    # On a terminal Ctrl-C asks.
    mine, theirs = pty.openpty()
    follows = subprocess.Popen(
        [sys.executable, "-m", "distgan", "jobs", "logs", "-f", *cluster, job],
        cwd=tmp_path, stdin=theirs, stdout=theirs, stderr=theirs, process_group=0,
    )  # fmt: skip
    os.close(theirs)
    screen = Screen(mine)
    wait_for(lambda: "images/s" in screen.text())
    follows.send_signal(signal.SIGINT)
    wait_for(lambda: "[d/s]" in screen.text())
    os.write(mine, b"s\n")
    wait_for(lambda: "the state is saved first" in screen.text() and follows.poll() is not None)
    assert follows.returncode == 143, screen.text()
    assert "was stopped" in screen.text()
    os.close(mine)

    newest = CheckpointStore(Storage.open(f"{runs}/quickstart")).newest_manifest()
    assert newest is not None
    rows = Storage.open(f"{runs}/quickstart").read_bytes("metrics.jsonl").splitlines()
    assert newest.kimg == [row["kimg"] for row in map(json.loads, rows) if row["event"] == "step"][-1]

    listed = finish(distgan("jobs", "list", *cluster, cwd=tmp_path))
    assert any(
        line.startswith(f"{job} ") and "stopped" in line and "distgan train" in line for line in listed.splitlines()
    )
    status = finish(distgan("jobs", "status", *cluster, job, cwd=tmp_path))
    assert status.startswith(f"{job}: stopped, since 2")
    again = finish(distgan("jobs", "stop", *cluster, job, cwd=tmp_path))
    assert "has ended already" in again

    process = distgan("submit", *cluster, "--", *command, f"training.kimg={newest.kimg + 0.5}", cwd=tmp_path)
    output = finish(process)
    assert process.returncode == 0, output
    assert f"resumed at {formatting.kimg_count(newest.kimg)} of " in output
    assert "image budget reached" in output


class Screen:
    """What a terminal shows; to be asked while its process runs."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._seen = descriptor, b""
        os.set_blocking(descriptor, False)

    def text(self) -> str:
        try:
            while chunk := os.read(self._descriptor, 65536):
                self._seen += chunk
        except OSError:
            pass
        return self._seen.decode(errors="replace")


def test_no_shell_sees_an_argument_and_the_exit_code_is_the_commands(head: Head, tmp_path: Path) -> None:
    argument = f"{tmp_path}/no data'; touch {tmp_path}/ran; $(touch {tmp_path}/ran) `touch {tmp_path}/ran` \" $HOME *"
    process = distgan("submit", "--address", head.url, "--", "data", "info", argument, cwd=tmp_path)
    output = finish(process)
    assert process.returncode == 2, output
    assert f"distgan: error: {argument}" in output
    assert "Traceback" not in output
    assert not (tmp_path / "ran").exists()
    job = output.split()[1]

    submitted = distgan("submit", "--no-wait", "--address", head.url, "--", "data", "info", argument, cwd=tmp_path)
    output = finish(submitted)
    assert submitted.returncode == 0
    other = output.split()[1]
    assert f"distgan jobs logs -f --address {head.url} {other}" in output
    logs = finish(distgan("jobs", "logs", "--address", head.url, job, cwd=tmp_path))
    assert "distgan: error: " in logs
    follow = distgan("jobs", "logs", "-f", "--address", head.url, other, cwd=tmp_path)
    assert "distgan: error: " in finish(follow)
    assert follow.returncode == 2


@pytest.mark.parametrize("token", ["0" * 64, ""])
def test_a_wrong_or_missing_token_is_one_line(
    head: Head, token: str, tmp_path: Path, local_data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    monkeypatch.setenv("HOME", str(tmp_path))
    why = "the token is not that of this cluster" if token else "it asks for a token and there is none here"
    train = ["train", "quickstart", f"data.url={local_data}", *TINY, "--address", head.address]
    listing = ["jobs", "list", "--address", head.url]
    for mode, command in (("token", train), (None, listing)) if token else ((None, train), ("token", listing)):
        if mode is not None:
            monkeypatch.setenv("RAY_AUTH_MODE", mode)
        process = distgan(*command, cwd=tmp_path)
        output = finish(process, 30)
        monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
        assert process.returncode == 2, output
        mistakes = [line for line in output.splitlines() if line.startswith("distgan: error: ")]
        assert len(mistakes) == 1
        assert why in mistakes[0]
        assert "InvalidAuthToken" not in output
        assert "Traceback" not in output


def test_an_unknown_job_is_one_line(head: Head, tmp_path: Path) -> None:
    for command in ("status", "logs", "stop"):
        for job in ("train-00000000", "../../../etc/passwd"):
            process = distgan("jobs", command, "--address", head.url, job, cwd=tmp_path)
            output = finish(process, 30)
            assert process.returncode == 2
            assert output.count("\n") == 1
            assert f"there is no job '{job}'" in output
