"""Plain values: when two are the same, and how they are written in a space and as `KEY=VALUE`."""

from __future__ import annotations

import json
import keyword
import math
import re
from collections.abc import Mapping
from typing import Any, TypeAlias, TypeGuard

Scalar: TypeAlias = bool | int | float | str | None
# A list is kept as a tuple.
Value: TypeAlias = Scalar | tuple[Scalar, ...]

# No number of a configuration is as large; below it products of two are far from overflow.
LARGEST = 1e15
# Words that are no strings without quotes.
DISTRIBUTION_NAMES = ("loguniform", "uniform", "randint", "lograndint", "quniform", "choice")
CONSTANTS: Mapping[str, bool | None] = {
    "null": None,
    "None": None,
    "true": True,
    "True": True,
    "false": False,
    "False": False,
}

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is an integer or a float; true and false are neither."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, lists by their items; 1 is 1.0, and is not true."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def close(one: Any, other: Any) -> bool:
    """As `same`, for numbers up to the rounding of a product."""
    if is_number(one) and is_number(other):
        return math.isclose(one, other, rel_tol=1e-9)
    return same(one, other)


def number_text(number: int | float) -> str:
    """The shortest text of a number that reads as the same one: `1e-5`, `0.3`, `100`; of -0.0, `0`."""
    if isinstance(number, int) or number == 0:
        return str(int(number))
    short = f"{number:g}"
    text = short if float(short) == number else repr(number)
    return text.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def value_text(value: Value) -> str:
    """A value as one writes it in a space; `1.0` is written as 1."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(value_text, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return value if _is_word(value) else repr(value)
    return number_text(value)


def arguments(overrides: Mapping[str, Any]) -> list[str]:
    """`KEY=VALUE` of each override, as `load_config` takes them; no digit of a number is lost."""
    return [f"{key}={_yaml_text(value)}" for key, value in overrides.items()]


def _is_word(text: str) -> bool:
    """Whether a string may stand without quotes."""
    return bool(_WORD.fullmatch(text)) and not keyword.iskeyword(text) and text not in {*CONSTANTS, *DISTRIBUTION_NAMES}


def _yaml_text(value: Any) -> str:
    """One line of YAML 1.1, in which a float has a point: 1.0e-05."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml_text, value))}]"
    if isinstance(value, float):
        digits, exponent, power = repr(value).partition("e")
        return f"{digits if '.' in digits else f'{digits}.0'}{exponent}{power}"
    return json.dumps(value, ensure_ascii=False)
