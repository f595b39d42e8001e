"""Models on the Hugging Face hub, by `hf://USER/NAME` or `hf://USER/NAME@REVISION`: files from there, errors in a line.

Needs the package huggingface_hub, the extra `hub`. It keeps the cache, the token and the address (`HF_ENDPOINT`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distgan.errors import UserError
from distgan.storage.storage import NotFoundError, Storage, translate_errors
from distgan.storage.storage_errors import http_status

SCHEME = "hf://"

_NO_MODELS = tuple(f"{SCHEME}{kind}/" for kind in ("datasets", "spaces", "buckets", "kernels"))

_NAME = re.compile(r"(?=.{3,96}$)(?!.*(--|[.][.]|[.]git$))\w([\w.-]*\w)?/\w([\w.-]*\w)?", re.ASCII)

LOG_IN = "run `hf auth login`, or set HF_TOKEN"


@dataclass(frozen=True)
class HubModel:
    """A repository of the kind `model`.

    Attributes:
        name: USER/NAME.
        revision: a branch, a tag or a commit; None for `main`.
    """

    name: str
    revision: str | None = None

    @property
    def url(self) -> str:
        return f"{SCHEME}{self.name}" + ("" if self.revision is None else f"@{self.revision}")

    def folder(self, name: str, most: int) -> Storage:
        """The cached folder of the revision's newest commit, with the file `name` in it. Its URL is the model's.

        Without a network it is the one that was cached last.

        Raises:
            NotFoundError: there is no such file.
            UserError: for no such model or revision, a file of more than `most` bytes, and what the hub refuses.
        """
        with hub_requests(self.url):
            from huggingface_hub import hf_hub_download

            found = hf_hub_download(self.name, name, revision=self.revision, dry_run=True)
            if found.file_size is None or found.file_size > most:
                size = "an unknown size" if found.file_size is None else f"{found.file_size:,} bytes"
                raise UserError(
                    f"{self.url}/{name}: has {size}, and such a file at most {most:,} bytes; give another model"
                )
            path = Path(hf_hub_download(self.name, name, revision=self.revision))
        return Storage(self.url, "file", str(path.parent))


def hub_model(url: str) -> HubModel | None:
    """The model that a URL names; None for a URL of anything else. Raises UserError for a name that none has."""
    if not url.startswith(SCHEME) or url.startswith(_NO_MODELS):
        return None
    name, separator, revision = url.removeprefix(SCHEME).rstrip("/").partition("@")
    if separator and not revision:
        raise UserError(f"{url}: there is no revision after the @; write {SCHEME}USER/NAME@REVISION")
    return HubModel(checked_name(name), revision or None)


def checked_name(name: str) -> str:
    """Raises UserError for what is no USER/NAME of the hub."""
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r:.120}: not a name on the hub; write USER/NAME, of letters, digits, `-`, `_` and `.`")
    return name


@contextmanager
def hub_requests(url: str) -> Iterator[None]:
    """Turns what the hub and its package raise into a `UserError` that names `url`, or NotFoundError for a file.

    The package shows its bars on a terminal only.
    """
    try:
        with _bars_on_terminals():
            yield
        return
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001 - what is none of these is raised again
        # Uploads in threads, and downloads without a copy in the cache, wrap what the hub answered.
        wraps = isinstance(error, RuntimeError) or _is_kind(error, _NOT_CACHED)
        failure = error.__cause__ if wraps and isinstance(error.__cause__, Exception) else error
    line = _line(failure)
    if line is not None:
        raise (NotFoundError if line is _NO_FILE else UserError)(f"{url}: {line}")
    with translate_errors(url):
        raise failure


@contextmanager
def _bars_on_terminals() -> Iterator[None]:
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _line(error: Exception) -> str | None:
    if isinstance(error, ImportError):
        return f"the hub needs {(error.name or '').partition('.')[0]}; pip install 'distgan[hub]'"
    for kind, line in _BY_KIND.items():
        if _is_kind(error, kind):
            return line
    return _BY_STATUS.get(http_status(error) or 0)


_NOT_CACHED = "LocalEntryNotFoundError"

_NO_FILE = "not found in the model's files"

_UNREACHABLE = "the hub cannot be reached; check the network and HF_ENDPOINT"

# The first that fits.
_BY_KIND = {
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set, and the hub is needed; unset it",
    _NOT_CACHED: _UNREACHABLE,
    "TransportError": _UNREACHABLE,
    "GatedRepoError": f"its owner asks for consent; give it on the model's page, and {LOG_IN}",
    "DisabledRepoError": "the hub has disabled it; give another model",
    "RepositoryNotFoundError": f"no such model on the hub, or a private one; check the name, or {LOG_IN}",
    "RevisionNotFoundError": "the model has no such revision; name a branch, a tag or a commit",
    "EntryNotFoundError": _NO_FILE,
}

_BY_STATUS = {
    401: f"the hub does not accept the token (HTTP 401); {LOG_IN} to a valid one",
    403: "the token has no right to that (HTTP 403); check the name, and that the token may write there",
}


def _is_kind(error: Exception, name: str) -> bool:
    """Whether an error is of a class of this name. Some are of httpx or httpx2, by the version of huggingface_hub."""
    return any(kind.__name__ == name for kind in type(error).__mro__)
