"""The space of a search: what its texts mean, draws, grids, conditions, and the presets' own spaces."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import torch
import yaml

from distgan.config.load import flatten, load_config, preset_names
from distgan.config.schema import Config
from distgan.search import space_checks
from distgan.search.expressions import Choice, Condition, Constant, Distribution, Entry, Product, arguments
from distgan.search.parsing import parse_entry
from distgan.search.ranges import LogRandInt, LogUniform, QUniform, RandInt, Uniform
from distgan.search.space import Space
from distgan.search.space_checks import check_live
from distgan.search.space_files import default_entries, parse_file, read_entries
from distgan.storage.storage import Storage
from distgan.training.networks import build_networks, build_objective, check_combination

pytestmark = pytest.mark.timeout(60)

G, D = "optimizer.generator.lr", "optimizer.discriminator.lr"
HINGE_OR_WGAN = {
    "objective.name": "choice(hinge, wgan_gp)",
    "objective.gp_weight": "loguniform(0.1, 100) if objective.name == wgan_gp",
    "objective.r1_weight": "choice(0, 0.1) if objective.name in (hinge, bce)",
}


def validated(preset: str, entries: dict[str, str], *given: str) -> Space:
    return space_checks.validated(Space.parse(entries), lambda overrides: load_config(preset, [*given, *overrides]))


# The language.


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("loguniform(1e-5, 1e-3)", Entry(LogUniform(1e-5, 1e-3))),
        ("uniform(-1, .5)", Entry(Uniform(-1, 0.5))),
        ("randint(1, 5)", Entry(RandInt(1, 5))),
        ("lograndint(16, 256)", Entry(LogRandInt(16, 256))),
        ("quniform(0, 0.3, 0.1)", Entry(QUniform(0, 0.3, 0.1))),
        ("choice(1, -2.5, true, None, adam, 'a b')", Entry(Choice((1, -2.5, True, None, "adam", "a b")))),
        ("choice([], [color, cutout])", Entry(Choice(((), ("color", "cutout"))))),
        ("adam", Entry(Constant("adam"))),
        (" 3 ", Entry(Constant(3))),
        ("null", Entry(Constant(None))),
        ("4 * optimizer.generator.lr", Entry(Product(G, 4))),
        ("optimizer.generator.lr", Entry(Product(G))),
        ("3 * latent_dim / 2", Entry(Product("latent_dim", 1.5))),
        ("2 * optimizer.generator.lr * choice(1, 2)", Entry(Product(G, 2, Choice((1, 2))))),
        ("uniform(1, 2) * optimizer.generator.lr", Entry(Product(G, 1, Uniform(1, 2)))),
        ("optimizer.generator.lr / uniform(1, 2)", Entry(Product(G, 1, Uniform(1, 2), divided=True))),
        ("3 if objective.name == hinge", Entry(Constant(3), Condition("objective.name", ("hinge",)))),
        ("choice(1, 2) if num_classes in (null, 10)", Entry(Choice((1, 2)), Condition("num_classes", (None, 10)))),
    ],
)
def test_what_a_text_means(text: str, entry: Entry) -> None:
    assert parse_entry("key", text) == entry
    assert parse_entry("key", entry.text) == entry


@pytest.mark.parametrize("word", ["null", "true", "choice", "if", "a b", "it's", "1", "", "module:Class", "ﬁ", "None"])
def test_any_string_can_be_quoted(word: str) -> None:
    entry = Entry(Choice((word, "other")))
    assert parse_entry("key", entry.text) == entry
    assert parse_entry("key", Entry(Constant(word)).text) == Entry(Constant(word))


# Distributions.

RANGES = [LogUniform(1e-5, 1e-3), Uniform(-1, 0.5), RandInt(1, 5), LogRandInt(2, 300), QUniform(0.1, 0.7, 0.1)]


@pytest.mark.parametrize("drawn", [*RANGES, Choice((1, "a", None, (2, 3)))], ids=lambda drawn: drawn.text)
def test_every_way_to_a_value_stays_inside(drawn: Distribution) -> None:
    rng = Random(0)
    values = [drawn.sample(rng) for _ in range(300)] + drawn.probes() + [drawn.at(0), drawn.at(1)]
    values += [value for points in (1, 2, 3, 7) for value in drawn.grid(points)]
    values += [drawn.nearest(value) for value in (-1e9, 0, 0.33, 3.4, 1e9, "x", None, True)]
    assert all(drawn.contains(value) for value in values)


@pytest.mark.parametrize("drawn", RANGES, ids=lambda drawn: drawn.text)
def test_a_grid_goes_from_end_to_end_without_repeats(drawn: Uniform) -> None:
    for points in (2, 3, 10):
        grid = drawn.grid(points)
        assert (grid[0], grid[-1]) == (drawn.low, drawn.high)
        assert grid == sorted(set(grid))
        assert len(grid) <= points
    assert not drawn.contains(drawn.low - 1)
    assert not drawn.contains(drawn.high + 1)
    assert not drawn.contains("1")


def test_grids_are_even_in_their_own_scale() -> None:
    assert LogUniform(1e-5, 1e-3).grid(3) == [1e-5, 1e-4, 1e-3]
    assert Uniform(0, 1).grid(5) == [0, 0.25, 0.5, 0.75, 1]
    assert Uniform(0, 1).grid(1) == [0.5]
    assert RandInt(1, 3).grid(10) == [1, 2, 3]
    assert LogRandInt(1, 100).grid(3) == [1, 10, 100]
    assert QUniform(0, 0.3, 0.1).grid(4) == [0, 0.1, 0.2, 0.3]
    assert Choice((1, 3, 5)).grid(2) == [1, 3, 5]


def test_each_value_is_as_likely_as_its_distribution_says() -> None:
    """3,000 draws: a share is within 0.05 of its probability, five standard deviations."""

    def shares(drawn: Distribution) -> dict[object, float]:
        rng = Random(1)
        return {value: count / 3000 for value, count in Counter(drawn.sample(rng) for _ in range(3000)).items()}

    for drawn, count in ((RandInt(1, 4), 4), (Choice(("a", None, 3)), 3), (QUniform(2, 6, 2), 3)):
        assert list(shares(drawn).values()) == pytest.approx([1 / count] * count, abs=0.05)
    log = {k: math.log(1 + 1 / k) / math.log(4) for k in (1, 2, 3)}
    assert shares(LogRandInt(1, 3)) == pytest.approx(log, abs=0.05)
    rng = Random(2)
    below = sum(float(str(LogUniform(1e-4, 1).sample(rng))) < 1e-2 for _ in range(3000))
    assert below / 3000 == pytest.approx(0.5, abs=0.05)


def test_steps_are_integers_where_all_three_numbers_are() -> None:
    values = QUniform(32, 128, 32).grid(9)
    assert values == [32, 64, 96, 128]
    assert all(isinstance(value, int) for value in values)


# Draws and overrides.


def test_a_draw_depends_on_the_seed_its_number_and_its_name_only() -> None:
    small = Space.parse({G: "loguniform(1e-5, 1e-3)"})
    large = Space.parse({D: "loguniform(1e-5, 1e-3)", G: "loguniform(1e-5, 1e-3)"})
    drawn = [large.sample(3, number) for number in range(20)]
    assert drawn == [large.sample(3, number) for number in range(20)]
    assert [{G: point[G]} for point in drawn] == [small.sample(3, number) for number in range(20)]
    assert len({point[G] for point in drawn}) == len({large.sample(seed, 0)[G] for seed in range(20)}) == 20
    assert all(point[G] != point[D] for point in drawn)
    assert small.sample(0, 0) == {G: 1.1431457944171026e-05}


def test_products_follow_what_they_refer_to_whatever_the_order_of_entries() -> None:
    entries = {
        D: "optimizer.generator.lr * choice(1, 2, 4)",
        G: "loguniform(1e-5, 1e-3)",
        "latent_dim": "generator.width / 2",
        "ema.half_life_kimg": "10 * latent_dim / choice(2, 4)",
    }
    space = validated("quickstart", entries)
    assert list(space.free) == [f"{D}.factor", G, "ema.half_life_kimg.factor"]
    overrides = space.overrides({f"{D}.factor": 4, G: 1e-4, "ema.half_life_kimg.factor": 2})
    assert overrides == {D: 4e-4, G: 1e-4, "latent_dim": 16, "ema.half_life_kimg": 80}
    assert list(overrides) == list(entries)


def test_a_key_whose_condition_is_false_is_left_out() -> None:
    space = validated("sagan-cifar", HINGE_OR_WGAN)
    draw = {"objective.name": "wgan_gp", "objective.gp_weight": 5.0, "objective.r1_weight": 0.1}
    assert space.overrides(draw) == {"objective.name": "wgan_gp", "objective.gp_weight": 5.0}
    hinge = draw | {"objective.name": "hinge"}
    assert space.overrides(hinge) == {"objective.name": "hinge", "objective.r1_weight": 0.1}


def test_a_condition_may_ask_for_what_the_configuration_has() -> None:
    space = validated("sagan-cifar", {"objective.r1_weight": "choice(0, 0.1) if objective.name == hinge"})
    assert space.overrides({"objective.r1_weight": 0.1}) == {"objective.r1_weight": 0.1}


def test_where_an_entry_is_not_used_conditions_ask_for_what_the_configuration_has() -> None:
    entries = {"data.flip": "true if latent_dim == 16", "objective.label_noise": "uniform(0, 1) if data.flip == false"}
    space = validated("quickstart", {"latent_dim": "choice(16, 64)", **entries})
    draw = {"latent_dim": 64, "objective.label_noise": 0.5}
    assert space.overrides(draw) == draw
    assert space.overrides(draw | {"latent_dim": 16}) == {"latent_dim": 16, "data.flip": True}


def test_conditions_come_in_chains() -> None:
    entries = {
        "objective.gp_sides": "choice(1, 2) if objective.gp_weight in (1, 10)",
        "objective.gp_weight": "choice(1, 3, 10) if objective.name == wgan_gp",
        "objective.name": "choice(hinge, wgan_gp)",
    }
    space = validated("sagan-cifar", entries)
    draw = {"objective.gp_sides": 1, "objective.gp_weight": 3, "objective.name": "wgan_gp"}
    assert space.overrides(draw) == {"objective.gp_weight": 3, "objective.name": "wgan_gp"}
    assert space.overrides(draw | {"objective.gp_weight": 1}) == draw | {"objective.gp_weight": 1}
    assert space.overrides(draw | {"objective.name": "hinge"}) == {"objective.name": "hinge"}


def test_overrides_reach_the_configuration_to_the_last_digit() -> None:
    entries = {
        G: "loguniform(1e-9, 1)",
        "optimizer.generator.max_grad_norm": "choice(null, 1e5)",
        "training.augment": "choice([], [color, translation])",
        "data.flip": "choice(false, true)",
        "objective.critic_steps": "1",
    }
    space = validated("quickstart", entries)
    for number in range(20):
        overrides = space.overrides(space.sample(0, number))
        values = flatten(load_config("quickstart", arguments(overrides)).model_dump())
        assert {key: values[key] for key in overrides} == overrides


def test_the_grid_has_each_trial_once() -> None:
    space = validated("sagan-cifar", HINGE_OR_WGAN)
    trials = [space.overrides(point) for point in space.grid(3)]
    assert [len(trial) for trial in trials] == [2] * 5
    assert [trial["objective.gp_weight"] for trial in trials[2:]] == pytest.approx([0.1, 10**0.5, 100])
    assert [trial["objective.r1_weight"] for trial in trials[:2]] == [0, 0.1]


def test_the_first_point_is_the_configuration_itself() -> None:
    own = load_config("quickstart")
    entries = {G: "loguniform(1e-4, 1e-2)", D: "optimizer.generator.lr / choice(1, 2, 4)"}
    assert validated("quickstart", entries).initial(own) == {G: 8e-4, f"{D}.factor": 2}
    below = validated("quickstart", entries | {G: "loguniform(1e-5, 1e-4)"})
    assert (below.initial(own), below.outside(own)) == (None, [G, D])
    other = validated("quickstart", entries | {"objective.label_noise": "0.1"})
    assert (other.initial(own), other.outside(own)) == (None, ["objective.label_noise"])
    assert below.nearest({G: 1, D: 0.5}) == {G: 1e-4, f"{D}.factor": 2}


def test_what_is_not_used_at_first_begins_in_its_middle() -> None:
    space = validated("sagan-cifar", HINGE_OR_WGAN)
    first = space.initial(load_config("sagan-cifar"))
    assert first == {
        "objective.name": "hinge",
        "objective.gp_weight": pytest.approx(10**0.5),
        "objective.r1_weight": 0,
    }


@pytest.mark.parametrize(
    "entries",
    [
        {"objective.name": "choice(bce, hinge, wgan)"},
        {"optimizer.generator.name": "choice(adam, rmsprop)", "optimizer.discriminator.name": "rmsprop"},
        {"generator.network": "choice(dcgan, r3gan)"},
    ],
)
def test_a_choice_of_components_is_valid_whatever_options_the_preset_sets(entries: dict[str, str]) -> None:
    assert validated("quickstart", entries).entries.keys() == entries.keys()


# Files and arguments.


def test_a_space_is_written_as_it_is_read() -> None:
    entries = HINGE_OR_WGAN | {"discriminator.network": "choice('a: b #c', sagan)", "data.flip": "true", "a.b": "3"}
    space = Space.parse(entries)
    assert Space.parse(parse_file(space.text(), "it")) == space
    assert Space.parse(space.as_dict()).as_dict() == space.as_dict()


def test_arguments_win_over_files_and_later_files_over_earlier(tmp_path: Path, bucket: str) -> None:
    (tmp_path / "a.yaml").write_text(f"{G}: loguniform(1e-5, 1e-3)\nseed: 3\ndata.flip: true\nlatent_dim:\n")
    Storage.open(bucket).write_bytes("b.yaml", f"{D}: 4 * {G}\nseed: 1.5\n".encode())
    read = read_entries([f"{G} = choice(1, 2) if a == b", str(tmp_path / "a.yaml"), f"{bucket}/b.yaml"])
    assert read == {
        G: " choice(1, 2) if a == b",
        "seed": "1.5",
        "data.flip": "true",
        "latent_dim": "null",
        D: f"4 * {G}",
    }


# The presets' own spaces.


@pytest.mark.parametrize("preset", preset_names())
def test_a_presets_own_space_holds_the_preset_and_works(preset: str) -> None:
    space = validated(preset, default_entries(preset))
    config = load_config(preset)
    assert space.outside(config) == []
    first = space.initial(config)
    assert first is not None
    points = [first, *(space.sample(0, number) for number in range(2))]
    for trial in (load_config(preset, arguments(space.overrides(point))) for point in points):
        check_combination(trial, build_networks(trial, torch.device("meta")), build_objective(trial))
    assert len(space.grid(3)) <= 200
    assert space.text() == yaml.safe_dump(space.as_dict(), sort_keys=False, width=1000)


# Changes while a run goes on.


def test_what_can_change_live() -> None:
    entries = {
        G: "loguniform(1e-5, 1e-3)",
        D: "4 * optimizer.generator.lr",
        "objective.gp_weight": "loguniform(0.1, 100)",
        "objective.critic_steps": "randint(1, 5)",
        "objective.interpolation": "normal",
    }
    check_live(Space.parse(entries))
    check_live(Space.parse({"objective.r1_weight": "loguniform(0.1, 10)"}))


def test_a_validation_looks_at_each_configuration_once_and_at_every_choice() -> None:
    asked: list[tuple[str, ...]] = []

    def load(overrides: list[str]) -> Config:
        asked.append(tuple(overrides))
        return load_config("sagan-cifar", overrides)

    space_checks.validated(Space.parse({**HINGE_OR_WGAN, "discriminator.width": "randint(8, 16)"}), load)
    assert len(asked) == len(set(asked))
    flat = {argument for overrides in asked for argument in overrides}
    assert flat >= {"objective.gp_weight=0.1", "objective.gp_weight=100", "objective.r1_weight=0.1"}
    assert flat >= {"discriminator.width=8", "discriminator.width=16", 'objective.name="wgan_gp"'}
