"""A run whose storage goes away: what waits, what is kept on this machine, and what the same command makes of it."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.chaos.proxy import Proxy
from distgan.config.schema import Config
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.storage import urls
from distgan.storage.retry import Retry
from distgan.storage.storage import Storage, UnavailableError
from distgan.tracking.run_folder import RunReporter
from distgan.training.checkpoints import checkpoint_name
from distgan.training.events import CheckpointSaved, Event, Notice, StepMetrics, Summary
from distgan.training.manifest import MANIFEST_NAME, with_checksum
from distgan.training.run_spec import RunSpec
from distgan.training.starting_point import LAST, find_checkpoint
from distgan.training.train import train
from distgan.training.unsaved import unsaved_folder
from gloo import run_until_death
from runs import (
    ALONE,
    BATCH,
    Recorder,
    assert_same_bits,
    checkpoints,
    kill_this_process,
    newest,
    run,
    script_distances,
    tiny_config,
)

pytestmark = [pytest.mark.timeout(90), pytest.mark.usefixtures("one_thread")]

STEPS = 8


def reported(config: Config, storage: str, on_event: Callable[[Event], None] = lambda _: None) -> Summary:
    """Trains or resumes a run as a command does, with its record."""
    spec = RunSpec(config, "run", storage)
    with contextlib.closing(
        RunReporter(spec.run, on_event, lambda: False, config.tracking, spec.patience_s)
    ) as reporter:
        return train(spec, ALONE, reporter)


def rows(storage: str, kind: str = "step") -> list[int]:
    lines = Storage.open(storage).read_bytes("run/metrics.jsonl").splitlines()
    return [row["step"] for row in map(json.loads, lines) if row["event"] == kind]


def curve(storage: str, folder: Path) -> list[int]:
    """The training steps that TensorBoard shows, by their real images."""
    board = Storage.open(f"{storage}/run/tensorboard")
    for name in board.list():
        board.download(name, folder / name)
    return [event.step // BATCH for event in EventAccumulator(str(folder)).Reload().Scalars("loss/generator")]


@pytest.fixture
def unhurried(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take its time for an answer."""
    monkeypatch.setattr(urls, "_S3_CONFIG", urls._S3_CONFIG | {"read_timeout": 20})


def copied_to(bucket: str, data: str) -> str:
    source, target = Storage.open(data), Storage.open(f"{bucket}/data")
    for name in set(source.list()) - {"statistics"}:
        target.write_bytes(name, source.read_bytes(name))
    return target.url


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize(
    ("mode", "passes", "words"),
    [
        ("cut", True, "s3://"),
        ("SlowDown", True, "overloaded"),
        ("InternalError", True, "as some have when they are full"),
        ("QuotaExceeded", True, "no space left in the bucket, or its quota is used up"),
        ("RequestTimeTooSkewed", True, "the clock of this machine is wrong; set it"),
        ("InvalidAccessKeyId", False, "the access key is not known"),
        ("AccessDenied", False, "access denied"),
        ("ExpiredToken", False, "the credentials have expired; renew them"),  # those of the environment cannot be
    ],
)
def test_each_fault_is_told_and_waited_for_if_it_may_pass(
    mode: str, passes: bool, words: str, proxy: Proxy, bucket: str
) -> None:
    storage = Storage.open(bucket)
    storage.write_bytes("x", bytes(100_000))
    proxy.switch(mode)
    actions: list[Callable[[], Any]] = [
        lambda: storage.read_bytes("x"), lambda: storage.read_ranges([("x", 5, 99_000)]),
        lambda: storage.write_bytes("x", bytes(9)),
    ]  # fmt: skip
    for action in actions:
        with pytest.raises(UserError, match=words) as caught:
            action()
        assert isinstance(caught.value, UnavailableError) == passes
    proxy.switch("on")
    storage.write_bytes("x", bytes(100_000))
    assert storage.read_bytes("x") == bytes(100_000)


