"""What may be wrong with the space of a search: always one line, with the key and what to do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from distgan.config.load import load_config
from distgan.errors import UserError
from distgan.search.parsing import parse_entry
from distgan.search.space import Space
from distgan.search.space_checks import check_live, validated
from distgan.search.space_files import default_entries, read_entries

pytestmark = pytest.mark.timeout(60)

G, D = "optimizer.generator.lr", "optimizer.discriminator.lr"


def message(entries: dict[str, str], preset: str = "quickstart") -> str:
    with pytest.raises(UserError) as raised:
        validated(Space.parse(entries), lambda overrides: load_config(preset, overrides))
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", r"cannot be read; as in loguniform\(1e-5, 1e-3\)"),
        ("loguniform(1e-5, 1e-3", r"cannot be read"),
        ("(" * 300, r"cannot be read"),
        ("-" * 950 + "1", r"cannot be read|is no number"),
        ("x" * 1001, r"longer than 1000 characters"),
        ("logunifrom(1e-5, 1e-3)", r"no distribution 'logunifrom'; did you mean 'loguniform'\?"),
        ("tune.uniform(0, 1)", r"no distribution 'tune.uniform'; did you mean 'uniform'\?"),
        ("__import__('os')", r"no distribution '__import__'; there are: choice"),
        ("loguniform", r"loguniform has no values; as in loguniform\(1e-5, 1e-3\)"),
        ("uniform(1)", r"it is written uniform\(LOW, HIGH\), as in uniform\(0, 0.5\)"),
        ("uniform(0, 1, 2)", r"it is written uniform\(LOW, HIGH\)"),
        ("quniform(0, 1)", r"it is written quniform\(LOW, HIGH, STEP\)"),
        ("uniform(low=0, high=1)", r"written without names"),
        ("uniform(*a)", r"it is written uniform"),
        ("uniform(a, 1)", r"`a` is no number"),
        ("uniform(0, true)", r"`true` is no number"),
        ("uniform(0, 1e400)", r"beyond ±1e15"),
        ("uniform(0, 1 / 0)", r"`1 / 0` is no number"),
        ("uniform(1, 1)", r"the range is empty: 1 is not below 1; a single value is written without uniform"),
        ("loguniform(1e-3, 1e-5)", r"the range is empty: 0.001 is not below 1e-5"),
        ("loguniform(0, 1)", r"logarithmic scale, so 0 must be above 0"),
        ("lograndint(0, 8)", r"logarithmic scale, so 0 must be above 0"),
        ("randint(1, 2.5)", r"2.5 is no integer; both ends of randint are, and are included"),
        ("quniform(0, 1, 0)", r"the step 0 is not above 0"),
        ("quniform(0, 1, 0.3)", r"1 is no multiple of the step 0.3"),
        ("choice()", r"it has 0 values, and may have 1 to 100; as in choice\(1, 3, 5\)"),
        ("choice(1, 2, 1.0)", r"1 is there twice"),
        ("choice(1, loguniform(1, 2))", r"`loguniform\(1, 2\)` is no plain value"),
        ("choice(a.b)", r"`a.b` is no plain value: .* or 'text in quotes'"),
        ("choice(*[1, 2])", r"is no plain value"),
        ("1, 3, 5", r"`\(1, 3, 5\)` is no plain value.*; as in choice\(1, 3, 5\)"),
        ("1j", r"`1j` is no number"),
        ("b'a'", r"is no number"),
        ("f'{a}'", r"is no plain value"),
        ("lambda: 1", r"is no plain value"),
        ("optimizer.generator.lr + 1", r"can be multiplied and divided, and nothing else"),
        ("2 * 3", r"a product has one other key and at most one distribution, not 0 and 0"),
        ("2 * loguniform(1, 2)", r"not 0 and 1"),
        ("a.b * c.d", r"not 2 and 0"),
        ("a.b * choice(1, 2) * choice(1, 2)", r"not 1 and 2"),
        ("1 / optimizer.generator.lr", r"a key cannot be divided by"),
        ("0 * optimizer.generator.lr", r"a factor is 0"),
        ("a.b / 0", r"a factor is 0"),
        ("a.b * 1e15 * 1e15", r"multiply to more than 1e15"),
        ("a.b * choice(hinge, 1)", r"the factor of a product is a number"),
        ("a.b / uniform(-1, 1)", r"have a 0 among them"),
        ("a.b * (2 * 3)", r"`2 \* 3` is no number"),
        ("a().b * 2", r"`a\(\)` is no key"),
        ("1 if a", r"a condition is KEY == VALUE or KEY in \(VALUE, VALUE\)"),
        ("1 if a != b", r"a condition is KEY == VALUE"),
        ("1 if a == b == c", r"a condition is KEY == VALUE"),
        ("1 if a in ()", r"is no plain value"),
        ("1 if a == b and c == d", r"a condition is KEY == VALUE"),
        ("1 if a = b", r"cannot be read; .* if objective.name == wgan_gp"),
        ("1 if 2 == a", r"`2` is no key"),
        ("1 if a == b else 2", r"without `else` the key is left as the configuration has it"),
        ("1 if a == b if c == d", r"cannot be read"),
    ],
)
def test_a_text_that_means_nothing(text: str, expected: str) -> None:
    with pytest.raises(UserError) as raised:
        parse_entry("objective.x", text)
    reported = str(raised.value)
    assert reported.startswith(f"objective.x: `{text:.100}`: ")
    assert re.search(expected, reported), reported


class Wrong(NamedTuple):
    entries: dict[str, str]
    expected: str
    preset: str = "quickstart"


WRONG = [
    Wrong({}, r"the space has nothing to search: .* as in optimizer.generator.lr=loguniform"),
    Wrong({G: "1e-3"}, r"the space has nothing to search"),
    Wrong({"a b": "choice(1, 2)"}, r"'a b' is no key; write a dotted one"),
    Wrong({f"a.b{place}": "choice(1, 2)" for place in range(101)}, r"101 entries; 100 are the most"),
    Wrong({G: f"2 * {G}", D: "choice(1, 2)"}, rf"in a circle: {G} -> {G}"),
    Wrong({G: f"2 * {D}", D: f"choice(1e-4, 1e-3) if {G} == 1"}, r"in a circle: (optimizer\.\w+\.lr( -> )?){3};"),
    Wrong({G: f"2 * {D}", D: "choice(null, 1e-3)"}, rf"{D} is no number: its entry is `choice\(null, 0.001\)`"),
    # Keys.
    Wrong({"optimizer.generator.lrr": "choice(1, 2)"}, rf"unknown key; did you mean '{G}'\?"),
    Wrong({"lr": "choice(1, 2)"}, rf"^lr: unknown key; did you mean '{D}' or '{G}'\?"),
    Wrong({"optimizer.generator": "choice(1, 2)"}, r"is a section; name a key in it \(`distgan keys"),
    Wrong({"seed": "randint(0, 9)"}, r"^seed: cannot be searched: .* luckiest draw; .* with seed=VALUE"),
    Wrong({"description": "choice(a, b)"}, r"cannot be searched: it is text"),
    Wrong({"image_size": "choice(32, 64)"}, r"cannot be searched: .* could not be compared"),
    Wrong({"evaluation.samples": "choice(100, 200)"}, r"cannot be searched: .* measured in another way"),
    Wrong({"evaluation.patience": "choice(1, 2)"}, r"cannot be searched: .* measured in another way"),
    Wrong({"data.resize": "choice(none, bicubic)"}, r"cannot be searched: .* measured in another way"),
    Wrong({"data.url": "choice(a, b)"}, r"cannot be searched: trials on other data"),
    Wrong({"training.kimg": "choice(1, 2)"}, r"cannot be searched: trials with other budgets"),
    Wrong({"scale.groups": "choice(1, 2)"}, r"cannot be searched: it says how a batch is spread"),
    Wrong({"training.log_every": "choice(1, 2)"}, r"cannot be searched: it decides where or how fast"),
    Wrong({"checkpoint.keep_last": "choice(1, 2)"}, r"cannot be searched: it decides where or how fast"),
    # References.
    Wrong({D: "optimizer.generator.rate * choice(1, 2)"}, r"rate \* .*`: unknown key optimizer.generator.rate"),
    Wrong({D: "optimizer.generator * choice(1, 2)"}, r"optimizer.generator is a section"),
    Wrong({D: "data.flip * choice(1, 2)"}, r"data.flip is false in the configuration, no number"),
    Wrong({D: "optimizer.discriminator.max_grad_norm * choice(1, 2)"}, r"norm is null in the configuration, no"),
    Wrong({D: "objective.gp_weight * choice(1, 2)"}, r"the configuration has no objective.gp_weight"),
    Wrong({G: "choice(1e-4, 2e-4) if objective.nam == bce"}, r"unknown key objective.nam; did you mean"),
    Wrong(
        {G: "choice(1e-4, 2e-4) if objective.name == hinge"},
        r"never true: objective.name is bce in the configuration, and it has no entry; .* give objective.name an entry",
    ),
    Wrong({G: "choice(1e-4, 2e-4) if objective.gp_weight == 1"}, r"never true: there is no objective.gp_weight in"),
    Wrong(
        {G: "choice(1e-4, 2e-4) if data.flip == 1", "data.flip": "choice(true, false)"},
        r"never true: the entry of data.flip is `choice\(true, false\)`; give one of its values",
    ),
    Wrong(
        {
            "objective.name": "choice(hinge, bce)",
            "objective.r1_weight": "2 * objective.label_noise",
            "objective.label_noise": "uniform(0, 1) if objective.name == bce",
        },
        r"objective.label_noise is null, no number, in some trials; give the product the",
        "sagan-cifar",
    ),
    Wrong(
        {"optimizer.generator.name": "choice(adam, rmsprop)", "ema.ramp_up": "optimizer.generator.eps * 2"},
        r"refers to optimizer.generator.eps, whose value is not the same in all trials; give it an entry",
        "wgan-bricks",
    ),
    # Values.
    Wrong({G: "loguniform(1e-5, 2)"}, rf"^{G}: `loguniform\(1e-5, 2\)`: .*{G}=2: allowed: number above 0, at most 1"),
    Wrong({G: "uniform(-1, 1)"}, rf"{G}=-1: allowed: number above 0"),
    Wrong({G: "choice(1e-4, fast)"}, rf"{G}='fast': allowed: number"),
    Wrong({G: "choice(1e-4, null)"}, rf"{G}=null: allowed: number"),
    Wrong({"generator.width": "uniform(8, 16)"}, r"generator.width=\d+\.\d+: allowed: integer"),
    Wrong(
        {"latent_dim": "choice(16, 32)", "generator.width": "latent_dim / 3"}, r"^generator.width: .*allowed: integer"
    ),
    Wrong({D: f"4 * {G}", G: "loguniform(1e-4, 1)"}, rf"^{D}: `4 \* {G}`: .*{D}=4: allowed: number above 0, at most 1"),
    Wrong({"training.augment": "choice([], [colour])"}, r"'colour': allowed: color, translation or cutout"),
    Wrong({"objective.gp_weight": "loguniform(0.1, 100)"}, r"unknown key; it is an option of wgan_gp, not of bce"),
    Wrong({"objective.name": "choice(bce, hinge)"}, r"label_noise: unknown key.*; leave such keys out of"),
    Wrong({"optimizer.generator.name": "choice(adam, rmsprop)"}, r"beta1: not a key of rmsprop.*; leave such keys"),
    Wrong(
        {"objective.critic_steps": "choice(1, 3)"},
        r"^objective.critic_steps: `choice\(1, 3\)`: .*updates=simultaneous .* critic_steps must be 1 \(it is 3\)",
    ),
    Wrong(
        {"objective.critic_steps": "choice(1, 3)", "objective.updates": "choice(sequential, simultaneous)"},
        r"^objective.critic_steps: `choice\(1, 3\)`, objective.updates: `choice\(sequential, simultaneous\)`: ",
        "dcgan-cifar",
    ),
    Wrong(
        {
            "objective.name": "choice(hinge, wgan_gp)",
            "objective.gp_weight": "choice(1, -1) if objective.name == wgan_gp",
            **{f"optimizer.{part}": "uniform(0, 0.9)" for part in ("generator.beta1", "discriminator.beta1")},
            **{f"ema.{key}": "uniform(0.1, 0.9)" for key in ("ramp_up", "half_life_kimg")},
        },
        r"^objective.name: `.*`, objective.gp_weight: `choice\(1, -1\) if .*`: .*gp_weight=-1: allowed: number",
        "sagan-cifar",
    ),
    Wrong(
        {"latent_dim": f"choice({', '.join(map(str, range(1, 100)))}, 5000)", "objective.label_noise": "uniform(0, 1)"},
        r"^latent_dim: `choice.*latent_dim=5000: allowed: integer, 1 to 4096",
    ),
    Wrong(
        {"latent_dim": "randint(8, 64)", "objective.label_noise": "choice(0, 7) if latent_dim == 20"},
        r"^objective.label_noise: `choice\(0, 7\) if .*label_noise=7: allowed",
    ),
    Wrong(
        {
            "latent_dim": "randint(8, 64)",
            "data.flip": "choice(true, false) if latent_dim == 20",
            "objective.label_noise": "choice(0, 7) if data.flip == true",
        },
        r"^objective.label_noise: `choice\(0, 7\) if .*label_noise=7: allowed",
    ),
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: next(iter(wrong.entries), "nothing"))
def test_a_space_that_cannot_work(wrong: Wrong) -> None:
    reported = message(wrong.entries, wrong.preset)
    assert re.search(wrong.expected, reported), reported


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
    ("entries", "expected"),
    [
        ({"objective.label_noise": "uniform(0, 1)"}, r"^objective.label_noise: .*; .*optimizer.generator.lr, .* can$"),
        (
            {G: "uniform(0, 1)", "latent_dim": f"100 * {G}"},
            r"^latent_dim: `100 \* .*`: cannot change during training",
        ),
        ({G: "choice(0.1, 0.2)", "ema.ramp_up": f"0.1 if {G} == 0.1"}, r"^ema.ramp_up: .*: cannot change during"),
        ({"objective.r1_weight": "choice(0, 1)"}, r"^objective.r1_weight: .*from 0 .*: take weights above 0"),
    ],
)
def test_what_cannot_change_live(entries: dict[str, str], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        check_live(Space.parse(entries))


# Files.


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", r"a space is a mapping of keys to expressions, as in"),
        ("- a\n", r"a space is a mapping"),
        ("3: choice(1, 2)\n", r"a space is a mapping"),
        ("a: [b\n", r"not valid YAML in line 2"),
        ("a: 'b\n", r"not valid YAML"),
        ("a: [1, 3, 5]\n", r": a: a list is no expression; write choice\(VALUE, VALUE\)"),
        (
            "optimizer: {generator: {lr: 3}}\n",
            r": optimizer: a dict is no expression; write dotted keys, as optimizer.KEY",
        ),
        ("a: 2020-01-01\n", r"a date is no expression"),
        ("{a: uniform(0, 1)}\n", r"'1\)' is no key; .* in braces YAML ends an expression at its comma: quote it"),
        ("a: .inf\n", r"a: a float is no expression"),
    ],
)
def test_a_file_that_is_no_space(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=expected):
        Space.parse(read_entries([str(path)]))


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
