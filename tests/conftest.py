"""Fixtures for the whole suite: a real S3 server, a fresh bucket in it, bricks, torch's threads, the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

# Processes of pytest share the processors: torch's threads of one would wait for those of another.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks.chaos.proxy import Proxy
from command_line import Cli
from distgan.storage import retry, urls
from distgan.storage.s3_server.server import StoreHandle, down, up
from distgan.storage.storage import Storage
from distgan.training.checkpoints import CheckpointStore
from messages import without_circumstances
from runs import pack_bricks

# In the background of a shell that is no terminal's, SIGINT is ignored, and under nohup SIGHUP, also by the commands
# that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's own cache folder, nor takes weights that the user has named."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        for variable in ("DISTGAN_FID_WEIGHTS", "DISTGAN_DINOV2_WEIGHTS"):
            patch.delenv(variable, raising=False)
        yield


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("skips")
    group.addoption("--strict-skips", action="store_true", help="fail where a test is skipped")
    group.addoption("--may-skip", action="append", default=[], help="file or test that --strict-skips lets pass")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With --strict-skips a skipped test that --may-skip does not name fails the session."""
    if not session.config.getoption("strict_skips") or hasattr(session.config, "workerinput"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    assert reporter is not None
    allowed = tuple(session.config.getoption("may_skip"))
    unnamed = [report.nodeid for report in reporter.stats.get("skipped", []) if not report.nodeid.startswith(allowed)]
    if unnamed:
        reporter.write_line(f"skipped, but not named by --may-skip: {', '.join(unnamed)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


_STOP_WHEN_ORPHANED = """
import pathlib, sys
from distgan.storage.s3_server.server import down
sys.stdin.read()
down(pathlib.Path(sys.argv[1]))
"""


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreHandle]:
    """A SeaweedFS server on free ports, with the AWS variables of this process set to it.

    A second process stops the server when this one is killed: its standard input ends then.
    """
    directory = tmp_path_factory.mktemp("store")
    guard = subprocess.Popen(
        [sys.executable, "-c", _STOP_WHEN_ORPHANED, str(directory)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        handle = up(directory)
        with pytest.MonkeyPatch.context() as patch:
            for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
                patch.delenv(name, raising=False)
            for name, value in handle.environment().items():
                patch.setenv(name, value)
            yield handle
    finally:
        down(directory)
        guard.kill()
        guard.communicate()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of a data set of rendered bricks at 16x16."""
    return pack_bricks(tmp_path_factory.mktemp("bricks"))


@pytest.fixture(autouse=True, scope="module")
def threads_as_before() -> Iterator[None]:
    """A loop that runs in this process sets its torch threads; the next module has those of before."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def one_thread(threads_as_before: None) -> None:
    """One torch thread, as the workers of `gloo.py` have: another number gives other bits."""
    torch.set_num_threads(1)


@pytest.fixture
def every_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is left out, however busy the machine is: each waits for the one before."""
    save = CheckpointStore.save

    def wait_and_save(store: CheckpointStore, *arguments: Any, **options: Any) -> bool:
        store.wait()
        return save(store, *arguments, **options)

    monkeypatch.setattr(CheckpointStore, "save", wait_and_save)


@pytest.fixture
def bucket(object_store: StoreHandle) -> str:
    """The URL of a new, empty bucket."""
    url = f"s3://test-{uuid.uuid4().hex[:12]}"
    Storage.open(url).ensure()
    return url


@pytest.fixture
def proxy(object_store: StoreHandle, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy of the server, which the AWS variables name; requests and retries are quick."""
    proxy = Proxy(object_store.environment())
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    quick = {"connect_timeout": 1, "read_timeout": 0.5, "retries": {"total_max_attempts": 1}}
    monkeypatch.setattr(urls, "_S3_CONFIG", urls._S3_CONFIG | quick)
    monkeypatch.setattr(retry, "_FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(retry, "_LONGEST_PAUSE_S", 0.1)
    yield proxy
    proxy.close()


@pytest.fixture
def same_words(snapshot: SnapshotAssertion) -> Callable[..., None]:
    """Compares a message with its snapshot, in which `{name}` is each of the places given by name.

    `pytest --snapshot-update` renews it.
    """

    def compare(message: str, **places: object) -> None:
        assert without_circumstances(message, places) == snapshot

    return compare


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """The command line, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return Cli(capsys, monkeypatch)