@pytest.mark.usefixtures("unhurried")
def test_an_expired_token_of_a_file_is_read_anew(
    proxy: Proxy, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage.open(bucket)
    storage.write_bytes("x", b"abc")
    file = tmp_path / "credentials"
    keys = f"[default]\naws_access_key_id={proxy.environment['AWS_ACCESS_KEY_ID']}\n"
    keys += f"aws_secret_access_key={proxy.environment['AWS_SECRET_ACCESS_KEY']}\n"
    file.write_text(f"{keys}aws_session_token=old\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    proxy.refused = b"x-amz-security-token: old"
    lines: list[str] = []

    def renew(line: str) -> None:
        lines.append(line)
        file.write_text(keys)

    assert Retry(renew)(lambda: storage.read_bytes("x")) == b"abc"
    assert "x: the credentials have expired; renew them" in lines[0]


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        ("refuse", "here"),
        pytest.param("refuse", "bucket", marks=pytest.mark.slow),
        pytest.param("503", "here", marks=pytest.mark.slow),
        pytest.param("hang", "bucket", marks=pytest.mark.slow),
        pytest.param("InvalidAccessKeyId", "here", marks=pytest.mark.slow),
        pytest.param("InvalidAccessKeyId", "bucket", marks=pytest.mark.slow),
    ],
)
def test_a_bucket_that_stays_away_loses_nothing(
    fault: str, where: str, proxy: Proxy, bucket: str, data: str, tmp_path: Path
) -> None:
    """The same command puts into the bucket what was kept, and ends in the bits of an undisturbed run."""
    # The server takes a while for the first write to a bucket, and completes it after the client has gone.
    Storage.open(bucket).write_bytes("first", b"x")
    url = copied_to(bucket, data) if where == "bucket" else data
    patience = 0.1 if fault == "hang" else 0.02
    config = tiny_config(
        "quickstart", url, STEPS, "checkpoint.every_kimg=0.032", f"storage.patience_minutes={patience}",
        f"data.memory_mb={0 if where == 'bucket' else 99}",
    )  # fmt: skip
    run(config, str(tmp_path), "run")
    lines: list[str] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Notice):
            lines.append(event.text)
        if isinstance(event, StepMetrics) and event.step == 3:
            proxy.switch(fault)

    with pytest.raises(UserError, match=r"s3://") as caught:
        reported(config, bucket, on_event)
    kept = unsaved_folder(Storage.open(f"{bucket}/run"))
    assert f"is in {kept} on " in str(caught.value)
    assert "there the same command puts it into" in str(caught.value)
    assert any("metrics and pictures are in" in line for line in lines)
    # A refused key is not waited for, but the fault also cuts connections, which may be.
    assert fault == "InvalidAccessKeyId" or any("; waiting for it, " in line for line in lines)
    state = max(path.parent.name for path in kept.glob("checkpoints/*/state.pt"))
    assert state >= checkpoint_name(3)
    assert find_checkpoint(str(kept), default=LAST).manifest.name == state  # for --continue-from

    proxy.switch("on")
    summary = reported(config, bucket, lambda event: lines.append(getattr(event, "text", "")))
    assert f"{kept}: what the session before could not write is now in {bucket}/run" in lines
    assert not kept.exists()
    assert round(summary.resumed_at_kimg * 1000) == 16 * int(state.removeprefix("step-"))
    assert_same_bits(newest(bucket), newest(str(tmp_path)))
    assert rows(bucket) == curve(bucket, tmp_path / "board") == list(range(1, STEPS + 1))


@pytest.mark.slow
def test_what_was_kept_of_another_history_stays_here(proxy: Proxy, bucket: str, data: str, tmp_path: Path) -> None:
    config = tiny_config("quickstart", data, STEPS, "storage.patience_minutes=0.02", "checkpoint.every_kimg=0.032")
    with pytest.raises(UserError):
        reported(config, bucket, lambda event: isinstance(event, CheckpointSaved) and proxy.switch("refuse"))  # type: ignore[func-returns-value]
    proxy.switch("on")
    Storage.open(bucket).delete("run")
    kept = unsaved_folder(Storage.open(f"{bucket}/run"))
    lines: list[str] = []
    summary = reported(config, bucket, lambda event: lines.append(getattr(event, "text", "")))
    assert summary.resumed_at_kimg == 0
    assert any(line.startswith(f"{kept}: kept by a session that could not write") for line in lines)
    assert (kept / "checkpoints").exists()
    shutil.rmtree(kept)


@pytest.mark.parametrize("taken", ["the newest state", "one before it"])
def test_what_was_kept_is_put_back_where_the_storage_took_a_part_after_all(
    taken: str, proxy: Proxy, bucket: str, data: str, tmp_path: Path
) -> None:
    """A server may complete a write whose client has given up."""
    config = tiny_config("quickstart", data, STEPS, "storage.patience_minutes=0.02", "checkpoint.every_kimg=0.032")
    run(config, str(tmp_path), "run")
    with pytest.raises(UserError):
        reported(config, bucket, lambda event: isinstance(event, CheckpointSaved) and proxy.switch("refuse"))  # type: ignore[func-returns-value]
    proxy.switch("on")
    kept, target = unsaved_folder(Storage.open(f"{bucket}/run")), Storage.open(f"{bucket}/run")
    state = max(path.parent for path in kept.glob("checkpoints/*/state.pt"))
    manifest = json.loads((state / MANIFEST_NAME).read_bytes())
    if taken == "one before it":
        manifest |= {"name": checkpoint_name(1), "step": 1, "kimg": 0.016}
    target.upload(state / "state.pt", f"checkpoints/{manifest['name']}/state.pt")
    target.write_bytes(f"checkpoints/{manifest['name']}/{MANIFEST_NAME}", json.dumps(with_checksum(manifest)).encode())
    lines: list[str] = []
    reported(config, bucket, lambda event: lines.append(getattr(event, "text", "")))
    assert f"{kept}: what the session before could not write is now in {bucket}/run" in lines
    assert_same_bits(newest(bucket), newest(str(tmp_path)))


