"""A configuration with other values, as each trial of a search has them."""

from __future__ import annotations

from typing import Any

import pytest

from distgan.config.load import load_config, overridden, overridden_tree
from distgan.config.schema import Config
from distgan.errors import UserError

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def config() -> Config:
    return load_config("wgan-gp-cifar", ["data.url=/data/cifar", "objective.gp_weight=7", "objective.critic_steps=3"])


def tree_of(config: Config) -> dict[str, Any]:
    return config.model_dump(mode="json")


def test_only_what_is_overridden_changes(config: Config) -> None:
    found = overridden(config, {"optimizer.generator.lr": 1e-5, "objective.gp_weight": 2, "data.streams": 32}, "here")
    wanted = tree_of(config)
    wanted["optimizer"]["generator"]["lr"] = 1e-5
    wanted["objective"]["gp_weight"] = 2.0
    wanted["data"]["streams"] = 32
    assert tree_of(found) == wanted
    assert overridden(config, {}, "here") == config


def test_it_changes_nothing_in_place(config: Config) -> None:
    tree = tree_of(config)
    overrides = {
        "objective.name": "bce",
        "optimizer.generator.name": "rmsprop",
        "optimizer.discriminator.lr": 1e-3,
        "generator.network": "dcgan",
        "training.kimg": 1.0,
        "health.stop": True,
    }
    overridden_tree(tree, overrides)
    assert tree == tree_of(config)


def test_another_objective_has_its_own_options_and_keeps_what_both_have(config: Config) -> None:
    found = tree_of(overridden(config, {"objective.name": "hinge"}, "here"))["objective"]
    assert "gp_weight" not in found
    assert (found["name"], found["critic_steps"]) == ("hinge", 3)
    assert found == tree_of(load_config("sngan-cifar", ["objective.critic_steps=3"]))["objective"]
    back = overridden(config, {"objective.name": "hinge", "objective.r1_weight": 0.5}, "here")
    assert tree_of(back)["objective"]["r1_weight"] == 0.5
    again = tree_of(overridden(back, {"objective.name": "wgan_gp"}, "here"))["objective"]
    assert "r1_weight" not in again
    assert again["gp_weight"] == tree_of(load_config("quickstart", GP))["objective"]["gp_weight"], "its default"


GP = ["objective={name: wgan_gp, critic_steps: 5}", "discriminator={network: wgan_gp}"]


def test_the_same_name_keeps_all_options(config: Config) -> None:
    assert overridden(config, {"objective.name": "wgan_gp"}, "here") == config
    assert overridden(config, {"optimizer.generator.name": "adam"}, "here") == config


def test_another_network(config: Config) -> None:
    found = tree_of(overridden(config, {"generator.network": "dcgan", "generator.widths": [64, 32, 16]}, "here"))
    assert found["generator"]["network"] == "dcgan"
    assert found["generator"]["widths"] == [64, 32, 16]
    assert found["discriminator"] == tree_of(config)["discriminator"]


def test_another_optimizer_of_one_side(config: Config) -> None:
    found = tree_of(overridden(config, {"optimizer.generator.name": "rmsprop"}, "here"))["optimizer"]
    own = tree_of(config)["optimizer"]
    assert found["discriminator"] == own["discriminator"]
    assert found["generator"]["name"] == "rmsprop"
    assert found["generator"]["lr"] == own["generator"]["lr"]
    assert not {"beta1", "beta2"} & found["generator"].keys()
    assert found["lr_factor"] == own["lr_factor"]
    back = overridden(
        overridden(config, {"optimizer.generator.name": "rmsprop"}, "here"),
        {"optimizer.generator.name": "adam", "optimizer.generator.beta1": 0.1},
        "here",
    )
    assert back.optimizer.generator.beta1 == 0.1  # type: ignore[union-attr]


def test_a_section_that_was_not_there(config: Config) -> None:
    assert overridden_tree({**tree_of(config), "health": None}, {"health.stop": True})["health"] == {"stop": True}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"optimizer.generator.lr": -1.0}, r"^trial 3: optimizer\.generator\..*lr=-1\.?0?: allowed: number above 0"),
        ({"objective.name": "lsgan"}, r"^trial 3: objective\.name: unknown objective 'lsgan'; did you mean 'wgan'"),
        ({"objective.name": "bce", "objective.gp_weight": 1.0}, r"^trial 3: objective\.gp_weight: .*option of wgan_gp"),
        ({"optimizer.generator.name": "adagrad"}, r"^trial 3: optimizer\.generator"),
        ({"optimizer.generatr.lr": 1.0}, r"^trial 3: optimizer\.generatr: unknown key; did you mean"),
        ({"objective.name": 3}, r"^trial 3: objective\.name=3"),
        ({"scale.groups": 3}, r"^trial 3: .*data\.streams=16 must be a multiple of scale\.groups=3"),
    ],
)
def test_what_cannot_work_is_told_with_its_origin(config: Config, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        overridden(config, overrides, "trial 3")
