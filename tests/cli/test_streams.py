"""Standard streams that fail, a terminal that closes: state is saved, or the command goes on quietly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import Cli
from distgan.launch.signals import end_on_signals, output_closed, stop_on_signals
from distgan.storage.storage import Storage
from distgan.training.checkpoints import CheckpointStore
from runs import TINY

pytestmark = pytest.mark.timeout(120)

SHOW = [sys.executable, "-m", "distgan", "presets", "show", "quickstart"]


def closed_pipe() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.fixture
def full() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def test_a_reader_that_has_ended_ends_a_command_quietly() -> None:
    ended = subprocess.run(SHOW, stdout=closed_pipe(), stderr=subprocess.PIPE, check=False, timeout=60)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, b"")


def test_an_output_that_cannot_be_written_is_one_line(full: int) -> None:
    ended = subprocess.run(SHOW, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr.startswith("distgan: error: standard output: No space left on device")
    assert ended.stderr.count("\n") == 1


def test_a_mistake_that_nobody_reads_keeps_its_exit_code(full: int) -> None:
    for stream in (full, closed_pipe()):
        ended = subprocess.run([*SHOW[:3], "nonsense"], stdout=stream, stderr=stream, check=False, timeout=60)
        assert ended.returncode == 2


def test_closed_streams_are_as_dev_null() -> None:
    command = f"exec {' '.join(SHOW)} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], check=False, timeout=60).returncode == 0


def test_a_full_pipe_that_does_not_block_is_waited_for() -> None:
    script = "from distgan.cli.streams import protect_streams; protect_streams(); print('x' * 300_000)"
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        assert len(file.read()) == 300_001
    assert process.communicate(timeout=60)[1] == b""


def test_letters_that_the_encoding_lacks_are_spelled_out() -> None:
    script = "from distgan.cli.streams import protect_streams; protect_streams(); print('½ …')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    printed = subprocess.run([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, check=True)
    assert printed.stdout == b"\\xbd \\u2026\n"


def test_a_closed_terminal_asks_to_stop_and_only_ctrl_c_again_is_an_order() -> None:
    with stop_on_signals() as wish:
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM):
            signal.raise_signal(number)
        assert wish.exit_code == 128 + signal.SIGHUP
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_nohup_is_kept() -> None:
    kept = signal.signal(signal.SIGHUP, signal.SIG_IGN), signal.getsignal(signal.SIGTERM)
    try:
        end_on_signals()
        with stop_on_signals() as wish:
            signal.raise_signal(signal.SIGHUP)
            output_closed()
            assert not wish.requested
    finally:
        for number, handler in zip((signal.SIGHUP, signal.SIGTERM), kept, strict=True):
            signal.signal(number, handler)


def test_a_lost_output_is_a_wish_to_stop() -> None:
    with stop_on_signals() as wish:
        output_closed()
        assert wish.exit_code == 128 + signal.SIGPIPE


def test_a_deleted_working_folder_is_one_line(tmp_path: Path) -> None:
    script = f"import os, shutil, sys; shutil.rmtree({str(tmp_path)!r}); os.execv(sys.executable, {SHOW!r})"
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("distgan: error: the working folder cannot be used: No such file or directory")
    assert ended.stderr.count("\n") == 1


def test_pictures_do_not_ask_for_the_backend_of_a_notebook(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """matplotlib raises as it is imported, where the kernel's package is not there."""
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    assert Cli(capfd, monkeypatch)("--version").code == 0
    subprocess.run([sys.executable, "-c", "import matplotlib"], check=True, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "code"), [("reader", 141), ("terminal", 129), ("disk", 0)])
def test_a_run_whose_output_is_lost_saves_its_state(data: str, tmp_path: Path, full: int, lost: str, code: int) -> None:
    kimg = "0.5" if lost == "disk" else "100000"
    process = subprocess.Popen(
        [sys.executable, "-m", "distgan", "train", "quickstart", f"data.url={data}", *TINY, f"training.kimg={kimg}",
         "--no-ray", "--storage", str(tmp_path), "--name", "run"],
        stdout=full if lost == "disk" else subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    if process.stdout is not None:
        assert any(" images/s" in line for line in process.stdout)
        if lost == "terminal":
            process.send_signal(signal.SIGHUP)
        else:
            process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    assert process.wait(60) == code, errors
    assert ("distgan: warning: standard output: No space left on device" in errors) == (lost == "disk")
    assert CheckpointStore(Storage.open(f"{tmp_path}/run")).newest_manifest() is not None
