"""Jobs of a Ray cluster through its dashboard: submit, list, inspect, stop."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError

from distgan.errors import UserError
from distgan.launch.jobs.bootstrap import SUBMITTED_FROM, to_text, versions
from distgan.launch.jobs.command import entry_point
from distgan.launch.jobs.packaging import pack_distgan, pack_environment, pack_folder
from distgan.launch.jobs.profiles import Cluster
from distgan.launch.ray_internals import job_client
from distgan.text import command

_TIMEOUT_S = (10.0, 120.0)  # to connect, and between bytes

_SAVING_S = 600  # for a stopped job to save its state before Ray kills it

_NO_TOKEN = (
    "it asks for a token and there is none here; set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, or token_file of the "
    "cluster's profile"
)

_AGENT_TRIES = 3

_HOOK = "distgan.launch.jobs.bootstrap.load_environment"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")

_ENDED = {"SUCCEEDED", "FAILED", "STOPPED"}


@dataclass(frozen=True)
class JobState:
    """The state of a job in Ray.

    Attributes:
        status: PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED.
        entry_point: the shell command that it runs.
        message: Ray's explanation of the status.
        began, ended: seconds since 1970; None where unknown.
        driver_code: its exit code; None where Ray ended it.
    """

    id: str
    status: str
    entry_point: str
    message: str
    began: float | None
    ended: float | None
    driver_code: int | None

    @property
    def has_ended(self) -> bool:
        return self.status in _ENDED

    @property
    def exit_code(self) -> int:
        """As in the shell: 143 of a stopped job; of a killed one 128 plus the signal's number."""
        if self.status == "STOPPED":
            return 143
        code = self.driver_code
        if code is None:
            return 0 if self.status == "SUCCEEDED" else 1
        return code if code >= 0 else 128 - code


