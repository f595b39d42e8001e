"""From the text of an entry to its nodes. Python's own parser reads it, and the tree is walked: nothing is evaluated.

    loguniform(1e-5, 1e-3)                                  a distribution: `distgan.search.ranges`
    choice(1, 3, 5)                                         numbers, true, false, null, words, 'any text', [a, b]
    adam                                                    a plain value
    4 * optimizer.generator.lr                              a multiple of another key, of the space or not
    optimizer.generator.lr * choice(1, 2, 4)                times or divided by one distribution
    loguniform(0.1, 100) if objective.name == wgan_gp       only then; also: in (hinge, bce)

The key itself in a product is written first or after a number; a key without a dot stands in products only.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from distgan.errors import UserError
from distgan.search.expressions import (
    CONSTANTS,
    LARGEST,
    Choice,
    Condition,
    Constant,
    Distribution,
    Entry,
    Expression,
    Product,
    Scalar,
    Value,
    is_number,
    number_text,
)
from distgan.search.ranges import LogRandInt, LogUniform, QUniform, RandInt, Range, Uniform
from distgan.text import did_you_mean

_DISTRIBUTIONS: dict[str, type[Distribution]] = {
    kind.name: kind for kind in (LogUniform, Uniform, RandInt, LogRandInt, QUniform, Choice)
}

_EXAMPLES = {
    "loguniform": "loguniform(1e-5, 1e-3)",
    "uniform": "uniform(0, 0.5)",
    "randint": "randint(1, 5)",
    "lograndint": "lograndint(16, 256)",
    "quniform": "quniform(0, 0.5, 0.1)",
    "choice": "choice(1, 3, 5)",
}

_CONDITION = "loguniform(0.1, 100) if objective.name == wgan_gp"

_PRODUCT = "4 * optimizer.generator.lr"

_LONGEST = 1000

# What stands after the `else` that Python asks for and a space has not.
_NOTHING = "__nothing__"


def parse_entry(key: str, text: str) -> Entry:
    """The entry that `text` is for `key`.

    Raises UserError with the key, the text, what is wrong and an expression that works.
    """
    try:
        return _entry(_tree(text))
    except RecursionError:
        reason = _unreadable()
    except ValueError as error:
        reason = str(error)
    raise UserError(f"{key:.80}: `{text:.100}`: {reason}")


def _tree(text: str) -> ast.expr:
    if len(text) > _LONGEST:
        raise ValueError(f"it is longer than {_LONGEST} characters; as in {_EXAMPLES['loguniform']}")
    line = text.replace("\n", " ").strip()
    for attempt in (line, f"{line} else {_NOTHING}"):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return ast.parse(attempt, mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            continue
    raise ValueError(_unreadable())


def _unreadable() -> str:
    examples = [_EXAMPLES["loguniform"], _EXAMPLES["choice"], _PRODUCT, _CONDITION]
    return f"cannot be read; as in {' or '.join(examples)}"


def _entry(node: ast.expr) -> Entry:
    if not isinstance(node, ast.IfExp):
        return Entry(_expression(node))
    if not (isinstance(node.orelse, ast.Name) and node.orelse.id == _NOTHING):
        raise ValueError(f"without `else` the key is left as the configuration has it; as in {_CONDITION}")
    return Entry(_expression(node.body), _condition(node.test))


def _expression(node: ast.expr) -> Expression:
    if isinstance(node, ast.Call):
        return _distribution(node)
    if isinstance(node, ast.BinOp | ast.Attribute):
        return _product(node)
    if isinstance(node, ast.Name) and node.id in _DISTRIBUTIONS:
        raise ValueError(f"{node.id} has no values; as in {_EXAMPLES[node.id]}")
    with _example(_EXAMPLES["choice"]):
        return Constant(_value(node))


def _distribution(node: ast.Call) -> Distribution:
    name = ast.unparse(node.func)
    if name not in _DISTRIBUTIONS:
        raise ValueError(f"there is no distribution {name!r:.80}{did_you_mean(name, _DISTRIBUTIONS)}")
    kind, example = _DISTRIBUTIONS[name], f"as in {_EXAMPLES[name]}"
    if node.keywords:
        raise ValueError(f"values are written without names: {kind.form}, {example}")
    if issubclass(kind, Range) and len(node.args) != kind.form.count(",") + 1:
        raise ValueError(f"it is written {kind.form}, {example}")
    with _example(_EXAMPLES[name]):
        if issubclass(kind, Range):
            return kind(*map(_number, node.args))
        return Choice(tuple(map(_value, node.args)))


@contextmanager
def _example(text: str) -> Iterator[None]:
    """Adds an expression that works to a ValueError of the block, which has none."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}; as in {text}") from None


