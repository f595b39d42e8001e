"""Private names of Ray that distgan uses: why each is needed, and what breaks without it.

No other file of distgan uses a private name of Ray. `tests/launch/test_ray_internals.py` checks each of them alone
and says which one a new release of Ray has moved.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import grpc
import psutil
import ray
from ray.exceptions import RayError

from distgan import __version__
from distgan.config.scale import ScaleConfig
from distgan.errors import UserError
from distgan.launch.preemption import Preemption

# Those of pyproject.toml.
SUPPORTED = ">=2.54.1,<2.61"

try:
    from ray._private import ray_constants, services, state, worker
    from ray._private.authentication.authentication_utils import is_token_auth_enabled
    from ray._private.grpc_utils import init_grpc_channel
    from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
    from ray._raylet import Config  # type: ignore[attr-defined]
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc
    from ray.train.v2._internal.execution import context
    from ray.train.v2._internal.execution.callback import ControllerCallback
    from ray.train.v2._internal.execution.controller import TrainController
    from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
except ImportError as error:
    raise UserError(
        f"Ray {ray.__version__}: distgan {__version__} does not support it ({error}); pip install 'ray{SUPPORTED}'"
    ) from None

Trainer = TypeVar("Trainer", bound=Any)

# `module:name` or `module:Class.member`; in parentheses a parameter, after empty ones an attribute of an object.
PRIVATE: Mapping[str, str] = {
    "ray:init(_temp_dir)": "A folder of the user for sockets, logs and code. Else Ray opens /tmp/ray to everyone.",
    "ray._private.ray_constants:ENABLE_RAY_CLUSTER": "Ray reads it as it is imported. Else its ports are open to all.",
    "ray._private.ray_constants:ENABLE_RAY_CLUSTERS_ENV_VAR": "The same for Ray's processes. Else theirs are open.",
    "ray._private.ray_constants:GCS_PORT_ENVIRONMENT_VARIABLE": "The port of a head that is started here, so that its "
    "address is known before. Else Ray's processes look for a cluster in /tmp and may take another one for theirs.",
    "ray._private.ray_constants:RAY_ADDRESS_ENVIRONMENT_VARIABLE": "Where they find that address.",
    "ray._private.services:ConsolePopen": "Ray's processes get a group of their own and do not take SIGTERM. Else a "
    "closed terminal, systemd or Slurm ends them before a run has saved its state.",
    "ray._private.services:canonicalize_bootstrap_address": "The head behind `--address auto`. Else it cannot be "
    "checked before Ray connects, which takes minutes to fail.",
    "ray._private.authentication.authentication_utils:is_token_auth_enabled": "Whether this process sends a token. "
    "Else a wrong token and a missing one give one message.",
    "ray._raylet:Config.initialize": "Ray reads RAY_AUTH_MODE again. Else a user must set it before `import ray`.",
    "ray._private.grpc_utils:init_grpc_channel": "A channel to the head, with Ray's token and TLS. Else a wrong "
    "address is noticed late.",
    "ray.core.generated.gcs_service_pb2:CheckAliveRequest": "Asks the head for its version. Else another version's "
    "cluster ends in a traceback.",
    "ray.core.generated.gcs_service_pb2_grpc:NodeInfoGcsServiceStub": "Sends that request.",
    "ray._private.runtime_env.constants:RAY_JOB_CONFIG_JSON_ENV_VAR": "What a submitted job already ships. Else its "
    "workers lose it when a run adds modules of a user.",
    "ray._private.worker:print_to_stdstream": "What Ray prints of its processes. Else a lost node prints 50 lines.",
    "ray._private.worker:_global_node": "The node's session folder. Else doctor cannot say what disk Ray writes to.",
    "ray._private.state:actors": "Finds Ray Train's controller. Else Ctrl-C in a wait for nodes leaves the wait alive.",
    "ray.train.v2._internal.execution.controller:TrainController": "The class name by which it is found. A trial of a "
    "search runs it in its own process. Else each trial starts one more, for seconds.",
    "ray.train.v2._internal.execution.controller:TrainController.run": "Runs it there.",
    "ray.train.v2._internal.execution.controller:TrainController.get_result": "What has become of the run.",
    "ray._private.worker:global_worker": "The core worker of this process, which can end an actor by its id.",
    "ray._raylet:CoreWorker.kill_actor": "Ends that controller, of which there is no handle.",
    "ray.train.v2.api.data_parallel_trainer:DataParallelTrainer._create_default_callbacks": "What a run starts "
    "beside its workers. Else it has two more processes that do nothing and load Ray Train for seconds.",
    "ray.train.v2._internal.callbacks.datasets:DatasetsCallback": "One of them: splits data sets of Ray Data.",
    "ray.train.v2._internal.callbacks.placement_group_callback:PlacementGroupCleanerCallback": "The other one: "
    "frees the resources of a run whose controller was killed. A cluster that ends with the run needs none.",
    "ray.train.v2.api.data_parallel_trainer:DataParallelTrainer._initialize_and_run_controller": "Gets the policy of "
    "how many workers a run has. Else a cluster of one machine starts a process for requests to autoscalers.",
    "ray.train.v2._internal.execution.scaling_policy:FixedScalingPolicy": "That policy for a fixed number of workers.",
    "ray.train.v2._internal.execution.scaling_policy:FixedScalingPolicy._send_resource_request": "Its first request, "
    "for which the workers wait.",
    "ray.train.v2._internal.execution.scaling_policy:FixedScalingPolicy._maybe_send_resource_request": "Further ones.",
    "ray.train.v2._internal.execution.scaling_policy:FixedScalingPolicy._cancel_resource_request": "Their end.",
    "ray.train.v2._internal.exceptions:WorkerHealthCheckFailedError": "Ray's error about a killed worker, with its "
    "reason as an attribute. Else a killed worker looks like a bug.",
    "ray.train.v2._internal.exceptions:WorkerHealthCheckTimeoutError": "The class name for a worker that hangs.",
    "ray.train.v2._internal.exceptions:WorkerGroupStartupFailedError": "The class name for workers that die early.",
    "ray.train.v2._internal.exceptions:WorkerGroupStartupTimeoutError": "The class name for a wait for places.",
    "ray.train.v2._internal.execution.callback:ControllerCallback.after_controller_state_update": "Called at each "
    "restart. The public callback misses preemptions and workers that die early, which Ray restarts without limit.",
    "ray.train.v2._internal.execution.controller.state:RestartingState": "The class name of a restart.",
    "ray.train.v2._internal.execution.controller.state:ReschedulingState": "The class name of one before training.",
    "ray.train.v2._internal.execution.context:get_train_context": "A worker's notice of a preemption, without the "
    "barrier of `ray.train.get_preemption_info`.",
    "ray.train.v2._internal.execution.preemption:PreemptionContext()preemption_info": "That notice.",
    "ray.train.v2._internal.constants:WORKER_GROUP_START_TIMEOUT_S_ENV_VAR": "How long an elastic run waits for lost "
    "workers. Else 60 s.",
    "ray.train.v2._internal.constants:WORKER_HEALTH_CHECK_TIMEOUT_S_ENV_VAR": "How long a frozen process is waited "
    "for. Else 10 minutes.",
    "ray.dashboard.modules.dashboard_sdk:SubmissionClient._do_request": "Time limits, and no redirect that takes the "
    "token along. Else `distgan jobs` waits for ever on a dashboard that hangs.",
    "ray.dashboard.modules.dashboard_sdk:SubmissionClient._check_connection_and_version": "Skipped: distgan checks the "
    "version itself. Else a wrong address gives Ray's traceback.",
    "ray.dashboard.modules.dashboard_sdk:SubmissionClient._upload_package_if_needed": "Ships code and variables as "
    "files of a job. Else variables are in the job's description, which everyone can read.",
    "ray._private.state:state.get_draining_nodes": "Notices of preemptions, outside of Ray Train. Else a trial on a "
    "spot node loses what it has trained since its checkpoint.",
    "ray.tune.execution.tune_controller:TuneController(_actor_cache)": "How many actors wait for their next trial. "
    "Else Tune keeps one, and a generation of a population starts processes for the other members.",
    "ray.tune.utils.object_cache:_ObjectCache.increase_max": "Raises that number.",
    "ray.tune.schedulers:MedianStoppingRule()._stopped_trials": "A trial whose stop was overruled. Else the rule's own "
    "assertion ends the search at its next result.",
}


def head_address(address: str) -> str:
    """`HOST:PORT` of `auto`, the cluster of this machine. Raises ConnectionError where there is none."""
    return services.canonicalize_bootstrap_address(address) or ""


def sends_token() -> bool:
    """Whether this process authenticates with a token."""
    return bool(is_token_auth_enabled())


def send_token() -> None:
    """From now on this process, and those that it starts, authenticate with the user's token."""
    os.environ["RAY_AUTH_MODE"] = "token"
    Config.initialize("")


