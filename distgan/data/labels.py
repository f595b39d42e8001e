"""Labels of shards that other software wrote: whole numbers, or words that become classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distgan.bounds import MOST_RECORD_BYTES, read_text
from distgan.errors import UserError
from distgan.storage.storage_errors import translate_errors
from distgan.text import did_you_mean

MAX_LABEL = 65_535

_LONGEST_WORD = 100

# Names of members and JSON keys that often hold labels, and are read only if they are asked for.
LABEL_LIKE = frozenset({
    "label", "labels", "class", "classes", "category", "target", "y", "lbl", "label_id", "class_id", "category_id",
    "target_id", "label_name", "class_name", "category_name", "class_label", "fine_label", "coarse_label",
})  # fmt: skip


def numbered_classes(labels: NDArray[np.integer]) -> list[str]:
    """Class names "0" to the largest label; none where all labels are −1."""
    return [str(label) for label in range(int(labels.max()) + 1)]


class LabelReader:
    """The classes of a data set's labels, which come as text.

    With class names a label is one of them, or a number below their count. Without, the first label decides: if it is a
    whole number, all must be; if it is a word, each text is a class.

    Args:
        names: of the classes; None to find them.
    """

    def __init__(self, names: Sequence[str] | None = None) -> None:
        self._names = names
        self._words: dict[str, int] | None = None if names is None else _by_name(names)
        self._counts = False

    @property
    def has_words(self) -> bool:
        """Whether the classes are the words that were found."""
        return self._names is None and self._words is not None

    def read(self, text: str, where: str) -> int:
        """The number of a label: final, but for words, which are numbered as they come (see `sorted_words`).

        Raises UserError, which begins with `where`, for what is no label of this data set.
        """
        number = _whole_number(text)
        if self._names is not None:
            return self._named(text, number, where)
        if self._words is None and not self._counts:
            self._counts = number is not None
            if not self._counts and _is_word(text):
                self._words = {}
        if self._words is None:
            if number is None:
                others = ", as the label before it" if self._counts and _is_word(text) else " or a word"
                raise UserError(f"{where}: the label {text[:20]!r} is not a whole number from 0 to {MAX_LABEL}{others}")
            return number
        if number is None and not _is_word(text):
            raise UserError(f"{where}: the label {text[:20]!r} is not a word of at most {_LONGEST_WORD} characters")
        if len(self._words) > MAX_LABEL and text not in self._words:
            raise UserError(f"{where}: more than {MAX_LABEL + 1:,} different labels; are they captions?")
        return self._words.setdefault(text, len(self._words))

    def sorted_words(self, used: Iterable[int]) -> tuple[list[str], dict[int, int]]:
        """The words of these numbers in order, and the class of each number."""
        assert self._words is not None
        numbers = set(used)
        found = {word: number for word, number in self._words.items() if number in numbers}
        words = sorted(found)
        return words, {found[word]: place for place, word in enumerate(words)}

    def _named(self, text: str, number: int | None, where: str) -> int:
        assert self._names is not None
        assert self._words is not None
        known = self._words.get(text, -1 if number is None or number >= len(self._names) else number)
        if known >= 0:
            return known
        if text in self._words:
            raise UserError(f"{where}: the label {text[:20]!r} is the name of several classes of --classes")
        near = did_you_mean(text, self._names) if number is None and len(self._names) <= 2000 else ""
        count = f"{len(self._names):,} class{'' if len(self._names) == 1 else 'es'}"
        raise UserError(f"{where}: the label {text[:20]!r} is none of the {count} of --classes{near}")


def read_class_names(text: str) -> list[str]:
    """Class names from a file with one a line, or from names with commas between them.

    Raises UserError for a file that cannot be read, and for empty or endless names.
    """
    path, is_file = Path(text), False
    with suppress(OSError, ValueError, RuntimeError):  # a name that is too long for a file, a user who is not there
        path = path.expanduser()
        is_file = path.is_file()
    if is_file:
        try:
            with translate_errors(text):
                lines = read_text(path, MOST_RECORD_BYTES // 8).rstrip().splitlines()
        except UnicodeDecodeError:
            raise UserError(f"--classes {text}: not a text file in UTF-8; give one with a name a line") from None
    elif "/" in text or re.search(r"\.(txt|csv|json|names)$", text):
        raise UserError(f"--classes {text:.200}: no such file; give one with a name a line, or names: cat,dog")
    else:
        lines = text.split(",")
    names = [line.strip() for line in lines]
    for place, name in enumerate(names):
        if not 1 <= len(name) <= _LONGEST_WORD or not name.isprintable():
            raise UserError(
                f"--classes {text:.200}: name {place + 1} is {name[:20]!r}; a name has 1 to {_LONGEST_WORD} printable "
                f"characters"
            )
    if len(names) > MAX_LABEL + 1:
        raise UserError(f"--classes {text:.200}: {len(names):,} names; at most {MAX_LABEL + 1:,} classes are possible")
    return names


def _by_name(names: Sequence[str]) -> dict[str, int]:
    """The number of each name; −1 for one that several classes have."""
    found: dict[str, int] = {}
    for number, name in enumerate(names):
        found[name] = -1 if name in found else number
    return found


def _whole_number(text: str) -> int | None:
    """The label in a text such as `7` or `7.0`; None for another, or a larger number than any label."""
    if not re.fullmatch(r"[0-9]{1,9}(\.0{1,9})?", text) or float(text) > MAX_LABEL:
        return None
    return int(float(text))


def _is_word(text: str) -> bool:
    """Whether a text can be the name of a class: it has a letter, and is no number such as `1e3` or `nan`."""
    try:
        float(text)
    except ValueError:
        return len(text) <= _LONGEST_WORD and text.isprintable() and any(map(str.isalpha, text))
    return False