def _product(node: ast.expr) -> Product:
    """A chain of products and quotients, in which one key stands first or after numbers."""
    keys: list[str] = []
    draws: list[tuple[Distribution, bool]] = []
    scale: int | float = 1
    for divided, factor in _factors(node):
        if isinstance(factor, ast.Call):
            draws.append((_distribution(factor), divided))
        elif isinstance(factor, ast.Name | ast.Attribute):
            if divided:
                raise ValueError(f"a key cannot be divided by; as in {_PRODUCT}")
            keys.append(_key(factor))
        else:
            with _example(_PRODUCT):
                scale = _scaled(scale, _number(factor), divided)
    if len(keys) != 1 or len(draws) > 1:
        raise ValueError(
            f"a product has one other key and at most one distribution, not {len(keys)} and {len(draws)}; "
            f"as in {_PRODUCT} or optimizer.generator.lr * choice(1, 2, 4)"
        )
    distribution, divided = draws[0] if draws else (None, False)
    if distribution is not None:
        _check_draw(distribution, divided)
    return Product(keys[0], scale, distribution, divided)


def _factors(node: ast.expr) -> Iterator[tuple[bool, ast.expr]]:
    """(whether it divides, factor) of each factor, the last one first."""
    while isinstance(node, ast.BinOp):
        if not isinstance(node.op, ast.Mult | ast.Div):
            raise ValueError(f"keys can be multiplied and divided, and nothing else; as in {_PRODUCT}")
        yield isinstance(node.op, ast.Div), node.right
        node = node.left
    yield False, node


def _scaled(scale: int | float, number: int | float, divided: bool) -> int | float:
    if number == 0:
        raise ValueError("a factor is 0")
    scale = scale / number if divided else scale * number
    if not 1 / LARGEST <= abs(scale) <= LARGEST:
        raise ValueError(
            f"its numbers multiply to more than {number_text(LARGEST)} or less than {number_text(1 / LARGEST)}"
        )
    return scale


def _check_draw(factor: Distribution, divided: bool) -> None:
    if not all(map(is_number, factor.probes())):
        raise ValueError("the factor of a product is a number; as in optimizer.generator.lr * choice(1, 2, 4)")
    if divided and factor.contains(0):
        raise ValueError(
            "the numbers that a key is divided by have a 0 among them; as in training.batch_size / choice(1, 2)"
        )


def _condition(node: ast.expr) -> Condition:
    if not (isinstance(node, ast.Compare) and len(node.ops) == 1):
        raise ValueError(f"a condition is KEY == VALUE or KEY in (VALUE, VALUE); as in {_CONDITION}")
    key, operator, right = _key(node.left), node.ops[0], node.comparators[0]
    with _example(_CONDITION):
        if isinstance(operator, ast.Eq):
            return Condition(key, (_value(right),))
        if isinstance(operator, ast.In) and isinstance(right, ast.Tuple | ast.List) and right.elts:
            return Condition(key, tuple(map(_value, right.elts)))
        if isinstance(operator, ast.In):
            return Condition(key, (_value(right),))
        raise ValueError("a condition is KEY == VALUE or KEY in (VALUE, VALUE)")


def _key(node: ast.expr) -> str:
    """A key from its parts. Raises ValueError for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise ValueError(f"`{ast.unparse(node):.40}` is no key; as in {_PRODUCT}")
    return ".".join([node.id, *reversed(parts)])


def _value(node: ast.expr) -> Value:
    return tuple(map(_scalar, node.elts)) if isinstance(node, ast.List) else _scalar(node)


def _scalar(node: ast.expr) -> Scalar:
    if isinstance(node, ast.Name):
        return CONSTANTS.get(node.id, node.id)
    if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, bool | str)):
        return node.value
    if isinstance(node, ast.Constant | ast.UnaryOp):
        return _number(node)
    raise ValueError(f"`{_shown(node)}` is no plain value: a number, true, false, null, a word or 'text in quotes'")


def _number(node: ast.expr) -> int | float:
    inner, sign = node, 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner, sign = node.operand, -1 if isinstance(node.op, ast.USub) else 1
    value = inner.value if isinstance(inner, ast.Constant) else None
    if not is_number(value):
        raise ValueError(f"`{_shown(node)}` is no number")
    if not abs(value) <= LARGEST:
        raise ValueError(f"`{_shown(node)}` is beyond ±{number_text(LARGEST)}")
    return sign * value


def _shown(node: ast.expr) -> str:
    return f"{ast.unparse(node):.40}"
