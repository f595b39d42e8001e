"""Where the published weights of an extractor come from."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import pwd
from pathlib import Path

import fsspec
import pytest

from distgan.config.load import load_config
from distgan.errors import UserError
from distgan.evaluation.extractors import published, weights
from distgan.evaluation.extractors.published import KnownExtractor, PublishedWeights
from distgan.evaluation.extractors.weights import cache_folder, extractor_weights, with_weights
from distgan.storage.storage import Storage

pytestmark = pytest.mark.timeout(60)

VARIABLE = "DISTGAN_PORT_WEIGHTS"
BYTES = b"weights" * 1000
PUBLISHED = PublishedWeights("port.pth", hashlib.sha256(BYTES).hexdigest(), "https://example.org/port", VARIABLE)


@pytest.fixture(autouse=True)
def _weights_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(published, "KNOWN", {name: KnownExtractor(2048, PUBLISHED) for name in ("fid", "fid_clean")})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "given.pth"
    path.write_bytes(BYTES)
    return path


def found(*overrides: str) -> Path | None:
    return extractor_weights(with_weights(load_config("quickstart", list(overrides))).evaluation)


def test_an_extractor_with_weights_of_its_own_needs_none() -> None:
    assert found() is None


def test_a_path_in_the_configuration_goes_before_the_variable(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/nowhere.pth")
    assert found("evaluation.extractor=fid", f"evaluation.weights={file}") == file


def test_the_variable_reaches_other_machines_as_an_absolute_path(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    monkeypatch.setenv(VARIABLE, file.name)
    config = with_weights(load_config("quickstart", ["evaluation.extractor=fid_clean"]))
    assert config.evaluation.weights == str(file)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "evaluation.extractor=fid needs published weights, which are not set; download port.pth from "),
        (
            ["evaluation.weights=/nowhere.pth"],
            "/nowhere.pth: no weights of evaluation.extractor=fid on this machine; download port.pth ",
        ),
    ],
)
def test_missing_weights_are_one_line_that_says_where_to_get_them(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        found("evaluation.extractor=fid", *overrides)
    assert str(caught.value).startswith(message)


def test_a_file_with_another_hash_is_refused(file: Path) -> None:
    file.write_bytes(BYTES[:-1])
    with pytest.raises(UserError, match=rf"{file}: not the published weights: its SHA-256 begins with .*port\.pth"):
        found("evaluation.extractor=fid", f"evaluation.weights={file}")


def test_remote_weights_are_fetched_once(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whichever process comes first, while the others wait; then they are read from the cache."""
    url = f"{bucket}/weights/port.pth"
    with fsspec.open(url, "wb") as remote:
        remote.write(BYTES)
    downloads, download = tmp_path / "downloads", Storage.download

    def counted(self: Storage, name: str, local: Path) -> None:
        with downloads.open("a") as log:
            log.write(f"{name}\n")
        download(self, name, local)

    monkeypatch.setattr(Storage, "download", counted)
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=found, args=("evaluation.extractor=fid", f"evaluation.weights={url}")) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert downloads.read_text() == "port.pth\n"
    fsspec.open(url, "wb").fs.rm(url)
    monkeypatch.setattr(weights, "locked", None)  # a folder that this user can read, but not write to
    path = found("evaluation.extractor=fid", f"evaluation.weights={url}")
    assert path == cache_folder() / "port.pth"
    assert path.read_bytes() == BYTES


def test_fetched_weights_with_another_hash_are_not_kept(bucket: str) -> None:
    url = f"{bucket}/weights/other.pth"
    with fsspec.open(url, "wb") as remote:
        remote.write(BYTES[:-1])
    with pytest.raises(UserError, match="not the published weights"):
        found("evaluation.extractor=fid", f"evaluation.weights={url}")
    assert [path.suffix for path in cache_folder().iterdir()] == [".lock"]


def test_weights_that_cannot_be_kept_are_fetched_for_the_process(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{bucket}/weights/alone.pth"
    with fsspec.open(url, "wb") as remote:
        remote.write(BYTES)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING, "distgan"):
        path = found("evaluation.extractor=fid", f"evaluation.weights={url}")
    assert path is not None
    assert path.read_bytes() == BYTES
    assert [f"{url}: cannot be stored in {tmp_path}/file/distgan (" in said for said in caplog.messages] == [True]


def test_a_user_without_a_home_has_a_cache_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() == Path("/nonexistent/.cache/distgan")
