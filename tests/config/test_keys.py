"""The list of the configuration's keys: whole, true, and what `distgan keys` prints of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import Cli, one_line
from distgan.config.describe import Key, list_keys
from distgan.config.load import flatten, load_config, preset_names
from distgan.config.plugins import COMPONENTS
from distgan.errors import UserError

SCHEDULE = "or a schedule {from, to, until_kimg}"

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def empty(tmp_path: Path) -> str:
    """A configuration of defaults."""
    path = tmp_path / "empty.yaml"
    path.write_text("")
    return str(path)


def test_every_key_of_the_presets_is_listed_and_explained() -> None:
    listed = list_keys()
    names = {key.key for key in listed}
    for preset in preset_names():
        assert flatten(load_config(preset).model_dump(), whole_schedules=True).keys() <= names
    for key in listed:
        assert key.meaning, key
        assert "\n" not in key.meaning
        assert key.allowed
    assert len({(key.key, owner) for key in listed for owner in key.of or ("",)}) == sum(
        len(key.of) or 1 for key in listed
    )


def test_the_defaults_are_those_of_a_configuration_without_a_preset(empty: str) -> None:
    config = load_config(empty)
    names = {config.generator.network, config.discriminator.network, config.objective.name, "adam"}
    given = [f"{key.key}={key.default}" for key in list_keys() if not key.of or names & set(key.of)]
    assert {entry.partition("=")[0] for entry in given} == flatten(config.model_dump()).keys()
    assert load_config(empty, given) == config


@pytest.mark.parametrize("section", COMPONENTS)
def test_the_owners_of_an_option_have_it(empty: str, section: str) -> None:
    _, name, registry = COMPONENTS[section]
    listed = list_keys(section)
    for component in registry:
        found = flatten(load_config(empty, [f"{section}.{name}={component}"]).model_dump()).keys()
        theirs = {key.key: key.default for key in listed if not key.of or component in key.of}
        assert theirs.keys() == {key for key in found if key.startswith(f"{section}.")}


def test_a_key_says_what_it_takes() -> None:
    found = {(key.key, key.of): key for key in list_keys()}
    assert found["optimizer.generator.lr", ("adam",)] == Key(
        "optimizer.generator.lr",
        "number above 0, at most 1, or a schedule {from, to, until_kimg}",
        "0.0002",
        "learning rate",
        ("adam",),
    )
    assert found["objective.gp_sides", ("wgan_gp",)].allowed == "1 or 2"
    assert found["objective.name", ()].allowed == "bce, hinge, rpgan, wgan, wgan_gp or module:Class"
    assert found["optimizer.generator.name", ()].allowed == "adam or rmsprop"
    assert found["scale.threads", ()].allowed == "integer, 1 to 1024, or null"
    assert found["training.augment", ()].allowed == "list, each color, translation, cutout or ada"
    assert found["generator.width", ("sagan_resnet", "sngan")].default == "null"
    assert found["data.flip", ()].allowed == "true or false"
    assert found["seed", ()].allowed == "integer, 0 to 4294967295"


def test_a_section_a_key_or_a_part_of_one() -> None:
    assert {key.key.partition(".")[0] for key in list_keys("objective")} == {"objective"}
    assert all(key.key.startswith("optimizer.generator.") for key in list_keys("optimizer.generator"))
    assert {key.key for key in list_keys("data.url")} == {"data.url"}
    assert {key.key for key in list_keys("_kimg")} >= {"checkpoint.every_kimg", "ema.half_life_kimg"}
    assert [key.key for key in list_keys("seed")] == ["seed"]
    with pytest.raises(UserError, match="objectve: no key contains this; did you mean 'objective'"):
        list_keys("objectve")
    with pytest.raises(UserError, match=r"^x+: no key contains this; `distgan keys` lists them all$"):
        list_keys("x" * 300)


def test_a_line_a_key_or_json(cli: Cli) -> None:
    shown = cli("keys", "ema")
    assert shown.code == 0
    head, *lines = shown.out.splitlines()
    assert head.split() == ["key", "allowed", "default", "of", "description"]
    assert [line.split()[0] for line in lines] == ["ema.half_life_kimg", "ema.ramp_up"]
    rows = json.loads(cli("keys", "ema", "--json").out)
    assert [row["key"] for row in rows] == ["ema.half_life_kimg", "ema.ramp_up"]
    assert rows[1].items() >= {"default": "0.05", "allowed": "number above 0, at most 1, or null", "of": []}.items()
    assert "no key contains this" in one_line(cli("keys", "zzz"))


def test_keys_of_no_component_need_no_torch() -> None:
    script = """
import sys
from distgan.cli.main import main
sys.argv = ["distgan", "keys", "training"]
try:
    main()
except SystemExit as ended:
    assert not ended.code
assert not {"torch", "ray", "numpy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=50, check=True)