def head_version(address: str, timeout_s: float) -> str:
    """Ray's version at a head. Raises grpc.RpcError, or ray.exceptions.AuthenticationError without a token."""
    with init_grpc_channel(address) as channel:
        head = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)  # type: ignore[no-untyped-call]
        request = gcs_service_pb2.CheckAliveRequest()  # type: ignore[attr-defined]
        return str(head.CheckAlive(request, timeout=timeout_s).ray_version)


def head_answers(address: str, timeout_s: float) -> bool:
    """Whether a head answers in time."""
    try:
        return bool(head_version(address, timeout_s))
    except (grpc.RpcError, RayError):
        return False


def submitted_environment() -> dict[str, Any] | None:
    """The runtime environment of the submitted job that this process belongs to; None outside a job."""
    given = os.environ.get(RAY_JOB_CONFIG_JSON_ENV_VAR)
    found: dict[str, Any] | None = None if given is None else json.loads(given)["runtime_env"]
    return found


@contextmanager
def loopback_only() -> Iterator[None]:
    """Inside, what Ray starts listens on 127.0.0.1 alone.

    By default most of Ray's ports are open on all addresses of a machine. Ray has this switch for systems whose
    firewalls ask about such ports.
    """
    kept = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with _environment({ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = kept


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Inside, the environment has these variables; afterwards they are as before."""
    kept = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in kept.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def start_local(folder: Path, **options: Any) -> None:
    """`ray.init` of a cluster on this machine, with its sockets, logs and shipped code below `folder`."""
    with _shielded_processes(), _known_address():
        ray.init(address="local", _temp_dir=str(folder), **options)


@contextmanager
def _known_address() -> Iterator[None]:
    """Inside, Ray starts a head at an address that its processes have in their environment.

    Otherwise Ray Train asks for the state of its controller at the address that the last `ray start` on this machine
    has left in a file of /tmp. Where that head is gone, the end of a run takes 12 s longer; where it is another
    cluster, the controller counts as dead.
    """
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    variables = {
        ray_constants.GCS_PORT_ENVIRONMENT_VARIABLE: str(port),
        ray_constants.RAY_ADDRESS_ENVIRONMENT_VARIABLE: f"127.0.0.1:{port}",
    }
    with _environment(variables):
        yield


class _ShieldedProcess(services.ConsolePopen):
    """A process of Ray that neither a signal to the group of this process nor SIGTERM to every process ends.

    A closing terminal and `timeout` send the first, systemd and Slurm the second; a run must save its state first.
    This process ends what it has started. Where it is killed, the kernel does.
    """

    def __init__(self, command: Sequence[str], *, preexec_fn: Callable[[], None], **options: Any) -> None:
        def block_sigterm() -> None:
            preexec_fn()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # what it starts inherits this

        super().__init__(command, **(options | {"preexec_fn": block_sigterm, "process_group": 0}))

    def terminate(self) -> None:
        """Kills it and all that it has started."""
        with suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.pid)
            started = found.children(recursive=True)
            self.kill()
            for process in started:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(started, timeout=1)


@contextmanager
def _shielded_processes() -> Iterator[None]:
    """Inside, Ray starts `_ShieldedProcess`."""
    kept = services.ConsolePopen
    services.ConsolePopen = _ShieldedProcess  # type: ignore[misc,assignment]
    try:
        yield
    finally:
        services.ConsolePopen = kept  # type: ignore[misc]


def session_folder() -> Path | None:
    """The session folder of the Ray node that this process belongs to."""
    node = worker._global_node
    return None if node is None else Path(node.get_session_dir_path())


_print = worker.print_to_stdstream


def edit_ray_messages(edit: Callable[[str], str]) -> None:
    """From now on this process prints messages about Ray's nodes as `edit` returns them, unless that is empty."""

    def print_edited(data: dict[str, Any], ignore_prefix: bool = False) -> None:
        if data.get("pid") == "raylet":
            data = data | {"lines": [edited for message in data["lines"] if (edited := edit(message))]}
        _print(data, ignore_prefix)

    worker.print_to_stdstream = print_edited


_START_LIMIT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"

_HEALTH_LIMIT = "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"


@contextmanager
def time_limits(scale: ScaleConfig) -> Iterator[None]:
    """Inside, a run of Ray Train restarts workers that are frozen for `scale.hang_minutes`.

    An elastic one waits `scale.replacement_seconds` for places, and then counts them again. Ray takes both from
    variables alone.
    """
    seconds = {_HEALTH_LIMIT: str(60 * scale.hang_minutes)}
    if scale.min_workers is not None:
        seconds[_START_LIMIT] = str(scale.replacement_seconds)
    with _environment({name: os.environ.get(name, value) for name, value in seconds.items()}):
        yield


def kill_train_controllers() -> None:
    """Ends the Ray Train runs of this driver."""
    job = ray.JobID.from_hex(ray.get_runtime_context().get_job_id())
    for actor, facts in state.actors(job_id=job, actor_state_name="ALIVE").items():
        if facts["ActorClassName"] == "TrainController":
            worker.global_worker.core_worker.kill_actor(ray.ActorID.from_hex(actor), True)  # type: ignore[attr-defined]


def health_check_failure(error: BaseException) -> BaseException:
    """What is behind Ray Train's error about a worker that it could not reach; another error itself."""
    found: BaseException = getattr(error, "health_check_failure", error)
    return found


def is_hang(error: BaseException) -> bool:
    """Whether a worker has not answered Ray Train in time."""
    return type(error).__name__ == "WorkerHealthCheckTimeoutError"


def is_startup_failure(error: BaseException) -> bool:
    """Whether workers died before they trained."""
    return type(error).__name__ == "WorkerGroupStartupFailedError"


def is_startup_timeout(error: BaseException) -> bool:
    """Whether Ray has found no places for workers in time. It tries again."""
    return type(error).__name__ == "WorkerGroupStartupTimeoutError"


RestartCallback = ControllerCallback


def restart_failure(controller_state: Any) -> Exception | None:
    """Why Ray Train's controller restarts the workers; None for its other states."""
    if type(controller_state).__name__ not in {"RestartingState", "ReschedulingState"}:
        return None
    failure: Exception = controller_state.training_failed_error
    return failure


def preemption_of(source: Any) -> Preemption | None:
    """The notice in Ray Train's error about a preemption; None for other errors."""
    info = getattr(source, "preemption_info", None)
    if info is None:
        return None
    deadline = None if info.deadline_ms is None else info.deadline_ms / 1000
    return Preemption(deadline, {node: tuple(ranks) for node, ranks in info.preempted_node_to_ranks.items()})


def draining_notice() -> Preemption | None:
    """The notice that this process's node will be preempted, for the only worker of a run."""
    here = ray.get_runtime_context().get_node_id()
    deadlines = state.state.get_draining_nodes()
    return Preemption(deadlines[here] / 1000 or None, {here: (0,)}) if here in deadlines else None


def keep_actors(controller: Any, kind: Any, count: int) -> None:
    """A search keeps so many actors that have these resources while they have no trial."""
    controller._actor_cache.increase_max(kind, count)


def preemption_notice() -> Preemption | None:
    """The notice of a preemption that this worker of Ray Train has received."""
    return preemption_of(getattr(context.get_train_context(), "preemption_context", None))


class _NoRequests(FixedScalingPolicy):
    """A fixed number of workers, of which no autoscaler is told."""

    def _send_resource_request(self) -> None: ...

    def _maybe_send_resource_request(self) -> None: ...

    def _cancel_resource_request(self) -> None: ...


def without_idle_processes(trainer: Trainer, own_cluster: bool) -> Trainer:
    """The trainer, whose run starts no process that it has no use for.

    Args:
        trainer: of Ray Train.
        own_cluster: whether the cluster is this machine, and ends with this run.
    """
    unused = {"DatasetsCallback"} | ({"PlacementGroupCleanerCallback"} if own_cluster else set())
    create: Callable[[], list[Any]] = trainer._create_default_callbacks
    trainer._create_default_callbacks = lambda: [one for one in create() if type(one).__name__ not in unused]
    run: Callable[..., Any] = trainer._initialize_and_run_controller

    def run_alone(**parts: Any) -> Any:
        if type(parts["scaling_policy"]) is FixedScalingPolicy:
            parts["scaling_policy"] = _NoRequests(trainer.scaling_config)
        return run(**parts)

    if own_cluster:
        trainer._initialize_and_run_controller = run_alone
    return trainer


def with_controller_here(trainer: Trainer) -> Trainer:
    """The trainer, whose controller runs in the thread that calls `fit`, not in a process of its own.

    That thread has to be one of an actor, on whose end Ray frees the workers.
    """

    def run(**parts: Any) -> Any:
        controller = TrainController(**parts)
        asyncio.run(controller.run())  # type: ignore[no-untyped-call]
        return controller.get_result()

    trainer._initialize_and_run_controller = run
    return trainer


def job_client(address: str, headers: Mapping[str, str], timeout_s: tuple[float, float]) -> Any:
    """A client of the job service at a dashboard, which it does not contact yet.

    Every request ends within `timeout_s` (to connect, between bytes) and follows no redirect. Two methods are added:
    `request(method, path)` returns a response, `upload(file)` the URI of an uploaded zip file.
    """
    from ray.job_submission import JobSubmissionClient  # takes 0.3 s

    logging.getLogger("ray.dashboard.modules.dashboard_sdk").setLevel(logging.ERROR)
    logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.ERROR)

    class Client(JobSubmissionClient):
        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            return super()._do_request(method, endpoint, timeout=timeout_s, allow_redirects=False, **options)

        def _check_connection_and_version(self, *arguments: Any, **options: Any) -> None:
            """`launch.jobs.client` does it."""

        def request(self, method: str, path: str) -> Any:
            return self._do_request(method, path)

        def upload(self, file: Path) -> str:
            return str(self._upload_package_if_needed(str(file), include_gitignore=False, is_file=True))

    return Client(address, headers=dict(headers))


def overrule_stop(rule: Any, trial: Any) -> None:
    """Makes a `MedianStoppingRule` keep judging a trial that it has stopped."""
    rule._stopped_trials.discard(trial)
