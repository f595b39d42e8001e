"""Messages of mistakes: what each kind says, however it is worded, and how snapshots hold the words.

A test compares a message with its snapshot by the fixture `same_words`. `pytest --snapshot-update` renews snapshots.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

import pytest

import distgan

# Kinds of mistakes, each with what tells its message from others': what is wrong with which key, option, file or URL,
# and the way out. `NAMED` is any other.
NAMED = r"^(.+?: |[\w.]+=\S+ |--).|; [\w`]"
UNKNOWN_KEY = r"[\w.-]+: (unknown key; (did you mean '[\w.]+'|`distgan keys.* lists|it is an option of )|not a key of )"
UNKNOWN_NAME = r"\b(unknown|no) .+; (did you mean '.+'|there are: \w)"
NOT_ALLOWED = r"[\w.]+=.+: allowed: \w"
NOT_TOGETHER = r"[\w.]+=\S+ .*\b[\w.]+=\S+.*[;:] \w"
NOT_SET = r"^\S+ .*(is not set: add|are not set; download|is missing: )"
NOT_YAML = r"not valid YAML(: | in line \d+: |; quote it)"
NOT_A_URL = r"not a URL|\(shell pipes|unknown protocol|absolute path|chained URLs|a name has parts|more than a URL"
SECRET = r"no passwords in a URL; use the environment or a profile file$"
NO_CODE = r"\(\w+\.\w+=\S+\); if you trust .* --trust-code$"
MISSING = r"\S+: (not found; check|no index; name|no (complete )?checkpoints? there|no such f|no search|.*No such file)"
NO_FILE = r"^\S+: is no regular file but a pipe"
DAMAGED = r"\S+: .*(damaged|faults found: \d|not (an?|the) (whole|readable|IDX|search)|cannot be (used|read))"
DIFFERS = r"\w was .+ and is .+; set them back|trained on other data|already exists, and began from"
NOT_WRITTEN = r"^(--out )?\S+: .*(cannot be written: \w|no space left|is a file|a file is where a folder should)"
OPTION = r"^--[\w-]+( \S+)?(:| is| are| works| asks) "
TORCHRUN = r"^[A-Z_]+=\S+ .*; start the workers with torchrun"
NO_ANSWER = r"nothing answers there|cannot be reached; check|did not answer in time|does not answer as .* does"
SERVER = r"^s3://\S+: .+; (create|use|check|set|write) .+ \(endpoint "

# What Python and libraries say, which other versions of theirs say in other words, and what depends on the machine.
_THEIRS = (
    (
        r"(not valid (?:YAML|JSON|TOML)(?: in line \d+)?): (?!it |a number|an alias|NaN|Inf).+?(?=;|$)",
        r"\1: …",
    ),
    (r"(not a regular expression|pickle of plain data|Parameter validation failed): .*?(?=;|$)", r"\1: …"),
    (r"(Expecting|Unterminated|Invalid) [^()]* \(char \d+\)", "…"),
    (r"\([^()]*'idna' codec .*?\)+(?=;)", "(…)"),
    (r"'utf-[\w-]+' codec can't .*?(?=\)|;|$)", "…"),
    (r"(\.literal\[.*?\])?: (Input should|[Ss]tring should|Unexpected keyword) .*?(?=\);|;|$)", ": …"),
    (r"(it should be a valid \w+), [^;]*", r"\1 …"),
    (r"\b([A-Z]\w+Error): [^;]+?(?=;| \(\w+\.py|$)", r"\1: …"),
    (r"Name or service not known|Temporary failure in name resolution", "…"),
    (r"image file is truncated|File is not a zip file|(truncated|invalid) header|empty file", "…"),
    (r"Compressed file ended before the end-of-stream marker was reached|Unknown compression method", "…"),
    (r"cannot reshape array [^;]*|at byte \d+ of \d+", "…"),
    (r"state\.pt: it (names pathlib|holds more than)[^;]*", "state.pt: it holds …"),
    (r"bytes \d+ to \d+", "bytes … to …"),
    (r"has [\d,]+ bytes of [\d,]+", "has … bytes of …"),
    (r"its \d+ bytes would unpack", "its … bytes would unpack"),
    (r"SHA-256 begins with \w+, not", "SHA-256 begins with …, not"),
    (r"Installed: file, .*", "Installed: file, …"),
    (r"(127\.0\.0\.1:)\d{5}\b", r"\1{port}"),
    (r"in \S+/unsaved/\S+ on \S+;", "in {kept} on {host};"),
    (r"\(/\S*/(\w+\.py)\)", r"({folder}/\1)"),
)


class Message:
    """A message that a snapshot shows as it is, without quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def by_kind(cases: Mapping[str, Iterable[str]]) -> list[Any]:
    """For `parametrize`: the pattern of a kind and a case of it, whose beginning is the test's id."""
    return [pytest.param(kind, case, id=f"{case:.60}") for kind, some in cases.items() for case in some]


def without_circumstances(message: str, places: Mapping[str, object]) -> Message:
    """The message with `{name}` for each place of this run, and `…` for words that are not distgan's own."""
    for name, place in sorted(places.items(), key=lambda item: -len(str(item[1]))):
        message = message.replace(str(place), f"{{{name}}}")
    message = message.replace(f"distgan {distgan.__version__}", "distgan {version}").replace(version("ray"), "{ray}")
    for theirs, instead in _THEIRS:
        message = re.sub(theirs, instead, message)
    return Message(message)
