"""What is private of Ray is in one file, and a new release of Ray that moves one of those names is told which."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial, reduce
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import grpc
import psutil
import pytest
import ray
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal import constants
from ray.train.v2._internal.execution.scaling_policy import create_scaling_policy
from ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client import (
    TrainAutoscalingCoordinatorClient,
)
from ray.tune.schedulers import MedianStoppingRule

import distgan.launch.placement.process_group
import distgan.search.ray.hooks
import distgan.search.ray.schedulers
import distgan.search.ray.trial
from distgan.config.scale import ScaleConfig
from distgan.errors import UserError
from distgan.launch import ray_internals
from distgan.search.ray.schedulers import MedianStopping
from distgan.search.ray.schedulers import PastTrial as Trial
from processes import wait_for

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).parents[2]

FILE = "distgan/launch/ray_internals.py"

PRIVATE = re.compile(r"ray(\.\w+)*\.(_(?!_)\w+|generated|dashboard)\b")


@pytest.mark.parametrize("name", ray_internals.PRIVATE)
def test_a_private_name_is_where_it_was(name: str) -> None:
    module, _, path = name.partition(":")
    path, parenthesis, rest = path.partition("(")
    parameter, _, attribute = rest.partition(")")
    found = reduce(getattr, path.split("."), importlib.import_module(module))
    if parameter:
        assert f'"{parameter}"' in inspect.getsource(found)  # taken from **kwargs
    elif parenthesis:
        assert hasattr(found(), attribute.removeprefix("."))


def python_files() -> Iterator[Path]:
    for folder in ("distgan", "benchmarks", "cluster", "examples"):
        yield from sorted((ROOT / folder).rglob("*.py"))


def private_names(tree: ast.AST) -> Iterator[str]:
    """What a file imports of Ray's insides, reaches through `ray.`, or gives to `ray.init`, as far as it is private."""
    for node in ast.walk(tree):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            found = [ast.unparse(node)]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("ray."):
            found = [f"ray.init.{keyword.arg}" for keyword in node.keywords]
        yield from (name for name in found if PRIVATE.match(name))


def test_nothing_private_of_ray_is_used_elsewhere() -> None:
    found = {
        str(file.relative_to(ROOT)): names
        for file in python_files()
        if "ray" in (text := file.read_text()) and (names := sorted(set(private_names(ast.parse(text)))))
    }
    assert found.pop(FILE), "the search finds what is there"
    assert found == {}


def test_each_import_has_its_reason() -> None:
    modules = {name.partition(":")[0] for name in ray_internals.PRIVATE}
    known = {name.partition("(")[0].replace(":", ".") for name in ray_internals.PRIVATE}
    for node in ast.walk(ast.parse((ROOT / FILE).read_text())):
        if isinstance(node, ast.ImportFrom) and PRIVATE.match(f"{node.module}.x.") is not None:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                assert name in modules or any(f"{one}.".startswith(f"{name}.") for one in known), name
    for name, reason in ray_internals.PRIVATE.items():
        assert reason.endswith("."), name


def test_a_ray_without_one_of_them_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray._private.grpc_utils", None)
    with pytest.raises(UserError) as error:
        importlib.reload(ray_internals)
    assert re.fullmatch(r"Ray .* does not support it \(.*grpc_utils.*\); pip install 'ray(.*)'", str(error.value))
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (declared,) = (Requirement(one) for one in dependencies if one.startswith("ray"))
    assert declared.specifier == SpecifierSet(ray_internals.SUPPORTED)


@pytest.mark.parametrize(
    "module",
    [
        distgan.launch.placement.process_group,
        distgan.search.ray.hooks,
        distgan.search.ray.schedulers,
        distgan.search.ray.trial,
    ],
)
def test_no_class_overrides_what_is_private_of_ray(module: ModuleType) -> None:
    for _, own in inspect.getmembers(module, inspect.isclass):
        theirs = {name for base in own.__mro__ if base.__module__.startswith("ray.") for name in vars(base)}
        private = {name for name in vars(own) if name.startswith("_") and not name.endswith("_")} - {"_abc_impl"}
        assert own.__module__.startswith("ray.") or not private & theirs, own


# How Ray uses the names


def test_ray_looks_its_switches_up_when_it_starts_something() -> None:
    services, worker = ray_internals.services, ray_internals.worker
    assert "ray_constants.ENABLE_RAY_CLUSTER" in inspect.getsource(services), "the address that its servers listen on"
    assert re.search(r"\bConsolePopen\(", inspect.getsource(services.start_ray_process))
    assert len(re.findall(r"\bprint_to_stdstream\b", inspect.getsource(worker))) > 1
    assert issubclass(services.ConsolePopen, subprocess.Popen)


