"""What may be wrong with the space of a search: always one line, with the key and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from distgan.config.load import load_config
from distgan.errors import UserError
from distgan.search.parsing import parse_entry
from distgan.search.space import Space
from distgan.search.space_checks import check_live, validated
from distgan.search.space_files import default_entries, read_entries
from messages import NAMED, NOT_ALLOWED, UNKNOWN_KEY

pytestmark = pytest.mark.timeout(60)

G, D = "optimizer.generator.lr", "optimizer.discriminator.lr"


def message(entries: dict[str, str], preset: str = "quickstart") -> str:
    with pytest.raises(UserError) as raised:
        validated(Space.parse(entries), lambda overrides: load_config(preset, overrides))
    assert "\n" not in str(raised.value)
    return str(raised.value)


TEXTS = [
    "",
    "loguniform(1e-5, 1e-3",
    "(" * 300,
    "x" * 1001,
    "logunifrom(1e-5, 1e-3)",
    "tune.uniform(0, 1)",
    "__import__('os')",
    "loguniform",
    "uniform(1)",
    "uniform(0, 1, 2)",
    "quniform(0, 1)",
    "uniform(low=0, high=1)",
    "uniform(*a)",
    "uniform(a, 1)",
    "uniform(0, true)",
    "uniform(0, 1e400)",
    "uniform(0, 1 / 0)",
    "uniform(1, 1)",
    "loguniform(1e-3, 1e-5)",
    "loguniform(0, 1)",
    "lograndint(0, 8)",
    "randint(1, 2.5)",
    "quniform(0, 1, 0)",
    "quniform(0, 1, 0.3)",
    "choice()",
    "choice(1, 2, 1.0)",
    "choice(1, loguniform(1, 2))",
    "choice(a.b)",
    "choice(*[1, 2])",
    "1, 3, 5",
    "1j",
    "b'a'",
    "f'{a}'",
    "lambda: 1",
    "optimizer.generator.lr + 1",
    "2 * 3",
    "2 * loguniform(1, 2)",
    "a.b * c.d",
    "a.b * choice(1, 2) * choice(1, 2)",
    "1 / optimizer.generator.lr",
    "0 * optimizer.generator.lr",
    "a.b / 0",
    "a.b * 1e15 * 1e15",
    "a.b * choice(hinge, 1)",
    "a.b / uniform(-1, 1)",
    "a.b * (2 * 3)",
    "a().b * 2",
    "1 if a",
    "1 if a != b",
    "1 if a == b == c",
    "1 if a in ()",
    "1 if a == 2 * 3",
    "a.b * 1e16",
    "1 if a == b and c == d",
    "1 if a = b",
    "1 if 2 == a",
    "1 if a == b else 2",
    "1 if a == b if c == d",
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: f"{text:.60}")
def test_a_text_that_means_nothing(text: str, same_words: Callable[..., None]) -> None:
    with pytest.raises(UserError) as raised:
        parse_entry("objective.x", text)
    reported = str(raised.value)
    assert reported.startswith(f"objective.x: `{text:.100}`: ")
    assert reported.count("as in ") <= 1
    same_words(reported)


def test_a_text_too_deep_for_a_parser() -> None:
    """How deep is too deep, Python's versions say."""
    with pytest.raises(UserError, match=r"^objective\.x: `-{100}`: .*(cannot be read|is no number)"):
        parse_entry("objective.x", "-" * 950 + "1")


class Wrong(NamedTuple):
    entries: dict[str, str]
    kind: str = NAMED
    preset: str = "quickstart"


