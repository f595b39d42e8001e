"""Text that others wrote, as it may be shown: nothing that steers a terminal, and no secrets of URLs."""

from __future__ import annotations

import re

_ELLIPSIS = "…"

# Where a user part can only be a secret; elsewhere (`sftp://me@host`, `abfs://box@account`) it is one with a colon.
_KEYED = r"https?|s3a?|gs|gcs"
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{0,20}"
_PORT = r"\d{1,5}(?:[/\s,;)'\"]|$)"
_USER_PARTS = (
    # A password may hold a slash or an `@`; of a host with a port, an `@` in the path is none.
    re.compile(rf"\b({_SCHEME})(://)[^/@\s:]*:(?!{_PORT})\S*@"),
    re.compile(r"\b(s3a?|gs|gcs)(:/*)[^/@\s:]*:\S*@", re.IGNORECASE),
    re.compile(rf"\b({_KEYED}|s?ftp|ssh|hdfs|webhdfs|az|abfs)(:/?)(?!/)[^/@\s:]*:\S*@", re.IGNORECASE),
    re.compile(rf"\b({_KEYED})(://)[^/\s]*@", re.IGNORECASE),
)
_SECRET = r"(?:sig|token|secret|passw|pwd|key|credential|auth)"
_QUERY = re.compile(rf"\b({_SCHEME}:/+[^\s?#]*[?#])(?=\S*{_SECRET}[^\s=&]*=)\S*[^\s:;,.)'\"\]`]", re.IGNORECASE)


def without_credentials(text: str) -> str:
    """The text with an ellipsis for user names, passwords, tokens and signatures in its URLs."""
    if ":" not in text:
        return text
    for pattern in _USER_PARTS:
        text = pattern.sub(rf"\1\2{_ELLIPSIS}@", text)
    return _QUERY.sub(rf"\1{_ELLIPSIS}", text)


def printable(text: str) -> str:
    r"""The text with escapes such as `\x1b` for whatever has no picture: control and format characters, line ends.

    A terminal acts on some of them, and others turn the order of what follows. Bytes of names that are not UTF-8 are
    spelled out too.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