class KilledAtCheckpoint(RunReporter):
    """Dies as soon as a checkpoint is complete."""

    def event(self, event: Event) -> None:
        if isinstance(event, CheckpointSaved) and event.step == 4:
            kill_this_process()
        super().event(event)


def killed(distributed: Distributed, config: Config, storage: str) -> None:
    with contextlib.closing(KilledAtCheckpoint(Storage.open(f"{storage}/run"), print, lambda: False)) as reporter:
        train(RunSpec(config, "run", storage), distributed, reporter)


@pytest.mark.parametrize("where", [pytest.param("here", marks=pytest.mark.slow), "bucket"])
def test_a_kill_after_a_checkpoint_leaves_no_holes(where: str, bucket: str, data: str, tmp_path: Path) -> None:
    storage = bucket if where == "bucket" else str(tmp_path)
    config = tiny_config("quickstart", data, STEPS, "checkpoint.every_kimg=0.064")
    assert run_until_death(killed, 1, config, storage)[0].exit_code == -9
    assert rows(storage)[:4] == [1, 2, 3, 4]
    killed_in = int(time.time())
    while int(time.time()) == killed_in:
        time.sleep(0.01)  # TensorBoard orders files by the second in their names
    assert reported(config, storage).resumed_at_kimg == 0.064
    assert rows(storage) == curve(storage, tmp_path / "board") == list(range(1, STEPS + 1))
    assert rows(storage, "checkpoint") == [4, STEPS]


def test_metrics_are_not_dropped_where_no_checkpoint_can_be_read(data: str, tmp_path: Path) -> None:
    config = tiny_config("quickstart", data, 2, "checkpoint.every_kimg=0.016")
    reported(config, str(tmp_path))
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    for manifest in (tmp_path / "run" / "checkpoints").glob("*/manifest.json"):
        manifest.unlink()
    with pytest.raises(
        UserError, match=r"checkpoints up to step-000000002, of which none can be read; restore .*--name"
    ):
        reported(config, str(tmp_path))
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


@pytest.mark.usefixtures("every_checkpoint")
def test_the_best_and_the_last_are_kept_in_a_bucket_and_a_damaged_one_is_passed_over(
    bucket: str, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_distances(monkeypatch, 5.0, 7.0, 6.0, 8.0, 8.0)
    config = tiny_config("quickstart", data, 4, "evaluation.every_kimg=0.016")
    run(config, bucket)
    store = checkpoints(bucket)
    assert store.names() == [checkpoint_name(step) for step in (1, 3, 4)]
    before = newest(bucket)
    Storage.open(f"{bucket}/run/checkpoints/{checkpoint_name(4)}").write_bytes("state.pt", b"half")
    summary, recorder = run(config, bucket)
    assert summary.resumed_at_kimg == 0.048
    assert [notice.text.rpartition("; ")[2] for notice in recorder.of(Notice)] == ["resuming from step-000000003"]
    assert_same_bits(newest(bucket), before)


@pytest.mark.slow
def test_a_slow_server_changes_nothing(proxy: Proxy, bucket: str, data: str, tmp_path: Path) -> None:
    config = tiny_config("quickstart", copied_to(bucket, data), STEPS, "checkpoint.every_kimg=0.032")
    run(config, str(tmp_path))
    proxy.switch("slow")
    reported(config, bucket)
    assert_same_bits(newest(bucket), newest(str(tmp_path)))
    assert rows(bucket) == list(range(1, STEPS + 1))


@pytest.mark.usefixtures("every_checkpoint")
@pytest.mark.parametrize(("minutes", "saved"), [("1e-6", [2, 4, 5]), ("60", [5])])
def test_checkpoints_by_time_come_at_log_steps(minutes: str, saved: list[int], data: str, tmp_path: Path) -> None:
    keys = [f"checkpoint.every_minutes={minutes}", "training.log_every=2"]
    _, recorder = run(tiny_config("quickstart", data, 5, *keys), str(tmp_path))
    assert isinstance(recorder, Recorder)
    assert [event.step for event in recorder.of(CheckpointSaved)] == saved