NOTHING = r"^the space has nothing to search: .*, as in optimizer\.generator\.lr=loguniform"
CIRCLE = r"^space: entries depend on each other in a circle: [\w.]+( -> [\w.]+)+; "
SECTION = r"[\w.]+ is a section; name a key in it \(`distgan keys [\w.]+` lists them\)$"
NOT_SEARCHED = r"^[\w.]+: cannot be searched: .+; set it for all trials with [\w.]+=VALUE$"
NO_KEY = r"^[\w.]+: `.+`: unknown key [\w.]+; (did you mean '|`distgan keys )"
NO_NUMBER = r"^[\w.]+: `.+`: ([\w.]+ is .*no number|the configuration has no [\w.]+; give it)"
NEVER_TRUE = r"^[\w.]+: `.+ if .+`: never true: .+; (leave|give) "
OBJECTIVE = r"^objective\.critic_steps: `.+`: .*updates=simultaneous .* critic_steps must be 1 \(it is 3\)"
WRONG = [
    Wrong({}, NOTHING),
    Wrong({G: "1e-3"}, NOTHING),
    Wrong({"a b": "choice(1, 2)"}),
    Wrong({f"a.b{place}": "choice(1, 2)" for place in range(101)}),
    Wrong({G: f"2 * {G}", D: "choice(1, 2)"}, CIRCLE),
    Wrong({G: f"2 * {D}", D: f"choice(1e-4, 1e-3) if {G} == 1"}, CIRCLE),
    Wrong({G: f"2 * {D}", D: "choice(null, 1e-3)"}, NO_NUMBER),
    # Keys.
    Wrong({"optimizer.generator.lrr": "choice(1, 2)"}, UNKNOWN_KEY),
    Wrong({"lr": "choice(1, 2)"}, UNKNOWN_KEY),
    Wrong({"optimizer.generator": "choice(1, 2)"}, SECTION),
    Wrong({"seed": "randint(0, 9)"}, NOT_SEARCHED),
    Wrong({"description": "choice(a, b)"}, NOT_SEARCHED),
    Wrong({"image_size": "choice(32, 64)"}, NOT_SEARCHED),
    Wrong({"evaluation.samples": "choice(100, 200)"}, NOT_SEARCHED),
    Wrong({"evaluation.patience": "choice(1, 2)"}, NOT_SEARCHED),
    Wrong({"data.resize": "choice(none, bicubic)"}, NOT_SEARCHED),
    Wrong({"data.url": "choice(a, b)"}, NOT_SEARCHED),
    Wrong({"training.kimg": "choice(1, 2)"}, NOT_SEARCHED),
    Wrong({"scale.groups": "choice(1, 2)"}, NOT_SEARCHED),
    Wrong({"training.log_every": "choice(1, 2)"}, NOT_SEARCHED),
    Wrong({"checkpoint.keep_last": "choice(1, 2)"}, NOT_SEARCHED),
    # References.
    Wrong({D: "optimizer.generator.rate * choice(1, 2)"}, NO_KEY),
    Wrong({D: "optimizer.generator * choice(1, 2)"}, SECTION),
    Wrong({D: "data.flip * choice(1, 2)"}, NO_NUMBER),
    Wrong({D: "optimizer.discriminator.max_grad_norm * choice(1, 2)"}, NO_NUMBER),
    Wrong({D: "objective.gp_weight * choice(1, 2)"}, NO_NUMBER),
    Wrong({G: "choice(1e-4, 2e-4) if objective.nam == bce"}, NO_KEY),
    Wrong(
        {G: "choice(1e-4, 2e-4) if objective.name == hinge"},
        NEVER_TRUE,
    ),
    Wrong({G: "choice(1e-4, 2e-4) if objective.gp_weight == 1"}, NEVER_TRUE),
    Wrong(
        {G: "choice(1e-4, 2e-4) if data.flip == 1", "data.flip": "choice(true, false)"},
        NEVER_TRUE,
    ),
    Wrong(
        {
            "objective.name": "choice(hinge, bce)",
            "objective.r1_weight": "2 * objective.label_noise",
            "objective.label_noise": "uniform(0, 1) if objective.name == bce",
        },
        NO_NUMBER,
        "sagan-cifar",
    ),
    Wrong(
        {"optimizer.generator.name": "choice(adam, rmsprop)", "ema.ramp_up": "optimizer.generator.eps * 2"},
        preset="wgan-bricks",
    ),
    # Values.
    Wrong({G: "loguniform(1e-5, 2)"}, NOT_ALLOWED),
    Wrong({G: "uniform(-1, 1)"}, NOT_ALLOWED),
    Wrong({G: "choice(1e-4, fast)"}, NOT_ALLOWED),
    Wrong({G: "choice(1e-4, null)"}, NOT_ALLOWED),
    Wrong({"generator.width": "uniform(8, 16)"}, NOT_ALLOWED),
    Wrong({"latent_dim": "choice(16, 32)", "generator.width": "latent_dim / 3"}, NOT_ALLOWED),
    Wrong({D: f"4 * {G}", G: "loguniform(1e-4, 1)"}, NOT_ALLOWED),
    Wrong({"training.augment": "choice([], [colour])"}, NOT_ALLOWED),
    Wrong({"objective.gp_weight": "loguniform(0.1, 100)"}, UNKNOWN_KEY),
    Wrong({"objective.name": "choice(bce, hinge)", "objective.label_noise": "uniform(0, 1)"}, UNKNOWN_KEY),
    Wrong(
        {"optimizer.generator.name": "choice(adam, rmsprop)", "optimizer.generator.beta1": "choice(0, 0.5)"},
        UNKNOWN_KEY,
    ),
    Wrong(
        {"objective.critic_steps": "choice(1, 3)"},
        OBJECTIVE,
    ),
    Wrong(
        {"objective.critic_steps": "choice(1, 3)", "objective.updates": "choice(sequential, simultaneous)"},
        OBJECTIVE,
        "dcgan-cifar",
    ),
    Wrong(
        {
            "objective.name": "choice(hinge, wgan_gp)",
            "objective.gp_weight": "choice(1, -1) if objective.name == wgan_gp",
            **{f"optimizer.{part}": "uniform(0, 0.9)" for part in ("generator.beta1", "discriminator.beta1")},
            **{f"ema.{key}": "uniform(0.1, 0.9)" for key in ("ramp_up", "half_life_kimg")},
        },
        NOT_ALLOWED,
        "sagan-cifar",
    ),
    Wrong(
        {"latent_dim": f"choice({', '.join(map(str, range(1, 100)))}, 5000)", "objective.label_noise": "uniform(0, 1)"},
        NOT_ALLOWED,
    ),
    Wrong(
        {"latent_dim": "randint(8, 64)", "objective.label_noise": "choice(0, 7) if latent_dim == 20"},
        NOT_ALLOWED,
    ),
    Wrong(
        {
            "latent_dim": "randint(8, 64)",
            "data.flip": "choice(true, false) if latent_dim == 20",
            "objective.label_noise": "choice(0, 7) if data.flip == true",
        },
        NOT_ALLOWED,
    ),
]