def test_a_head_tells_its_version() -> None:
    messages, service = ray_internals.gcs_service_pb2, ray_internals.gcs_service_pb2_grpc

    class Head(service.NodeInfoGcsServiceServicer):  # type: ignore[misc]
        def CheckAlive(self, request: object, context: object) -> object:
            return messages.CheckAliveReply(ray_version="1.2.3")

    server = grpc.server(ThreadPoolExecutor(1))
    service.add_NodeInfoGcsServiceServicer_to_server(Head(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert ray_internals.head_version(f"127.0.0.1:{port}", 10.0) == "1.2.3"
        assert ray_internals.head_answers(f"127.0.0.1:{port}", 10.0)
    finally:
        server.stop(None).wait()
    assert not ray_internals.head_answers(f"127.0.0.1:{port}", 1.0)


def test_requests_to_a_dashboard_have_a_limit_and_follow_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[tuple[object, ...], dict[str, object]]] = []

    def request(*words: object, **options: object) -> SimpleNamespace:
        asked.append((words, options))
        return SimpleNamespace(status_code=200, text="")

    monkeypatch.setattr("requests.request", request)
    client = ray_internals.job_client("http://127.0.0.1:1", {"Authorization": "Bearer t"}, (1.0, 2.0))
    assert asked == [], "nothing is asked yet"
    client.request("GET", "/api/version")
    [(words, options)] = asked
    assert "http://127.0.0.1:1/api/version" in words
    assert (options["timeout"], options["allow_redirects"]) == ((1.0, 2.0), False)
    headers = options["headers"]
    assert isinstance(headers, dict)
    assert headers["Authorization"] == "Bearer t"


def test_an_uploaded_file_has_an_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client = ray_internals.job_client("http://127.0.0.1:1", {}, (1.0, 1.0))
    sent: list[str] = []
    monkeypatch.setattr(client, "_package_exists", lambda uri: False)
    monkeypatch.setattr(client, "_upload_package", lambda uri, path, **options: sent.append(uri))
    (tmp_path / "a.zip").write_bytes(b"zip")
    assert client.upload(tmp_path / "a.zip").startswith("gcs://_ray_pkg_")
    assert len(sent) == 1


def test_a_process_reads_its_variables_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t" * 32)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    ray_internals.Config.initialize("")
    assert not ray_internals.sends_token()
    try:
        ray_internals.send_token()
        assert ray_internals.sends_token()
    finally:
        monkeypatch.undo()
        ray_internals.Config.initialize("")
    assert not ray_internals.sends_token()


def test_no_ray_on_this_machine_is_a_connection_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_internals.services, "find_gcs_addresses", set)
    with pytest.raises(ConnectionError):
        ray_internals.head_address("auto")


def test_outside_of_ray_there_is_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert ray.is_initialized() or ray_internals.session_folder() is None
    assert ray_internals.submitted_environment() is None
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", '{"runtime_env": {"py_modules": ["a"]}}')
    assert ray_internals.submitted_environment() == {"py_modules": ["a"]}


def test_a_stop_can_be_overruled() -> None:
    rule = MedianStopping(grace_kimg=0.5)
    first, *others, last = (Trial(str(number), {"number": number}) for number in range(5))
    judge: Any = partial(MedianStoppingRule.on_trial_result, rule, None)
    for trial in (first, *others):
        assert judge(trial, {"kimg": 1, "score": 1.0}) == "CONTINUE"
    assert judge(last, {"kimg": 1, "score": 2.0}) == "STOP"
    with pytest.raises(AssertionError):
        judge(last, {"kimg": 2, "score": 2.0})
    ray_internals.overrule_stop(rule, last)
    assert judge(last, {"kimg": 2, "score": 0.5}) == "CONTINUE"


