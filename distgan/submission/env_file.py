"""Files of variables, a line each: what a job's processes get and nobody else sees."""

from __future__ import annotations

import re
from pathlib import Path

from distgan.errors import UserError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MOST_BYTES = 100_000


def read_env_file(file: Path) -> dict[str, str]:
    """The variables of NAME=VALUE lines; blank lines, # comments, `export` and quotes around values are understood.

    Nothing is expanded. Raises UserError with a line's number, never with its text, which may be a secret.
    """
    try:
        with file.open("rb") as opened:  # a shell's pipe too
            content = opened.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise UserError(f"--env-file {file}: too large for a file of variables; write NAME=VALUE lines")
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"--env-file {file}: it is no text in UTF-8; write NAME=VALUE lines") from None
    except OSError as error:
        raise UserError(f"--env-file {file}: cannot be read: {error.strerror}") from None
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.removeprefix("export ").partition("=")
        if not equals or not _NAME.fullmatch(name.strip()):
            raise UserError(f"--env-file {file}, line {number}: write NAME=VALUE, one variable a line")
        found[name.strip()] = _unquoted(value.strip(), f"--env-file {file}, line {number}")
    return found


def _unquoted(value: str, where: str) -> str:
    if "\0" in value:
        raise UserError(f"{where}: a value cannot hold a zero byte")
    for quote in ("'", '"'):
        if value.startswith(quote):
            inner, end, rest = value[1:].partition(quote)
            if not end or (rest.strip() and not rest.strip().startswith("#")):
                raise UserError(f"{where}: the quote is not closed; end the value with {quote}")
            return inner
    return re.sub(r"\s#.*$", "", value).rstrip()
