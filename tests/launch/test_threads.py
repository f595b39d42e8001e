"""How many torch threads a worker has by default."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from distgan import distributed as world_module
from distgan.distributed import Distributed, requested_threads
from distgan.training.process import choose_threads, crowding_load, prepare_process


@pytest.mark.parametrize(
    ("machine", "offered", "workers", "threads"),
    [
        (8, None, 1, 8),
        (8, None, 3, 2),
        (96, 8, 2, 4),  # a container's share of a large machine
        (2, 16, 2, 1),  # a node that offers more than there is
        (1, 1, 4, 1),
    ],
)
def test_workers_share_what_their_host_offers(
    machine: int, offered: int | None, workers: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(machine)))
    distributed = Distributed(0, workers, torch.device("cpu"), local_size=workers, processors=offered)
    assert choose_threads(None, distributed, None) == threads
    assert choose_threads(5, distributed, None) == 5
    asked = replace(distributed, threads=3)
    assert (choose_threads(None, asked, None), choose_threads(5, asked, None)) == (3, 5)


@pytest.mark.parametrize(
    ("value", "around", "threads"),
    [
        (None, {}, None),
        ("1", {}, 1),
        ("3,2", {}, 3),
        ("", {}, None),
        ("0", {}, None),
        ("-2", {}, None),
        ("many", {}, None),
        ("1", {"TORCHELASTIC_RUN_ID": "x"}, None),  # torchrun's own
        ("2", {"TORCHELASTIC_RUN_ID": "x"}, 2),
        ("1", {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}, None),  # Ray's own
        ("4", {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}, 4),
    ],
)
def test_the_variable_counts_where_the_user_has_set_it(
    value: str | None, around: dict[str, str], threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world_module, "_parent_has", lambda variable: False)
    for name in ("OMP_NUM_THREADS", "TORCHELASTIC_RUN_ID", "RAY_JOB_CONFIG_JSON_ENV_VAR"):
        monkeypatch.delenv(name, raising=False)
    for name, content in {**around, **({} if value is None else {"OMP_NUM_THREADS": value})}.items():
        monkeypatch.setenv(name, content)
    assert requested_threads() == threads


_PARENT = """
import os, subprocess, sys
os.environ["OMP_NUM_THREADS"] = "1"  # as torchrun does
os.environ["TORCHELASTIC_RUN_ID"] = "x"
code = "from distgan.distributed import requested_threads; print(requested_threads())"
subprocess.run([sys.executable, "-c", code], check=True)
"""


@pytest.mark.parametrize(("given", "told"), [({}, "None"), ({"OMP_NUM_THREADS": "1"}, "1")])
def test_what_torchrun_sets_is_told_from_what_the_user_sets(given: dict[str, str], told: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | given
    done = subprocess.run(
        [sys.executable, "-c", _PARENT], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == [told]


@pytest.mark.parametrize(
    ("load", "machine", "threads", "workers", "told"),
    [
        (0.6, 2, 2, 1, None),  # what the start itself brings
        (2.5, 2, 2, 1, 2.5),
        (2.5, 2, 1, 2, None),  # there are no fewer threads
        (3.0, 8, 4, 1, None),
        (5.5, 8, 4, 1, 5.5),
        (2.5, 8, 4, 2, 2.5),
    ],
)
def test_a_busy_machine_is_noticed(
    load: float, machine: int, threads: int, workers: int, told: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(machine)))
    monkeypatch.setattr(os, "cpu_count", lambda: machine)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    distributed = Distributed(0, workers, torch.device("cpu"), local_size=workers)
    assert crowding_load(threads, distributed) == told
    monkeypatch.setattr(os, "cpu_count", lambda: machine + 1)  # the load is that of others' processors too
    assert crowding_load(threads, distributed) is None


@pytest.fixture
def tf32_as_before() -> Iterator[None]:
    parts = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [part.allow_tf32 for part in parts]
    yield
    for part, allowed in zip(parts, before, strict=True):
        part.allow_tf32 = allowed


@pytest.mark.usefixtures("tf32_as_before")
@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_only_tf32_uses_tf32(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The switches are there on machines without a GPU too."""
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda mode, warn_only: None)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    prepare_process(torch.get_num_threads(), torch.device("cuda", 0), precision)
    assert torch.backends.cudnn.allow_tf32 == torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32")
