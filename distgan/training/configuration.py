"""The configuration that a user names: a preset, a file, or the URL of a file such as another run's config.yaml."""

from __future__ import annotations

from collections.abc import Sequence

from distgan.bounds import MOST_TEXT_BYTES
from distgan.config.load import load_config, parse_config
from distgan.config.schema import Config
from distgan.data.storage import NotFoundError, Storage
from distgan.errors import UserError
from distgan.training.addresses import check_addresses, keys_not_given


def read_configuration(name: str, overrides: Sequence[str] = ()) -> Config:
    """The configuration called `name`, with `KEY=VALUE` overrides.

    Raises UserError for what cannot be read or cannot work, and for a file from elsewhere that names modules outside
    distgan or addresses on other hosts than its own: whoever wrote it chooses what is run and what is contacted.
    """
    if "://" not in name:
        return load_config(name, overrides)
    folder, _, file = name.rpartition("/")
    try:
        text = Storage.open(folder).read_bytes(file, most=MOST_TEXT_BYTES).decode("utf-8")
    except NotFoundError:
        raise UserError(f"{name:.200}: no such file; name a YAML file, as the config.yaml of a run") from None
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read the configuration {name:.200}: {error}") from None
    config = parse_config(text, name, overrides)
    check_addresses(config, name, keys_not_given(overrides), "give them as KEY=VALUE, or copy the file here")
    return config
