"""The cluster of a command, from options, profiles or variables, and its token."""

from __future__ import annotations

import ipaddress
import os
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from distgan.bounds import read_text
from distgan.errors import UserError
from distgan.text import did_you_mean

_LONGEST = 10_000

# Made by `cluster/local/up` in a checkout.
_LOCAL = Path(".distgan/cluster/env.sh")


def find_token(file: Path | None = None) -> str | None:
    """The token in `file`, else in RAY_AUTH_TOKEN, in the file RAY_AUTH_TOKEN_PATH, or in ~/.ray/auth_token.

    Raises UserError for a named file that cannot be read, and for text that is no token.
    """
    if file is not None:
        return _read_token(file, "token_file")
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return _checked(token, "RAY_AUTH_TOKEN")
    if path := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        _check_present("RAY_AUTH_TOKEN_PATH", Path(path))
        return _read_token(Path(path), "RAY_AUTH_TOKEN_PATH")
    try:
        usual = Path.home() / ".ray" / "auth_token"
        if not usual.is_file():
            return None
    except (RuntimeError, PermissionError):  # a user without a home, or with another one's
        return None
    return _read_token(usual, "the token of this user")


# What `cluster/local/up` and users set in a shell for a cluster.
_VARIABLES = (
    "RAY_ADDRESS",
    "RAY_API_SERVER_ADDRESS",
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN_PATH",
    "DISTGAN_CLUSTER",
    "DISTGAN_CLUSTERS",
)


def _check_present(variable: str, file: Path) -> None:
    """Raises UserError where the file that a variable names is not there, as after the end of a local cluster."""
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        names = " ".join(name for name in _VARIABLES if os.environ.get(name))
        raise UserError(
            f"{variable}={file}: there is no such file; is the cluster down? open a new shell, or `unset {names}`"
        ) from None
    except OSError:  # it is there, and whoever reads it says why that fails
        return


def is_plaintext(address: str) -> bool:
    """Whether others can read what is sent to a URL: plain http beyond loopback and private networks."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    if parts.scheme == "https" or host == "localhost" or host.endswith((".local", ".internal", ".svc")):
        return False
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return "." in host  # a name without a dot is one of this network
    return not (found.is_loopback or found.is_private)


def _read_token(file: Path, what: str) -> str:
    try:
        with file.open(encoding="ascii") as opened:
            token = opened.read(_LONGEST).strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it holds no token"
        raise UserError(f"{what} {file}: cannot be read: {reason}; copy the cluster's token there") from None
    return _checked(token, f"{what} {file}")


def _checked(token: str, where: str) -> str:
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(f"{where}: it holds no token, which is one word; copy the cluster's token there")
    return token


_TEXTS = ("address", "token_file", "env_file", "working_dir")

_KEYS = (*_TEXTS, "pip")


@dataclass(frozen=True)
class Cluster:
    """A cluster for jobs, with the defaults of its profile.

    Attributes:
        address: of Ray's dashboard, http:// or https:// without a path.
        token: None without one.
        token_file: the file that a profile names for it.
        env_file, working_dir, pip: defaults of the options with these names.
        named: the options that name it in another command.
    """

    address: str
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    env_file: Path | None = None
    working_dir: Path | None = None
    pip: tuple[str, ...] = ()
    named: tuple[str, ...] = ()


def find_cluster(address: str | None = None, name: str | None = None) -> Cluster:
    """The cluster at `address`, else of the profile `name` or DISTGAN_CLUSTER, else that of Ray's own variables.

    Raises UserError where none is named, for a profile that cannot be read, and for an invalid address.
    """
    if address is not None and name is not None:
        raise UserError(f"--address {address:.80} and --cluster {name:.40}: give one of them")
    if address is not None:
        return Cluster(_http(address, "--address"), find_token(), named=("--address", address))
    if name is not None or os.environ.get("DISTGAN_CLUSTER"):
        return replace(_profile(name or os.environ["DISTGAN_CLUSTER"]), named=("--cluster", name) if name else ())
    for variable in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        value = os.environ.get(variable, "")
        if value.startswith(("http://", "https://")):
            return Cluster(_http(value, variable), find_token())
    here = f"; for the one of cluster/local/up: source {_LOCAL}" if _LOCAL.is_file() else ""
    raise UserError(
        "no cluster is named: give --address http://HEAD:8265 (of Ray's dashboard), or --cluster NAME of a profile in "
        f"{profile_file()}{here}"
    )


def profile_file() -> Path:
    """DISTGAN_CLUSTERS, or clusters.toml in the user's configuration folder."""
    given = os.environ.get("DISTGAN_CLUSTERS")
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return _expanded(given or f"{home}/distgan/clusters.toml")


def _profile(name: str) -> Cluster:
    file = profile_file()
    if os.environ.get("DISTGAN_CLUSTERS"):
        _check_present("DISTGAN_CLUSTERS", file)
    profiles = _read(file)
    if name not in profiles:
        raise UserError(f"{file}: no cluster {name!r:.60}{did_you_mean(name, profiles)}")
    where, profile = f"{file}: [{name}]", profiles[name]
    if not isinstance(profile, dict):
        raise UserError(f"{file}: {name!r:.60} is a value outside a section; write [NAME], and the keys under it")
    for key, value in profile.items():
        if key == "token":
            raise UserError(f"{where}: token: name a file that only you can read, as token_file, not the token itself")
        if key not in _KEYS:
            raise UserError(f"{where}: unknown key {key!r:.60}{did_you_mean(key, _KEYS)}")
        if key in _TEXTS and not (isinstance(value, str) and value):
            raise UserError(f"{where}: {key}: write a text in quotes")
    pip = profile.get("pip", [])
    if not (isinstance(pip, list) and all(isinstance(one, str) for one in pip)):
        raise UserError(f'{where}: pip: write a list of requirements, as in ["wandb"]')
    if "address" not in profile:
        raise UserError(f'{where}: add address = "http://HEAD:8265", that of Ray\'s dashboard')
    paths: dict[str, Any] = {key: file.parent / _expanded(profile[key]) for key in _TEXTS[1:] if key in profile}
    return Cluster(
        address=_http(profile["address"], f"{where}: address"),
        token=find_token(paths.get("token_file")),
        pip=tuple(pip),
        **paths,
    )


def _expanded(path: str) -> Path:
    """Replaces `~` by the user's home, where there is one."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - `Path.expanduser` raises without a home


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(file))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"{file}: not valid TOML: {error}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f'{file}: cannot read the clusters\' profiles: {reason}; write [NAME] and address = "http://HEAD:8265" '
            f"there, or give --address"
        ) from None


def _http(address: str, where: str) -> str:
    """The address with its scheme, without a trailing slash."""
    full = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(full)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid or any(letter.isspace() for letter in full):
        raise UserError(f"{where} {address!r:.100}: write the URL of Ray's dashboard, as in http://10.0.0.1:8265")
    if parts.username is not None:
        raise UserError(f"{where}: no passwords in a URL; the cluster's token is read from a file or RAY_AUTH_TOKEN")
    return full.rstrip("/")
