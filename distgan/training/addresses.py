"""Addresses that strangers name: in a run's checkpoint, a search's record, or a configuration at a URL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from distgan.config.load import flatten
from distgan.config.schema import Config
from distgan.data.storage import Storage
from distgan.errors import UserError

# What a configuration has read, and, beside the data, statistics written.
ADDRESS_KEYS = ("data.url", "evaluation.statistics", "evaluation.weights")

# The host of their URLs is that of the user's own environment; the first part is a bucket or the like.
_WITHOUT_HOST = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "hf": "hf"}


def addresses_elsewhere(config: Config, source: str, keys: Iterable[str] = ADDRESS_KEYS) -> dict[str, str]:
    """Of `keys` those whose address is on another host than `source`, the file or folder that names them.

    Paths of this machine are everybody's. Nothing is contacted.
    """
    values = flatten(config.model_dump())
    named = {key: values[key] for key in keys if values[key] is not None}
    here = _host(Storage.open(source))
    return {key: url for key, url in named.items() if (host := _host(Storage.open(url))) is not None and host != here}


def check_addresses(config: Config, source: str, keys: Iterable[str], way: str) -> None:
    """Raises UserError, before anything is contacted, where a configuration's address is on another host than `source`.

    Whoever wrote it chooses what this machine talks to. `way` says how the user takes that on.
    """
    elsewhere = addresses_elsewhere(config, source, keys)
    if elsewhere:
        listed = ", ".join(f"{key}={url!r:.200}" for key, url in elsewhere.items())
        raise UserError(
            f"{source}: its configuration reads from another place than its own ({listed}); if these are the addresses "
            f"that you expect, {way}"
        )


def keys_not_given(overrides: Sequence[str]) -> list[str]:
    """Of `ADDRESS_KEYS` those that no `KEY=VALUE` of the user names."""
    given = [override.partition("=")[0].strip() for override in overrides]
    return [key for key in ADDRESS_KEYS if not any(key == one or key.startswith(f"{one}.") for one in given)]


def _host(storage: Storage) -> tuple[str, str] | None:
    """Whom a contact would be with; None for this machine's disk."""
    if storage.is_local:
        return None
    if storage.protocol in _WITHOUT_HOST:
        return _WITHOUT_HOST[storage.protocol], ""
    return storage.protocol, storage.url.partition("://")[2].partition("/")[0]
