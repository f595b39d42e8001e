"""Whatever is written in a space: the outcome is an entry whose text means it, or the user's one line."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distgan.config.load import load_config
from distgan.search.distributions import Choice, Distribution
from distgan.search.expressions import Condition, Constant, Entry, Product
from distgan.search.files import parse_file, read_entries
from distgan.search.parsing import parse_entry
from distgan.search.ranges import LogRandInt, LogUniform, QUniform, RandInt, Uniform
from distgan.search.space import Space
from distgan.search.values import LARGEST
from test_fuzz import fuzz, told

pytestmark = pytest.mark.timeout(60)

WORDS = st.sampled_from(
    ["hinge", "a b", "null", "if", "choice", "1", "é", "", "ﬁ", "'", '"', "\\", "\n", "module:Class"]
)
NUMBERS = st.integers(-(10**15), 10**15) | st.floats(-LARGEST, LARGEST) | st.floats(-1, 1)
SCALARS = st.none() | st.booleans() | WORDS | st.text(max_size=8) | NUMBERS
VALUES = SCALARS | st.lists(SCALARS, max_size=3).map(tuple)
KEYS = st.sampled_from(["optimizer.generator.lr", "objective.name", "seed", "a.b.c"])


def made(kind: type[Distribution], *arguments: st.SearchStrategy[object]) -> st.SearchStrategy[Distribution]:
    """Distributions of a kind, without the arguments that it refuses."""

    def attempt(values: tuple[object, ...]) -> Distribution | None:
        try:
            return kind(*values)
        except ValueError:
            return None

    return st.tuples(*arguments).map(attempt).filter(lambda drawn: drawn is not None)  # type: ignore[arg-type,return-value]


POSITIVE = st.floats(1e-300, LARGEST) | st.integers(1, 10**15)
INTEGERS = st.integers(-(10**15), 10**15)
STEPPED = st.builds(
    lambda first, count, step: QUniform(first * step, (first + count) * step, step),
    st.integers(-1000, 1000),
    st.integers(1, 1000),
    st.sampled_from([1, 2, 32, 0.5, 0.25]),
)
NUMERIC = st.one_of(
    made(LogUniform, POSITIVE, POSITIVE),
    made(Uniform, NUMBERS, NUMBERS),
    made(RandInt, INTEGERS, INTEGERS),
    made(LogRandInt, st.integers(1, 10**15), st.integers(1, 10**15)),
    STEPPED,
    made(Choice, st.lists(NUMBERS, min_size=1, max_size=4).map(tuple)),
)
DISTRIBUTIONS = NUMERIC | made(Choice, st.lists(VALUES, min_size=1, max_size=4).map(tuple))
SCALES = (st.floats(1e-15, LARGEST) | st.integers(-(10**15), -1)).filter(lambda scale: scale != 0)
PRODUCTS = st.builds(Product, KEYS, SCALES, st.none() | NUMERIC) | st.builds(
    Product, KEYS, SCALES, NUMERIC.filter(lambda drawn: not drawn.contains(0)), st.just(True)
)
CONDITIONS = st.builds(Condition, KEYS, st.lists(SCALARS, min_size=1, max_size=3).map(tuple))
ENTRIES = st.builds(Entry, DISTRIBUTIONS | PRODUCTS | st.builds(Constant, VALUES), st.none() | CONDITIONS)
SNIPPETS = [
    *("loguniform(", "uniform(", "randint(", "lograndint(", "quniform(", "choice(", ")", ",", ".", "*", "/", "-", "+"),
    *("1", "0.5", "1e-5", "1e999", "0", "a", "optimizer.generator.lr", " if ", "==", " in ", " else ", "[", "]", "'"),
    *(
        '"',
        "null",
        "true",
        "lambda ",
        ":",
        ":=",
        "#",
        "\\",
        "\0",
        "\n",
        "{",
        "}",
        "**",
        "%",
        "_",
        "0x",
        "1_0",
        "1j",
        "f'",
    ),
]


@fuzz(400)
@given(ENTRIES)
def test_every_entry_has_a_text_that_means_it(entry: Entry) -> None:
    if len(entry.text) <= 1000:
        assert parse_entry("key", entry.text) == entry
        assert parse_entry("key", entry.text).text == entry.text


@fuzz(400)
@given(DISTRIBUTIONS, st.randoms(use_true_random=False), st.integers(1, 6), VALUES)
def test_nothing_leaves_its_distribution(drawn: Distribution, rng: Random, points: int, value: object) -> None:
    grid = drawn.grid(points)
    assert all(drawn.contains(one) for one in [drawn.sample(rng), drawn.nearest(value), *grid, *drawn.probes()])
    assert len(grid) == len(set(map(repr, grid)))
    assert all(drawn.nearest(one) == one for one in grid)


@fuzz(600)
@given(st.lists(st.sampled_from(SNIPPETS), max_size=12).map("".join) | st.text(max_size=30))
def test_a_random_text(text: str) -> None:
    entry = told(lambda: parse_entry("key", text))
    if entry is not None:
        assert parse_entry("key", entry.text) == entry


@fuzz(150)
@given(
    st.dictionaries(KEYS | st.text(max_size=5), ENTRIES.map(lambda entry: entry.text) | st.text(max_size=9), max_size=3)
)
def test_a_random_space(entries: dict[str, str]) -> None:
    space = told(lambda: Space.parse(entries))
    if space is not None:
        assert Space.parse(parse_file(space.text(), "it")) == space
        told(lambda: space.validate(lambda overrides: load_config("quickstart", overrides)))
        told(lambda: space.overrides(space.sample(0, 0)))
        told(lambda: space.grid(2))


@fuzz(150)
@given(st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_a_random_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "space.yaml").write_bytes(content)
    told(lambda: read_entries([str(tmp_path / "space.yaml")]))
