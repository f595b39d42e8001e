"""The published weights of an extractor: found, or downloaded once per machine, and checked."""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import shutil
import uuid
from pathlib import Path

from distgan.config.plugins import EXTRACTORS
from distgan.config.schema import Config, EvaluationConfig
from distgan.errors import UserError
from distgan.evaluation.extractors.published import PublishedWeights, published_weights
from distgan.storage.local_files import cache_folder, locked, new_folder
from distgan.storage.storage import Storage

_log = logging.getLogger(__name__)


def with_weights(config: Config) -> Config:
    """The configuration with `located_weights` in it."""
    return config.model_copy(update={"evaluation": located_weights(config.evaluation)})


def located_weights(evaluation: EvaluationConfig) -> EvaluationConfig:
    """The configuration with the URL of its extractor's weights, for processes of other machines.

    The URL is `evaluation.weights`, or the environment variable of the weights. Raises UserError for an unknown
    extractor, and where neither is set.
    """
    EXTRACTORS.require(evaluation.extractor)
    published = published_weights(evaluation.extractor)
    if published is None:
        return evaluation
    source = evaluation.weights or os.environ.get(published.variable)
    if not source:
        raise UserError(
            f"evaluation.extractor={evaluation.extractor} needs published weights, which are not set; "
            f"{_help(published)}"
        )
    return evaluation.model_copy(update={"weights": Storage.open(source).url})


def extractor_weights(evaluation: EvaluationConfig) -> Path | None:
    """The checked file of weights on this machine's disk; None if the configured extractor needs none.

    One process of a machine downloads remote weights to the cache folder while the others wait; each process for
    itself if the folder cannot be written.

    Raises UserError where the file is missing or has other contents.
    """
    published = published_weights(evaluation.extractor)
    if published is None:
        return None
    assert evaluation.weights is not None, "the configuration has no URL of the extractor's weights: see with_weights"
    file = Storage.open(evaluation.weights)
    if file.local_path is None:
        return _fetched(evaluation.weights, published)
    if not file.local_path.is_file():
        raise UserError(
            f"{file.url}: no weights of evaluation.extractor={evaluation.extractor} on this machine; {_help(published)}"
        )
    _check(file.local_path, file.url, published)
    return file.local_path


def _fetched(url: str, published: PublishedWeights) -> Path:
    path = cache_folder() / published.file
    if _is_whole(path, published):  # perhaps in a folder that this user cannot write to
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock")):
            if not _is_whole(path, published):
                _fetch(url, path, published)
    except (OSError, UserError) as error:
        refused = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(refused, OSError):
            raise
        folder = new_folder()
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _fetch(url, folder / published.file, published)
        reason = refused.strerror or str(refused)
        _log.warning("%s: cannot be stored in %s (%s); downloaded for this process only", url, path.parent, reason)
        return folder / published.file
    return path


def _is_whole(path: Path, published: PublishedWeights) -> bool:
    try:
        return path.is_file() and _digest(path) == published.sha256
    except OSError:
        return False


def _fetch(url: str, path: Path, published: PublishedWeights) -> None:
    folder, _, name = url.rpartition("/")
    fetched = path.with_suffix(f".{uuid.uuid4().hex}")
    try:
        Storage.open(folder).download(name, fetched)
        _check(fetched, url, published)
        fetched.replace(path)
    finally:
        fetched.unlink(missing_ok=True)


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
        f"download {published.file} from {published.page}, and set evaluation.weights or {published.variable} to its "
        f"path or URL"
    )
