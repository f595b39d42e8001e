"""The token that a Ray cluster asks for: where Ray looks for it, and when it would be seen on its way."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from urllib.parse import urlsplit

from distgan.errors import UserError

_LONGEST = 10_000


def find_token(file: Path | None = None) -> str | None:
    """The token in `file`, else of RAY_AUTH_TOKEN, of the file RAY_AUTH_TOKEN_PATH, or of ~/.ray/auth_token.

    Raises UserError for a file that was named and cannot be used, and for what can be no token.
    """
    if file is not None:
        return _read(file, "token_file")
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return _checked(token, "RAY_AUTH_TOKEN")
    if path := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return _read(Path(path), "RAY_AUTH_TOKEN_PATH")
    try:
        usual = Path.home() / ".ray" / "auth_token"
    except RuntimeError:  # a user without a home
        return None
    return _read(usual, "the token of this user") if usual.is_file() else None


def travels_openly(address: str) -> bool:
    """Whether what is sent to a URL can be read on its way: plain http beyond loopback and private networks."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    if parts.scheme == "https" or host == "localhost" or host.endswith((".local", ".internal", ".svc")):
        return False
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return "." in host  # a name without a dot is one of this network
    return not (found.is_loopback or found.is_private)


def _read(file: Path, what: str) -> str:
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
