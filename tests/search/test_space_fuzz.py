"""Whatever is written in a space: the outcome is an entry whose text means it, or the user's one line."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distgan.config.load import load_config
from distgan.search.expressions import LARGEST, Choice, Condition, Constant, Distribution, Entry, Product, arguments
from distgan.search.parsing import parse_entry
from distgan.search.population import FACTORS
from distgan.search.ranges import LogRandInt, LogUniform, QUniform, RandInt, Uniform
from distgan.search.space import Space
from distgan.search.space_checks import validated
from distgan.search.space_files import parse_file, read_entries
from fuzzing import fuzz, user_result

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


DECIMALS = st.builds(
    lambda first, count, digits, scale: made_stepped(first, count, Decimal(digits).scaleb(-scale)),
    st.integers(-(10**6), 10**6),
    st.integers(1, 10**6),
    st.integers(1, 10**12),
    st.integers(0, 15),
)


def made_stepped(first: int, count: int, step: Decimal) -> QUniform | None:
    try:
        return QUniform(float(first * step), float((first + count) * step), float(step))
    except ValueError:
        return None  # the ends, as they are written, are no multiples any more


@fuzz(100)
@given(DISTRIBUTIONS | DECIMALS, st.randoms(use_true_random=False), st.lists(st.sampled_from(FACTORS), max_size=12))
def test_a_perturbed_draw_is_a_draw_also_after_a_record(
    drawn: Distribution | None, rng: Random, factors: list[float]
) -> None:
    if drawn is None:
        return
    value = drawn.sample(rng)
    for factor in (*factors, *(rng.uniform(0.5, 2) for _ in range(4))):
        value = drawn.perturbed(value, factor)
        assert drawn.contains(value)
        value = json.loads(json.dumps(value))  # lists are lists then
        assert drawn.contains(value)


TEXTS = [
    *("loguniform(1e-5, 1e-3)", "uniform(-1, 0.5)", "randint(1, 5)", "lograndint(2, 64)", "quniform(0, 1, 0.1)"),
    *("choice(1, 'a b', null, [color, 2])", "4 * optimizer.generator.lr / 3", "optimizer.generator.lr * choice(1, 2)"),
    *("choice(1, 2) if objective.name in (bce, hinge)", "adam if data.flip == true", "[a, -1]"),
]
PIECES = [
    *(
        "uniform(",
        "choice(",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ".",
        ":",
        " ",
        "\n",
        "\0",
        "\\",
        "#",
        "'",
        '"',
        "f'",
        "b'",
    ),
    *("*", "/", "-", "+", "%", "==", " if ", " in ", " else ", "null", "true", "lambda ", ":=", "_", "é", "\ud800"),
    *("0", "1", "0.5", "1e-5", "1e999", "0x", "1_0", "1j", "seed", "a.b"),
]


@st.composite
def changed(draw: st.DrawFn) -> str:
    """A text that means something after a few changes."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.integers(0, len(text)))
        end = place + draw(st.sampled_from([0, 0, 1, 3, 10]))
        text = text[:place] + draw(st.sampled_from(["", *PIECES])) + text[end:]
    return text


@fuzz(600)
@given(changed() | changed() | st.text(max_size=30))
def test_a_random_text(text: str) -> None:
    entry = user_result(lambda: parse_entry("key", text))
    if entry is not None:
        assert parse_entry("key", entry.text) == entry


# Texts that are right for a key, unless what they refer to is not there, or goes round in a circle.
G, D = "optimizer.generator.lr", "optimizer.discriminator.lr"
RIGHT = {
    G: ["loguniform(1e-5, 1e-3)", "choice(1e-4, 2e-4)", f"4 * {D}", f"{D} / choice(1, 2)"],
    D: ["uniform(1e-5, 1e-3)", "1e-4", f"{G} * uniform(0.1, 1)", f"ema.ramp_up * {G}"],
    "generator.width": ["randint(4, 8)", "quniform(8, 32, 8)", "2 * latent_dim", "latent_dim * choice(1, 2)"],
    "latent_dim": ["lograndint(4, 64)", "choice(16, 32)", "0.5 * generator.width"],
    "objective.updates": ["choice(sequential, simultaneous)", "sequential"],
    "objective.critic_steps": ["choice(1, 3)", "choice(1, 3) if objective.updates == sequential"],
    "training.augment": ["choice([], [color])", "choice([cutout], [color]) if data.flip == true"],
    "data.flip": ["choice(true, false)", "true if latent_dim in (16, 64)"],
}
LIKELY = st.fixed_dictionaries({}, optional={key: st.sampled_from(texts) for key, texts in RIGHT.items()})
WRONG = st.dictionaries(
    st.sampled_from([*RIGHT, "seed", "optimizer", "x"]) | st.text(max_size=5), changed(), max_size=1
)


@pytest.mark.slow
@fuzz(40)
@given(LIKELY, st.just({}) | st.just({}) | WRONG)
def test_a_random_space(right: dict[str, str], wrong: dict[str, str]) -> None:
    entries = right | wrong
    parsed = user_result(lambda: Space.parse(entries))
    if parsed is None:
        return
    assert Space.parse(parse_file(parsed.text(), "it")) == parsed
    space = user_result(lambda: validated(parsed, lambda overrides: load_config("quickstart", overrides)))
    if space is None:
        return
    for point in [*space.grid(2), space.sample(0, 0), space.nearest(space.base)]:
        assert space.overrides(point).keys() <= entries.keys()
        assert point.keys() == space.free.keys()
    load_config("quickstart", arguments(space.overrides(space.sample(0, 0))))


@fuzz(150)
@given(st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_a_random_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "space.yaml").write_bytes(content)
    user_result(lambda: read_entries([str(tmp_path / "space.yaml")]))