class Jobs:
    """The jobs of a cluster that runs this environment's version of Ray.

    Every method raises UserError where the cluster does not answer, or refuses.
    """

    def __init__(self, cluster: Cluster) -> None:
        # Ray prefers these variables to the address that it is given.
        kept = {name: os.environ.pop(name, None) for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")}
        headers = {} if cluster.token is None else {"Authorization": f"Bearer {cluster.token}"}
        try:
            self.client: Any = job_client(cluster.address, headers, _TIMEOUT_S)
        except AuthenticationError:
            raise UserError(f"Ray at {cluster.address}: {_NO_TOKEN}") from None
        finally:
            os.environ.update({name: value for name, value in kept.items() if value is not None})
        self._cluster = cluster
        _check_version(self.client, cluster.address)

    @property
    def named(self) -> tuple[str, ...]:
        """The options that name the cluster in another command."""
        return self._cluster.named

    def submit(
        self,
        arguments: Sequence[str],
        *,
        variables: dict[str, str] | None = None,
        folder: Path | None = None,
        files: Sequence[Path] = (),
        pip: Sequence[str] = (),
    ) -> str:
        """Ships what the command needs and starts it; returns the job's id.

        Args:
            arguments: of `distgan`; the first is the command's name.
            variables: of all processes of the job, hidden from others.
            folder: the job's working folder, of which `files` are shipped.
            pip: requirements to install for it.
        """
        job = f"{arguments[0]}-{secrets.token_hex(4)}"
        environment: dict[str, Any] = {
            "env_vars": {
                SUBMITTED_FROM: to_text(versions()),
                "RAY_JOB_STOP_WAIT_TIME_S": str(_SAVING_S),
            }
        }
        with tempfile.TemporaryDirectory(prefix="distgan-") as temporary, _request_errors(self._cluster):
            packed = Path(temporary)
            pack_distgan(packed / "distgan.zip")
            environment["py_modules"] = [self.client.upload(packed / "distgan.zip")]
            if variables:
                pack_environment(variables, packed / "environment.zip")
                environment["py_modules"].append(self.client.upload(packed / "environment.zip"))
                environment["worker_process_setup_hook"] = _HOOK
            if folder is not None:
                pack_folder(folder, files, packed / "folder.zip")
                environment["working_dir"] = self.client.upload(packed / "folder.zip")
            if pip:
                environment["pip"] = list(pip)
            self._start(job, entry_point(arguments), environment)
        return job

    def _start(self, job: str, line: str, environment: dict[str, Any]) -> None:
        """Starts a job. A head that has just started refuses jobs for a while, each time after 10 s."""
        for _ in range(_AGENT_TRIES):
            try:
                self.client.submit_job(entrypoint=line, submission_id=job, runtime_env=environment)
            except RuntimeError as error:
                if "No available agent" not in str(error):
                    raise
            else:
                return
        raise UserError(
            f"Ray at {self._cluster.address}: it takes no jobs: the agent of its head does not answer; look at "
            f"dashboard_agent.log there, and whether another Ray holds the agent's port, 52365"
        )

    def state(self, job: str) -> JobState:
        """Raises UserError also for an unknown job."""
        _check_id(job, self._cluster)
        with _request_errors(self._cluster, job):
            return _state(self.client.get_job_info(job))

    def all(self) -> list[JobState]:
        """The submitted jobs, the oldest first."""
        with _request_errors(self._cluster):
            found = [_state(details) for details in self.client.list_jobs() if details.type.value == "SUBMISSION"]
        return sorted(found, key=lambda state: state.began or 0.0)

    def ask_to_stop(self, job: str) -> None:
        """Asks a job to save its state and end, and returns at once."""
        _check_id(job, self._cluster)
        with _request_errors(self._cluster, job):
            self.client.stop_job(job)

    def log(self, job: str) -> str:
        """The output of a job so far."""
        _check_id(job, self._cluster)
        with _request_errors(self._cluster, job):
            text: str = self.client.get_job_logs(job)
            return text


@contextmanager
def _request_errors(cluster: Cluster, job: str | None = None) -> Iterator[None]:
    """Turns the client's errors into a UserError."""
    where = f"Ray at {cluster.address}"
    try:
        yield
    except AuthenticationError as error:
        raise UserError(f"{where}: {_refusal(error)}") from None
    except OSError as error:
        raise UserError(f"{where}: no answer ({_reason(error)}); check the connection") from None
    except (RuntimeError, ValueError) as error:
        if "404" in str(error) and "does not exist" in str(error):
            raise UserError(f"{where}: {_no_job(str(job), cluster)}") from None
        last = [line for line in str(error).splitlines() if line.strip()][-1:]  # of a traceback from there
        raise UserError(f"{where}: refused: {''.join(last)[-300:]}") from None


def _check_version(client: Any, address: str) -> None:
    where = f"Ray at {address}"
    try:
        reply = client.request("GET", "/api/version")
    except AuthenticationError as error:
        raise UserError(f"{where}: {_refusal(error)}") from None
    except OSError as error:
        raise UserError(
            f"{where}: nothing answers there ({_reason(error)}); check the address and that the cluster is up, or open "
            f"a way to it, as with ssh -L 8265:localhost:8265 HEAD"
        ) from None
    version = None
    with suppress(ValueError, AttributeError):
        version = reply.json().get("ray_version")
    if reply.status_code != 200 or not isinstance(version, str):
        raise UserError(
            f"{where}: what listens there does not answer as Ray's dashboard does (status {reply.status_code}); check "
            f"the address; it is that of the dashboard, by default port 8265 of the head"
        )
    if version != ray.__version__:
        raise UserError(
            f"{where}: the cluster runs Ray {version:.40}, and here is {ray.__version__}; install one version"
        )


def _refusal(error: AuthenticationError) -> str:
    if str(error).startswith("Authentication required"):
        return _NO_TOKEN
    return (
        "the token is not that of this cluster; look at token_file of its profile, RAY_AUTH_TOKEN or "
        "RAY_AUTH_TOKEN_PATH"
    )


def _reason(error: BaseException) -> str:
    """The cause of an error, in a few words."""
    while error.__context__ is not None and error.__context__ is not error:
        error = error.__context__
    text = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return str(text).rpartition(">: ")[2][-300:]


def _check_id(job: str, cluster: Cluster) -> None:
    if not _ID.fullmatch(job):
        raise UserError(_no_job(job, cluster))


def _no_job(job: str, cluster: Cluster) -> str:
    return f"there is no job {job!r:.80}; `{command('jobs', 'list', *cluster.named)}` shows them"


def _state(details: Any) -> JobState:
    return JobState(
        id=details.submission_id,
        status=details.status.value,
        entry_point=details.entrypoint,
        message=details.message or "",
        began=None if details.start_time is None else details.start_time / 1000,
        ended=None if not details.end_time else details.end_time / 1000,
        driver_code=details.driver_exit_code,
    )
