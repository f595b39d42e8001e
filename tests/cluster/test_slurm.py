"""The batch scripts, run for real with stand-ins for Slurm's programs, for `ray` and for `distgan`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster_files import BIN, CLUSTER, ray_start_options

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

ADDRESS = "127.0.0.1"
# srun starts the nodes' script once a node; like Slurm's, it hands on a signal and waits for all.
SRUN = """
import os, signal, subprocess, sys
arguments = sys.argv[1:]
options = [a for a in arguments if a.startswith("--")]
note("srun", options)
count = int(next(o for o in options if o.startswith("--nodes=")).partition("=")[2])
command = [a for a in arguments if not a.startswith("--")]
children = [subprocess.Popen(command, env={**os.environ, "SLURM_NODEID": str(i)}) for i in range(count)]
signal.signal(signal.SIGTERM, lambda *_: [child.terminate() for child in children])
sys.exit(max(child.wait() for child in children))
"""
# The head listens where it is told to, and all wait for the end.
RAY = """
import os, signal, socket, stat, sys
given = dict(word.partition("=")[::2] for word in sys.argv[2:])
token = os.environ["RAY_AUTH_TOKEN_PATH"]
note("ray", {
    "arguments": sys.argv[1:],
    "mode": os.environ["RAY_AUTH_MODE"],
    "metrics": os.environ["RAY_enable_metrics_collection"],
    "token": open(token).read(),
    "rights": stat.S_IMODE(os.stat(token).st_mode),
    "session": [given["--temp-dir"], stat.S_IMODE(os.stat(os.path.dirname(given["--temp-dir"])).st_mode)],
})
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
os.makedirs(given["--temp-dir"])
os.chmod(given["--temp-dir"], 0o777)  # as Ray does
server = socket.create_server((given["--node-ip-address"], int(given["--port"]))) if "--head" in given else None
signal.pause()
"""
DISTGAN = """
import signal, sys, time
def end(*_):
    note("distgan-stopped", [])
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
note("distgan", sys.argv[1:])
if os.environ["DISTGAN_ENDS"] == "never":
    time.sleep(50)
sys.exit(int(os.environ["DISTGAN_ENDS"]))
"""
NOTE = """#!PYTHON
import json, os
def note(name, content):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(json.dumps([name, content]) + "\\n")
"""
# The script that waits for the nodes would need a Ray cluster; a test below tries what it does without one.
WAIT = """
import sys, time
note("wait", sys.argv[1:])
while True:
    kinds = [json.loads(line)[0] for line in open(os.environ["NOTES"])]
    if kinds.count("ray") == int(sys.argv[3]) * kinds.count("wait"):
        break
    time.sleep(0.02)
