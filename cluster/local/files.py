"""Files for shells, nodes and `distgan submit`: the token, credentials, variables, the profile."""

from __future__ import annotations

import json
import os
import secrets
import shlex
from pathlib import Path

from cluster.local.state import State
from distgan.storage.local_files import write_private
from distgan.storage.s3_server.server import REGION, StoreHandle

FILES = ("token", "credentials", "clusters.toml", "env.sh")

# These would have priority over the files named here.
_UNSET = ("RAY_AUTH_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE",
          "AWS_ENDPOINT_URL_S3")  # fmt: skip


def environment(directory: Path, state: State) -> dict[str, str]:
    """Variables that nodes and users need: authentication and the S3 server. They contain no secret."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(directory / "token"),
        "AWS_SHARED_CREDENTIALS_FILE": str(directory / "credentials"),
        "AWS_ENDPOINT_URL": state.endpoint,
        "AWS_DEFAULT_REGION": REGION,
    }


def without_foreign_settings() -> dict[str, str]:
    """This process's environment without settings of other clusters, stores or networks."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "AWS_")) and not name.lower().endswith("_proxy")
    }


def write_files(directory: Path, state: State, store: StoreHandle) -> None:
    write_private(directory / "token", secrets.token_hex(32))
    keys = f"aws_access_key_id = {store.access_key}\naws_secret_access_key = {store.secret_key}\n"
    write_private(directory / "credentials", f"[default]\n{keys}")
    # A JSON string is a TOML string too.
    profile = {"address": state.api, "token_file": str(directory / "token")}
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in profile.items()]
    write_private(directory / "clusters.toml", "".join(["[local]\n", *lines]))
    exports = environment(directory, state) | {
        "RAY_API_SERVER_ADDRESS": state.api,
        "DISTGAN_CLUSTERS": str(directory / "clusters.toml"),
        "DISTGAN_CLUSTER": "local",
    }
    addresses = ",".join([state.gateway, state.head.address])
    shell = [f"unset {' '.join(_UNSET)}\n"]
    shell += [f"export {name}={shlex.quote(value)}\n" for name, value in exports.items()]
    shell += [f'export {name}="${{{name}:+${name},}}{addresses}"\n' for name in ("NO_PROXY", "no_proxy")]
    write_private(directory / "env.sh", "".join(shell))