def entries_of(wrong: Wrong) -> str:
    return ", ".join(f"{key}={entry}" for key, entry in wrong.entries.items())[:80] or "nothing"


@pytest.mark.parametrize("wrong", WRONG, ids=entries_of)
def test_a_space_that_cannot_work(wrong: Wrong, same_words: Callable[..., None]) -> None:
    reported = message(wrong.entries, wrong.preset)
    assert re.search(wrong.kind, reported), reported
    same_words(reported)


def test_a_product_beyond_all_use() -> None:
    space = Space.parse({"a": "choice(1e15, 1)", "b": "1e10 * a"})
    with pytest.raises(UserError, match=r"b: `1e10 \* a`: 1e25 is beyond ±1e15"):
        space.overrides({"a": 1e15})


def test_a_grid_that_nobody_would_wait_for() -> None:
    space = Space.parse({f"a.b{place}": "uniform(0, 1)" for place in range(5)})
    assert len(space.grid(6)) == 7776
    with pytest.raises(UserError, match=r"the grid has 16,807 combinations, 10,000 are the most: take fewer points"):
        space.grid(7)
    with pytest.raises(UserError, match=r"the grid has [\d,]+ combinations"):
        space.grid(10**12)
    with pytest.raises(UserError, match=r"a grid of 0 points a range: there is at least 1"):
        space.grid(0)


@pytest.mark.parametrize(
    "entries",
    [
        {"objective.label_noise": "uniform(0, 1)"},
        {G: "uniform(0, 1)", "latent_dim": f"100 * {G}"},
        {G: "choice(0.1, 0.2)", "ema.ramp_up": f"0.1 if {G} == 0.1"},
        {"objective.r1_weight": "choice(0, 1)"},
    ],
    ids=lambda entries: list(entries)[-1],
)
def test_what_cannot_change_live(entries: dict[str, str], same_words: Callable[..., None]) -> None:
    with pytest.raises(UserError, match=rf"^{list(entries)[-1]}: .*(cannot change during training|above 0)") as raised:
        check_live(Space.parse(entries))
    same_words(str(raised.value))


# Files.


@pytest.mark.parametrize(
    "content",
    [
        "",
        "- a\n",
        "3: choice(1, 2)\n",
        "a: [b\n",
        "a: 'b\n",
        "a: [1, 3, 5]\n",
        "optimizer: {generator: {lr: 3}}\n",
        "a: 2020-01-01\n",
        "{a: uniform(0, 1)}\n",
        "a: .inf\n",
    ],
)
def test_a_file_that_is_no_space(tmp_path: Path, content: str, same_words: Callable[..., None]) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(content)
    kind = r"a space is a mapping|not valid YAML|: \w+: a \w+ is no expression|is no key; write a dotted one"
    with pytest.raises(UserError, match=kind) as raised:
        Space.parse(read_entries([str(path)]))
    same_words(str(raised.value), tmp=tmp_path)


def test_what_is_no_file(tmp_path: Path) -> None:
    def error_of(word: str) -> str:
        with pytest.raises(UserError) as raised:
            read_entries([word])
        return str(raised.value)

    assert "loguniform(1, 2): no such file; name a YAML file, or write KEY=DISTRIBUTION" in error_of("loguniform(1, 2)")
    assert "no such file" in error_of(f"file://{tmp_path}/none.yaml")
    assert "cannot read the space" in error_of(str(tmp_path))
    assert "is no regular file" in error_of("/dev/zero")
    (tmp_path / "large").write_bytes(b"x" * 100_001)
    assert "larger than 100,000 bytes" in error_of(str(tmp_path / "large"))
    (tmp_path / "bytes").write_bytes(b"\xff")
    assert "cannot read the space" in error_of(str(tmp_path / "bytes"))


def test_only_presets_and_files_of_this_machine_have_a_space_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    for content, message in (
        ("seed: 1", "no space of its own: it has no section `search`; give one with --space"),
        ("search: 1", "mine.yaml: search: a space is a mapping of keys to expressions"),
        ("search: {seed: [1]}", r"mine.yaml: search: seed: a list is no expression"),
    ):
        file.write_text(content)
        with pytest.raises(UserError, match=message):
            default_entries(str(file))
    file.write_text("search: {seed: 'randint(1, 9)'}")
    assert default_entries(str(file)) == {"seed": "randint(1, 9)"}
    with pytest.raises(UserError, match="no space of its own"):
        default_entries(f"file://{file}")