"""
PYTHON = """#!/usr/bin/env bash
if [[ $1 == */wait_for_nodes.py ]]; then exec noted "$@"; fi
exec REAL "$@"
"""


class Slurm:
    """An allocation of two nodes, both of which are this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes_file = folder / "notes"
        self.notes_file.touch()
        programs = folder / ".venv" / "bin"
        programs.mkdir(parents=True)
        scripts = {
            "srun": SRUN,
            "ray": RAY,
            "distgan": DISTGAN,
            "scontrol": 'import sys\nnote("scontrol", sys.argv[1:])\n',
        }
        scripts["hostname"] = f'print("{ADDRESS} 10.9.9.9")\n'
        scripts["noted"] = WAIT
        for name, body in scripts.items():
            (programs / name).write_text(NOTE.replace("PYTHON", sys.executable) + body)
        (programs / "python").write_text(PYTHON.replace("REAL", sys.executable))
        for program in programs.iterdir():
            program.chmod(0o755)
        shutil.copytree(CLUSTER / "slurm", folder / "cluster" / "slurm")
        self.environment = {
            "PATH": os.defpath,
            "NOTES": str(self.notes_file),
            "SLURM_SUBMIT_DIR": str(folder),
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_CPUS_PER_TASK": "3",
            "SLURM_GPUS_ON_NODE": "1",
        }

    def start(self, script: str, *arguments: str, ends: str = "0", **more: str) -> subprocess.Popen[str]:
        """Starts a batch script as slurmd does: a copy, elsewhere, with the environment of the job."""
        spooled = self.folder / "slurm_script"
        shutil.copy(CLUSTER / "slurm" / script, spooled)
        return subprocess.Popen(
            ["/bin/bash", spooled, *arguments],
            cwd=self.folder,
            env={**self.environment, "DISTGAN_ENDS": ends, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def notes(self, name: str) -> list[Any]:
        lines = [json.loads(line) for line in self.notes_file.read_text().splitlines()]
        return [content for kind, content in lines if kind == name]

    def wait_for(self, name: str, process: subprocess.Popen[str]) -> None:
        while not self.notes(name):
            assert process.poll() is None, process.stdout.read() if process.stdout else ""
            time.sleep(0.02)


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    made = Slurm(tmp_path)
    yield made
    assert not list(Path("/tmp").glob(f"distgan-{made.environment['SLURM_JOB_ID']}*"))
    assert not list((tmp_path / ".distgan" / "slurm").glob("*"))


def test_a_job_starts_ray_and_runs_the_command_on_it(slurm: Slurm) -> None:
    arguments = ["dcgan-bricks", "data.url=s3://b/with space", "--name", 'it\'s $HOME `x` "quoted" *']
    job = slurm.start("train.sbatch", *arguments, ends="3", RAY_AUTH_TOKEN="of another cluster")
    assert job.wait() == 3

    (srun,) = slurm.notes("srun")
    assert {"--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=3"} <= set(srun)
    started = slurm.notes("ray")
    heads = [node for node in started if "--head" in node["arguments"]]
    (worker,) = (node for node in started if node not in heads)
    (head,) = heads
    assert all(node["arguments"][0] == "start" for node in started)
    options, of_worker = (ray_start_options(node["arguments"][1:]) for node in (head, worker))
    assert options["node_ip_address"] == options["dashboard_host"] == of_worker["node_ip_address"] == ADDRESS
    assert (options["num_cpus"], options["num_gpus"], options["block"]) == (3, 1, True)
    assert (of_worker["num_cpus"], of_worker["num_gpus"], of_worker["block"]) == (3, 1, True)
    assert options["object_store_memory"] == of_worker["object_store_memory"] == 1_000_000_000
    # Ray gives its workers 10002 to 19999, Linux gives connections those from 32768 on.
    ports = [options["port"], options["dashboard_port"], options["ray_client_server_port"]]
    assert len(set(ports)) == 3
    assert all(20000 <= port < 32768 for port in ports)
    address = f"{ADDRESS}:{options['port']}"
    assert of_worker["address"] == address
    assert slurm.notes("distgan") == [["train", *arguments, "--address", address]]
    (wait,) = slurm.notes("wait")
    assert wait[1:3] == [address, "2"]


def test_nobody_else_enters_rays_sessions(slurm: Slurm) -> None:
    """Ray opens its folder to everyone; the one around it is this user's."""
    assert slurm.start("train.sbatch", "quickstart").wait() == 0
    sessions = dict(node["session"] for node in slurm.notes("ray"))
    assert len(sessions) == 2
    assert set(sessions.values()) == {0o700}
    # A socket's path may have 107 bytes, with a session's name of 43 and /sockets/plasma_store.
    longest = max(len(folder) for folder in sessions) + len("9" * 10) - len(slurm.environment["SLURM_JOB_ID"])
    assert longest + 1 + 43 + len("/sockets/plasma_store") <= 107


def test_the_token_is_the_jobs_own(slurm: Slurm) -> None:
    for _ in range(2):
        assert slurm.start("tune.sbatch", "quickstart", "--trials", "2").wait() == 0
    started = slurm.notes("ray")
    assert all(node["metrics"] == "0" for node in started)
    assert all(node["mode"] == "token" and node["rights"] == 0o600 for node in started)
    tokens = [node["token"] for node in started]
    assert all(len(token) == 64 and set(token) <= set("0123456789abcdef") for token in tokens)
    assert tokens[0] == tokens[1] != tokens[2] == tokens[3]
    assert slurm.notes("distgan")[0][:4] == ["tune", "quickstart", "--trials", "2"]
    assert not any(token in json.dumps(node["arguments"]) for node in started for token in tokens)


def test_when_time_is_over_the_command_saves_and_the_job_is_queued_again(slurm: Slurm) -> None:
    job = slurm.start("train.sbatch", "quickstart", ends="never")
    slurm.wait_for("distgan", job)
    job.send_signal(signal.SIGUSR1)
    output, _ = job.communicate()
    assert slurm.notes("distgan-stopped") == [[]]
    assert slurm.notes("scontrol") == [["requeue", slurm.environment["SLURM_JOB_ID"]]]
    assert "queued again" in output
    assert job.returncode == 143


def test_a_signal_before_the_command_starts_is_not_lost(slurm: Slurm) -> None:
    slurm.notes_file.write_text('["wait", []]\n')  # the stand-in then waits for nodes of one run more
    job = slurm.start("train.sbatch", "quickstart", ends="never")
    while len(slurm.notes("ray")) < 2:
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    with slurm.notes_file.open("a") as notes:
        notes.write('["ray", []]\n["ray", []]\n')
    job.communicate()
    assert slurm.notes("distgan") == []
    assert slurm.notes("scontrol") == [["requeue", slurm.environment["SLURM_JOB_ID"]]]


def test_a_canceled_job_is_not_queued_again(slurm: Slurm) -> None:
    job = slurm.start("train.sbatch", "quickstart", ends="never")
    slurm.wait_for("distgan", job)
    job.terminate()
    job.communicate()
    assert slurm.notes("distgan-stopped") == [[]]
    assert slurm.notes("scontrol") == []
    assert job.returncode == 143


def test_two_jobs_on_one_node_take_different_ports(slurm: Slurm) -> None:
    assert slurm.start("train.sbatch", "quickstart").wait() == 0
    (first,) = (node for node in slurm.notes("ray") if "--head" in node["arguments"])
    taken = ray_start_options(first["arguments"][1:])["port"]
    with socket.create_server((ADDRESS, taken)):
        assert slurm.start("train.sbatch", "quickstart").wait() == 0
    second = [node for node in slurm.notes("ray") if "--head" in node["arguments"]][1]
    assert ray_start_options(second["arguments"][1:])["port"] > taken
    slurm.environment["SLURM_JOB_ID"] = str(os.getpid() + 1)
    assert slurm.start("train.sbatch", "quickstart").wait() == 0
    third = [node for node in slurm.notes("ray") if "--head" in node["arguments"]][2]
    assert ray_start_options(third["arguments"][1:])["port"] != taken


def test_a_node_without_an_address_says_so(slurm: Slurm) -> None:
    job = slurm.start("train.sbatch", "quickstart", DISTGAN_INTERFACE="nonesuch0")
    output, _ = job.communicate()
    assert job.returncode != 0
    assert "nonesuch0" in output
    assert slurm.notes("ray") == []


def test_waiting_ends_with_the_process_that_starts_the_nodes() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    done = subprocess.run(
        [BIN / "python", CLUSTER / "slurm" / "wait_for_nodes.py", f"{ADDRESS}:1", "2", str(gone.pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == f"Ray at {ADDRESS}:1: the head does not come; see the lines above, and DISTGAN_INTERFACE\n"
