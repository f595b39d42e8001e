"""Uploads a generator to the Hugging Face hub: what `distgan export` writes, in one commit. No file is a pickle."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

from distgan.errors import DamagedError, UserError
from distgan.inference.export import FILES, ExportFormat, export_generator
from distgan.inference.exported import CARD, CONFIG, ExportedConfig, read_config, read_exported
from distgan.inference.hub import LOG_IN, SCHEME, HubModel, checked_name, hub_requests
from distgan.inference.model_card import FILL_IN, PLACE
from distgan.storage.storage import Storage

_MOST_CARD_BYTES = 2**20


@dataclass(frozen=True)
class Push:
    """What was uploaded.

    Attributes:
        page: the model's page on the hub.
        files: their names.
        to_fill_in: the card has gaps, for the data set and the license.
    """

    page: str
    files: list[str]
    config: ExportedConfig
    to_fill_in: bool


def push_generator(
    source: str,
    name: str,
    formats: Sequence[ExportFormat] | None = None,
    checkpoint: str | None = None,
    *,
    private: bool | None = None,
    trust_code: bool = False,
) -> Push:
    """Uploads the averaged generator of a run or checkpoint, or an exported folder as it is, to the model `name`.

    The model is made if it does not exist. Files of former exports that are not written again are deleted there.

    Args:
        source: folder or URL of a run, a checkpoint or an exported generator.
        name: USER/NAME.
        formats: see `export_generator`; by default safetensors. Not for an exported folder.
        checkpoint: `best`, `last` or a checkpoint's name, where `source` is a run.
        private: of a new model; None for the default of the user's account.
        trust_code: modules outside distgan that the checkpoint names may be imported.

    Raises UserError for what cannot be exported, a name that none can have, and what the hub refuses.
    """
    model = HubModel(checked_name(name.removeprefix(SCHEME)))
    with hub_requests(model.url):
        from huggingface_hub import get_token

        if get_token() is None:
            raise UserError(f"{model.url}: you are not logged in to the hub; {LOG_IN}")
    folder = Storage.open(source)
    if (exported := read_config(folder)) is not None:
        for option, given in (("--format", formats), ("--checkpoint", checkpoint)):
            if given is not None:
                raise UserError(f"{option}: {source} is exported, and is uploaded as it is; leave {option} out")
        return _upload(model, _contents(folder, exported), exported, private)
    with tempfile.TemporaryDirectory(prefix="distgan-") as temporary:
        made = export_generator(source, temporary, formats or ("safetensors",), checkpoint, trust_code=trust_code)
        return _upload(model, _contents(Storage.open(temporary), made.config), made.config, private)


def _contents(folder: Storage, exported: ExportedConfig) -> dict[str, bytes]:
    """The files of an exported folder by name. Raises DamagedError for others than distgan writes."""
    unknown = [name for name in exported.files if name not in FILES.values()]
    if unknown or not exported.files:
        raise DamagedError(
            f"{folder.url}: its {CONFIG} lists {unknown[0] if unknown else 'no file'!r:.60}; export it again"
        )
    files = {name: read_exported(folder, name, exported) for name in exported.files}
    return files | {
        CONFIG: folder.read_bytes(CONFIG),
        CARD: folder.read_bytes(CARD, most=_MOST_CARD_BYTES),
    }


def _upload(model: HubModel, files: dict[str, bytes], exported: ExportedConfig, private: bool | None) -> Push:
    files[CARD] = files[CARD].replace(PLACE.encode(), model.url.encode())
    with hub_requests(model.url):
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

        api = HfApi(library_name="distgan", library_version=exported.distgan)
        page = api.create_repo(model.name, private=private, exist_ok=True)
        former = [name for name in api.list_repo_files(model.name) if name in FILES.values() and name not in files]
        api.create_commit(
            model.name,
            [
                *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=data) for name, data in files.items()),
                *(CommitOperationDelete(path_in_repo=name) for name in former),
            ],
            commit_message=f"{exported.checkpoint}, exported by distgan {exported.distgan}",
        )
    return Push(str(page), list(files), exported, FILL_IN.encode() in files[CARD])