@pytest.mark.parametrize("before", [None, "1"])
def test_the_loopback_switch_is_as_before_also_after_a_failure(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = ray_internals.ray_constants
    variable = constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    monkeypatch.setattr(constants, "ENABLE_RAY_CLUSTER", True)
    monkeypatch.delenv(variable, raising=False)
    if before is not None:
        monkeypatch.setenv(variable, before)

    def fail() -> None:
        with ray_internals.loopback_only():
            assert (constants.ENABLE_RAY_CLUSTER, os.environ[variable]) == (False, "0")
            raise ConnectionError

    with pytest.raises(ConnectionError):
        fail()
    assert constants.ENABLE_RAY_CLUSTER
    assert os.environ.get(variable) == before


def test_the_address_of_a_cluster_of_our_own_is_known_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    seen: list[dict[str, str]] = []
    monkeypatch.setattr(ray, "init", lambda **_: seen.append(dict(os.environ)))
    ray_internals.start_local(Path("unused"))
    assert seen[0]["RAY_ADDRESS"] == f"127.0.0.1:{seen[0]['RAY_GCS_SERVER_PORT']}"
    assert os.environ["RAY_ADDRESS"] == "192.0.2.1:6379"
    assert "RAY_GCS_SERVER_PORT" not in os.environ


def test_time_limits_of_ray_train(monkeypatch: pytest.MonkeyPatch) -> None:
    start, health = constants.WORKER_GROUP_START_TIMEOUT_S_ENV_VAR, constants.WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR
    for name in (start, health):
        monkeypatch.delenv(name, raising=False)
        assert name in constants.ENV_VARS_TO_PROPAGATE
    with ray_internals.time_limits(ScaleConfig(workers=2, hang_minutes=2)):
        assert start not in os.environ
        assert os.environ[health] == "120.0"
    with ray_internals.time_limits(ScaleConfig(workers=2, min_workers=1, replacement_seconds=7)):
        assert os.environ[start] == "7.0"
    assert os.environ.keys().isdisjoint({start, health})


def test_a_run_starts_no_idle_process_but_keeps_the_cleaner_of_a_shared_cluster() -> None:
    def callbacks(trainer: TorchTrainer) -> set[str]:
        return {type(callback).__name__ for callback in trainer._create_default_callbacks()}

    def trainer() -> TorchTrainer:
        return TorchTrainer(lambda: None, scaling_config=ScalingConfig(num_workers=1))

    every = callbacks(trainer())
    assert every - callbacks(ray_internals.without_idle_processes(trainer(), False)) == {"DatasetsCallback"}
    unused = {"DatasetsCallback", "PlacementGroupCleanerCallback"}
    assert every - callbacks(ray_internals.without_idle_processes(trainer(), True)) == unused


@pytest.mark.parametrize(("own_cluster", "workers", "asks"), [(True, 2, False), (True, (1, 2), True), (False, 2, True)])
def test_no_autoscaler_is_asked_for_the_workers_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, own_cluster: bool, workers: int | tuple[int, int], asks: bool
) -> None:
    """Ray Train has a process for such requests, and workers wait for it. An elastic run learns its size from it."""
    requests: list[int] = []
    trainer = TorchTrainer(lambda: None, scaling_config=ScalingConfig(num_workers=workers))
    monkeypatch.setattr(trainer, "_initialize_and_run_controller", lambda scaling_policy: scaling_policy)
    monkeypatch.setattr(
        TrainAutoscalingCoordinatorClient, "_autoscaling_coordinator", property(lambda _: requests.append(1))
    )
    alone = ray_internals.without_idle_processes(trainer, own_cluster)
    policy = alone._initialize_and_run_controller(scaling_policy=create_scaling_policy(trainer.scaling_config))
    policy.after_controller_start(SimpleNamespace(run_id="1"))
    if not asks:
        assert policy.make_decision_for_non_running_worker_group().num_workers == workers
    policy._cancel_resource_request()
    assert bool(requests) == asks


def test_sigterm_to_every_process_does_not_end_those_of_ray(tmp_path: Path) -> None:
    """As systemd and Slurm send it. What a process of Ray's has started ends with it."""
    ready = tmp_path / "ready"
    wait = "import time; time.sleep(60)"
    code = (
        f"import pathlib, subprocess, sys; subprocess.Popen([sys.executable, '-c', '{wait}']); "
        f"pathlib.Path({str(ready)!r}).touch(); {wait}"
    )
    process = ray_internals._ShieldedProcess([sys.executable, "-c", code], preexec_fn=lambda: None)
    wait_for(ready.exists, 20)
    (child,) = psutil.Process(process.pid).children()
    for pid in (process.pid, child.pid):
        os.kill(pid, signal.SIGTERM)
    assert all(
        signal.SIGTERM in signals_of(pid, "SigPnd") | signals_of(pid, "ShdPnd") for pid in (process.pid, child.pid)
    )
    process.terminate()
    assert process.wait(10) == -signal.SIGKILL
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def signals_of(pid: int, field: str) -> set[int]:
    """The numbers in a set of signals of a process, as `SigPnd`: those that wait."""
    lines = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    bits = int(lines[field], 16)
    return {number for number in range(1, 65) if bits >> (number - 1) & 1}
