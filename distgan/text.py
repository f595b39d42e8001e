"""Text for users: untrusted text made safe to show, the nearest valid name, commands to copy."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Sequence

_ELLIPSIS = "…"

_URL = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]{0,20})(:/*)")

# A user part is always a secret in these; in others (`sftp://me@host`, `abfs://box@account`) only with a colon.
_KEYED = ("s3", "s3a", "gs", "gcs", "http", "https")

_BUCKETS = _KEYED[:4]

_WITH_USERS = (*_KEYED, "ftp", "sftp", "ssh", "hdfs", "webhdfs", "az", "abfs")

_USER = re.compile(r"[^/@:]*:")

_PORT = re.compile(r"\d{1,5}(?:[/,;)'\"]|$)")

_SECRET = re.compile(r"sig|token|secret|passw|pwd|key|credential|auth", re.IGNORECASE)

_CLOSING = ":;,.)'\"]`"


def without_credentials(text: str) -> str:
    """The text with an ellipsis for user names, passwords, tokens and signatures in its URLs.

    Takes time linear in the text's length, whatever the text is.
    """
    return re.sub(r"\S+", lambda word: _strip_secrets(word[0]), text) if ":" in text else text


def _strip_secrets(word: str) -> str:
    """A word without the secrets of the URLs in it."""
    done, last = [], word.rfind("@")
    begin = 0
    for url in _URL.finditer(word):
        end = _end_of_user(word, url, last) if begin <= url.start() and url.end() <= last else None
        if end is not None:
            done += [word[begin : url.end()], f"{_ELLIPSIS}@"]
            begin = end
    return _without_secret_query("".join([*done, word[begin:]]))


def _end_of_user(word: str, url: re.Match[str], last: int) -> int | None:
    """The end of the secret user part after a scheme; None if there is none. `last` is the word's last `@`."""
    scheme, slashes, begin = url[1].lower().rpartition("+")[2], len(url[2]) - 1, url.end()
    if user := _USER.match(word, begin):
        # A password may contain a slash or an `@`; after a host with a port, an `@` is part of the path.
        is_port = slashes == 2 and scheme not in _BUCKETS and _PORT.match(word, user.end())
        if not is_port and (slashes == 2 or scheme in _BUCKETS or (slashes < 2 and scheme in _WITH_USERS)):
            return last + 1
    if slashes == 2 and scheme in _KEYED:
        slash = word.find("/", begin)
        at = word.rfind("@", begin, slash if slash >= 0 else len(word))
        return at + 1 if at >= 0 else None
    return None


def _without_secret_query(word: str) -> str:
    url = next((found for found in _URL.finditer(word) if "/" in found[2]), None)
    query = re.compile("[?#]").search(word, url.end()) if url is not None else None
    if query is None:
        return word
    content = word[query.end() :].rstrip(_CLOSING)
    names = re.split("[&=]", content)[:-1]
    if not any(_SECRET.search(name) for name in names):
        return word
    return f"{word[: query.end()]}{_ELLIPSIS}{word[query.end() + len(content) :]}"


def printable(text: str) -> str:
    r"""The text with escapes such as `\x1b` for control and format characters, line ends and undecodable bytes.

    A terminal would execute some of them, and others reverse the order of what follows.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


_LISTED_CHARACTERS = 150


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the nearest of `known`; if none is near, as many choices as fit into a line."""
    choices = sorted(known)
    near = difflib.get_close_matches(name[:100], choices, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there are: {_listed(choices)}" if choices else ""


def _listed(choices: Sequence[str]) -> str:
    shown = list(choices)
    while len(shown) > 1 and len(", ".join(shown)) > _LISTED_CHARACTERS:
        shown.pop()
    left = len(choices) - len(shown)
    return ", ".join(shown) + (f" and {left} more" if left else "")


def command(*words: str) -> str:
    """The shell command that runs `distgan` with exactly these words."""
    return shlex.join(["distgan", *words])


def options(**given: str | None) -> list[str]:
    """The words of options, given as in `storage="s3://runs"`; those that are None are left out."""
    words: list[str] = []
    for name, value in given.items():
        if value is not None:
            option = f"--{name.replace('_', '-')}"
            words += [f"{option}={value}"] if value.startswith("-") else [option, value]
    return words


def plural(count: int, noun: str, several: str | None = None) -> str:
    """`1 worker`, `2 workers`; `several` is the plural of a noun that has another one."""
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"
