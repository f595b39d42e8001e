"""The published weights of an extractor: found or fetched once a machine, and checked."""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path

from distgan.config.registry import EXTRACTORS
from distgan.config.schema import Config, EvaluationConfig
from distgan.data.storage import Storage
from distgan.errors import UserError
from distgan.metrics.known import PublishedWeights, published_weights

VARIABLE = "DISTGAN_FID_WEIGHTS"


def with_weights(config: Config) -> Config:
    """The configuration with `located_weights` in it."""
    return config.model_copy(update={"evaluation": located_weights(config.evaluation)})


def located_weights(evaluation: EvaluationConfig) -> EvaluationConfig:
    """The configuration with the place of its extractor's weights in it, as other machines' processes need it.

    It is `evaluation.weights`, or the environment variable DISTGAN_FID_WEIGHTS. Raises UserError for an extractor that
    does not exist, or whose weights were not given.
    """
    EXTRACTORS.require(evaluation.extractor)
    published = published_weights(evaluation.extractor)
    if published is None:
        return evaluation
    source = evaluation.weights or os.environ.get(VARIABLE)
    if not source:
        raise UserError(
            f"evaluation.extractor={evaluation.extractor} measures with published weights, which were not given; "
            f"{_help(published)}"
        )
    return evaluation.model_copy(update={"weights": Storage.open(source).url})


def extractor_weights(evaluation: EvaluationConfig) -> Path | None:
    """The checked file that the configured extractor needs, on this machine's disk; None where it needs none.

    Remote weights are copied into the cache folder by one process of a machine while the others wait.

    Raises UserError where the file is not there, or another.
    """
    published = published_weights(evaluation.extractor)
    if published is None:
        return None
    assert evaluation.weights is not None, "the job has no place of the extractor's weights: see with_weights"
    file = Storage.open(evaluation.weights)
    if file.local_path is None:
        return _fetched(evaluation.weights, published)
    if not file.local_path.is_file():
        raise UserError(
            f"{file.url}: there are no weights of evaluation.extractor={evaluation.extractor} on this machine; "
            f"{_help(published)}"
        )
    _check(file.local_path, file.url, published)
    return file.local_path


def cache_folder() -> Path:
    """Where fetched weights are kept: below XDG_CACHE_HOME, by default ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distgan"


def _fetched(url: str, published: PublishedWeights) -> Path:
    folder, _, name = url.rpartition("/")
    path = cache_folder() / published.file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.is_file() or _digest(path) != published.sha256:
                fetched = path.with_suffix(".fetched")
                try:
                    Storage.open(folder).download(name, fetched)
                    _check(fetched, url, published)
                    fetched.replace(path)
                finally:
                    fetched.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"{path}: cannot keep {url} there: {reason}; set XDG_CACHE_HOME to another folder") from None
    return path


def _check(path: Path, source: str, published: PublishedWeights) -> None:
    found = _digest(path)
    if found != published.sha256:
        raise UserError(
            f"{source}: not the published weights: its SHA-256 begins with {found[:8]}, not {published.sha256[:8]}; "
            f"{_help(published)}"
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _help(published: PublishedWeights) -> str:
    return (
        f"download {published.file} from {published.page}, and set evaluation.weights or {VARIABLE} to its path or URL"
    )
