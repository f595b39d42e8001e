"""From presets, files and overrides to a checked configuration."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from typing_extensions import Doc

import distgan
from distgan.config import schema
from distgan.config.load import (
    build_config,
    dump_config,
    flatten,
    load_config,
    preset_names,
    preset_text,
    without_credentials,
)
from distgan.config.plugins import (
    CONTEXT,
    DISCRIMINATORS,
    EXTRACTORS,
    GENERATORS,
    OBJECTIVES,
    SOURCES,
    Registry,
    options_model,
)
from distgan.config.resume_rules import runtime_keys, training_differences
from distgan.config.schema import AdamConfig, Config
from distgan.config.section import Section
from distgan.errors import UserError

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_loads_and_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    assert config.description
    assert config.source
    file = tmp_path / "dumped.yaml"
    file.write_text(dump_config(config))
    assert load_config(str(file)) == config
    assert training_differences(config, load_config(str(file))) == {}
    assert yaml.safe_load(preset_text(name))["image_size"] == config.image_size


def test_the_presets_are_the_sources_recipes() -> None:
    bricks, faces = load_config("dcgan-bricks"), load_config("wgan-gp-faces")
    assert (bricks.training.batch_size, bricks.training.kimg) == (128, 300 * 40)
    assert bricks.objective.updates == "simultaneous"
    assert bricks.objective.options == {
        "label_noise": 0.1, "label_flips": 0.0, "r1_weight": 0.0, "r2_weight": 0.0, "penalty_every": 1
    }  # fmt: skip
    for adam in (bricks.optimizer.generator, bricks.optimizer.discriminator):
        assert isinstance(adam, AdamConfig)
        assert (adam.lr, adam.beta1, adam.beta2, adam.eps) == (2e-4, 0.5, 0.999, 1e-7)
    assert (faces.training.batch_size, faces.latent_dim, faces.channels) == (512, 128, 3)
    assert (faces.objective.critic_steps, faces.objective.critic_batches) == (3, "fresh")
    assert faces.objective.options == {"gp_weight": 10.0, "gp_sides": 2, "interpolation": "uniform", "penalty_every": 1}
    for adam in (faces.optimizer.generator, faces.optimizer.discriminator):
        assert isinstance(adam, AdamConfig)
        assert (adam.lr, adam.beta1, adam.beta2) == (2e-4, 0.5, 0.9)
    assert faces.discriminator.network == "wgan_gp"
    assert faces.training.kimg == pytest.approx(25 * 202.599, abs=1)


def test_the_keys_that_searches_vary_exist() -> None:
    keys = flatten(load_config("wgan-gp-faces").model_dump())
    assert {
        "objective.critic_steps",
        "objective.gp_weight",
        "optimizer.generator.lr",
        "optimizer.discriminator.lr",
    } <= keys.keys()


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("optimizer.generator.lr=1e-4", "optimizer.generator.lr", 1e-4),  # YAML 1.1 reads 1e-4 as a string
        ("optimizer.generator.lr=.0003", "optimizer.generator.lr", 3e-4),
        ("training.kimg=2e3", "training.kimg", 2000.0),
        ("objective.label_noise=1e-2", "objective.label_noise", 0.01),
        ("data.url=s3://bucket/a=b", "data.url", "s3://bucket/a=b"),
        ("data.flip=true", "data.flip", True),
        ("evaluation.patience=null", "evaluation.patience", None),
        ("evaluation.patience=3", "evaluation.patience", 3),
        ("training.samples_every_kimg=0.5", "training.samples_every_kimg", 0.5),
        ("training.augment=[color, cutout]", "training.augment", ["color", "cutout"]),
        ("optimizer.generator={name: rmsprop}", "optimizer.generator.lr", 5e-5),
        ("optimizer.generator={lr: 1}", "optimizer.generator.name", "adam"),
        ("optimizer.discriminator.max_grad_norm=5", "optimizer.discriminator.max_grad_norm", 5.0),
        ("optimizer.lr_factor={from: 1, to: 0, until_kimg: 240}", "optimizer.lr_factor.until_kimg", 240.0),
        ("generator.widths=[8, 4, 2]", "generator.widths", [8, 4, 2]),
        ("ema={half_life_kimg: 0}", "ema.half_life_kimg", 0.0),
        (" scale.workers =2", "scale.workers", 2),
    ],
)
def test_overrides(override: str, key: str, value: object) -> None:
    assert flatten(load_config("quickstart", [override]).model_dump())[key] == value


def test_later_overrides_win_and_others_stay() -> None:
    config = load_config("wgan-gp-faces", ["objective.gp_weight=1", "objective.gp_weight=5", "seed=3"])
    assert config.objective.options["gp_weight"] == 5
    assert config.objective.critic_steps == 3
    assert config.seed == 3


WRONG = [
    # an unknown name: the nearest is told
    ("optimzer.generator.lr=1e-4", "optimzer: unknown key; did you mean 'optimizer'"),
    ("optimizer.generator.lrr=1e-4", "optimizer.generator.lrr: unknown key; did you mean 'optimizer.generator.lr'"),
    ("batch_size=64", "batch_size: unknown key; did you mean 'training.batch_size'"),
    ("training.batch-size=64", "training.batch-size: unknown key; did you mean 'training.batch_size'"),
    ("objective.label_nose=0", "objective.label_nose: unknown key; did you mean 'objective.label_noise'"),
    ("discriminator.drop_out=0", "discriminator.drop_out: unknown key; did you mean 'discriminator.dropout'"),
    ("generator.image_size=64", "generator.image_size: unknown key; did you mean 'image_size'"),
    ("generator.networks=dcgan", "generator.networks: unknown key; did you mean 'generator.network'"),
    ("generator.network=dcgann", "generator.network: unknown generator network 'dcgann'; did you mean 'dcgan'"),
    ("objective.name=wgan-gp", "objective.name: unknown objective 'wgan-gp'; did you mean 'wgan_gp'"),
    ("objective.name=zzz", "unknown objective 'zzz'; there are: bce, hinge, rpgan, wgan, wgan_gp"),
    ("optimizer.generator.name=adm", "optimizer.generator: unknown optimizer 'adm'; did you mean 'adam'"),
    ("optimizer.generator.name=[1]", r"optimizer.generator: unknown optimizer \[1\]; there are: adam, rmsprop"),
    ("training.augment=[colour]", "training.augment.0='colour': allowed: color, translation or cutout"),
    ("lr=1", "lr: unknown key; did you mean 'optimizer.discriminator.lr' or 'optimizer.generator.lr'"),
    # no name is near: how they are listed
    ("colour=1", "colour: unknown key; `distgan keys` lists them"),
    ("training.speed=1", "training.speed: unknown key; `distgan keys training` lists them"),
    ("objective.zzz=1", "objective.zzz: unknown key; `distgan keys objective` lists them"),
    (
        "optimizer.generator.zzz=1",
        "optimizer.generator.zzz: unknown key; `distgan keys optimizer.generator` lists them",
    ),
    ("training." + "x" * 300 + "=1", "xxx...: unknown key; `distgan keys training` lists them"),
    # an option of another component
    ("objective.gp_weight=10", "objective.gp_weight: unknown key; it is an option of wgan_gp, not of bce"),
    ("optimizer.generator.alpha=0.9", "optimizer.generator.alpha: not a key of adam"),
    ("optimizer.generator={name: rmsprop, beta1: 0}", "optimizer.generator.beta1: not a key of rmsprop"),
    (
        "optimizer.discriminator={name: rmsprop, alfa: 0}",
        "optimizer.discriminator.alfa: unknown key; did you mean 'optimizer.discriminator.alpha'",
    ),
    # wrong types
    ("seed=one", "seed='one': allowed: integer, 0 to 4294967295"),
    ("training.batch_size=12.5", "training.batch_size=12.5: allowed: integer, 2 to 1048576"),
    ("data.flip=sometimes", "data.flip='sometimes': allowed: true or false"),
    ("generator.network=[1]", r"generator.network=\[1\]: allowed: text"),
    ("generator.widths=[a, 1, 2]", "generator.widths.0='a': allowed: integer, 1 to 4096"),
    ("seed=null", "seed=null: allowed: integer, 0 to 4294967295"),
    ("description=2020-01-01", r"description=datetime.date\(2020, 1, 1\): allowed: text"),
    # out of range
    ("image_size=48", "image_size=48: allowed: 16, 32, 64 or 128"),
    ("channels=2", "channels=2: allowed: 1 or 3"),
    ("optimizer.generator.lr=0", "optimizer.generator.lr=0: allowed: number above 0, at most 1"),
    ("optimizer.generator.beta2=1", "optimizer.generator.beta2=1: allowed: number at least 0, below 1"),
    (
        "optimizer.generator={name: rmsprop, alpha: 1}",
        "optimizer.generator.alpha=1: allowed: number at least 0",
    ),
    (
        "optimizer.generator.max_grad_norm=0",
        "max_grad_norm=0: allowed: number above 0, at most 1e6, or null",
    ),
    ("discriminator.dropout=1", "discriminator.dropout=1: allowed: number at least 0, below 1"),
    ("generator.width=10000000", "generator.width=10000000: allowed: integer, 1 to 4096"),
    ("generator.upsampling=bilinear", "generator.upsampling='bilinear': allowed: transposed or nearest"),
    ("evaluation.patience=0", "evaluation.patience=0: allowed: integer, 1 or more, or null"),
    ("checkpoint.every_kimg=0", "checkpoint.every_kimg=0: allowed: number above 0, at most 1e9, or null"),
    ("seed=-1", "seed=-1: allowed: integer, 0 to 4294967295"),
    ("seed=4294967296", "seed=4294967296: allowed: integer, 0 to 4294967295"),
    # numbers that are none
    ("training.kimg=.nan", "training.kimg=nan: allowed: number above 0, at most 1e9"),
    ("optimizer.generator.lr=.nan", "optimizer.generator.lr=nan: allowed: number above 0, at most 1"),
    ("training.kimg=.inf", "training.kimg=inf: allowed: number above 0, at most 1e9"),
    ("objective.label_noise=.nan", "objective.label_noise=nan: allowed: number at least 0, at most 1"),
    # sections and values in each other's place
    ("data=5", "data=5: a section of keys, not a value"),
    ("generator=dcgan", "generator='dcgan': a section of keys, not a value"),
    ("objective=null", "objective=null: a section of keys, not a value"),
    ("optimizer.generator=adam", "optimizer.generator='adam': a section of keys, not a value"),
    ("training.augment=color", "training.augment='color': allowed: list, each color, translation or cutout"),
    ("objective=[1]", r"objective=\[1\]: a section of keys, not a value"),
    ("seed.value=1", r"seed=\{'value': 1\}: allowed: integer, 0 to 4294967295"),
    ("image_size.value=1", "override 'image_size.value': 'image_size' is a value, not a section"),
    ("generator={1: 2}", "generator.1=1: keys should be strings"),
    # no override at all
    ("seed", "override 'seed': write KEY=VALUE with a dotted key"),
    ("=1", "override '=1': write KEY=VALUE"),
    ("training.=1", "override 'training.=1': write KEY=VALUE"),
    ("a..b=1", "override 'a..b=1': write KEY=VALUE"),
    ("x" * 300, "x: write KEY=VALUE"),
    # no YAML: PyYAML raises more than its own errors
    ("seed=[1", r"override 'seed=\[1': the value is not valid YAML; quote it"),
    ("seed=2020-99-99", "override 'seed=2020-99-99': the value is not valid YAML"),
    ("seed=!!timestamp x", "the value is not valid YAML"),
    ("seed=!!python/object:os.system x", "the value is not valid YAML"),
    ("seed=\0", "the value is not valid YAML"),
    pytest.param("seed=" + "[" * 1200, "the value is not valid YAML", id="deep"),
    ("seed=&a [*a]", "the value is not valid YAML"),
    ("data=&a {url: *a}", "the value is not valid YAML"),
    pytest.param("seed=1" + "0" * 5000, "the value is not valid YAML", id="long number"),
    # combinations
    ("training.batch_size=100", "training.batch_size=100 must be a multiple of data.streams=16"),
    ("data.streams=7", "data.streams=7 must be a multiple of scale.groups=2"),
    ("scale.workers=5", "scale.workers=5 is more than scale.groups=2"),
    ("training.augment=[cutout, cutout]", "training.augment: each augmentation once, not cutout, cutout"),
    (
        "optimizer.lr_factor={from: 1, to: 0, until_kimg: 239}",
        "training.kimg=240 is beyond optimizer.lr_factor.until_kimg=239, where it reaches 0",
    ),
    (
        "optimizer.generator.lr={from: 1e-3, to: 0, until_kimg: 239}",
        "training.kimg=240 is beyond optimizer.generator.lr.until_kimg=239, where it reaches 0",
    ),
    ("objective.critic_steps=2", "updates=simultaneous takes both gradients from one forward"),
    ("objective.generator_batch_multiple=2", "updates=simultaneous has the same fakes in both updates"),
]


@pytest.mark.parametrize(("override", "message"), WRONG)
def test_a_wrong_override_is_named(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_config("quickstart", [override])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_several_mistakes_are_told_together() -> None:
    with pytest.raises(UserError) as caught:
        load_config("quickstart", ["seed=x", "generator.width=0", "data.flip=maybe", "training.kimg=-1", "channels=9"])
    assert "generator.width" in str(caught.value)
    assert str(caught.value).endswith("and 2 more")


# Each is nine of the one before: 3.9 billion values in all.
ALIASES = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (name + 1, name + 1, b",".join([b"*%c" % name] * 9)) for name in range(97, 106)
)

FILES: dict[str, tuple[bytes, str]] = {
    "a list": (b"- seed\n- 1\n", "a configuration is a mapping of keys to values"),
    "a string": (b"just words\n", "a configuration is a mapping"),
    "numbers as keys": (b"1: 2\n", "a configuration is a mapping"),
    "garbage": (b"{{{{: ]]\n", "not valid YAML"),
    "tabs": (b"data:\n\turl: x\n", "not valid YAML"),
    "an impossible date": (b"description: 2020-99-99\n", "not valid YAML: month must be in"),
    "a Python object": (b"seed: !!python/object/apply:os.getpid []\n", "not valid YAML"),
    "binary": (bytes(range(128, 256)) * 4, "cannot read the configuration"),
    "zeros": (b"\0\0\0\0", "not valid YAML"),
    "a picture": (b"\x89PNG\r\n\x1a\n", "cannot read the configuration"),
    "a mapping to itself": (b"&a\ngenerator: *a\n", "line 2: an alias .* inside of what it stands for"),
    "aliases of aliases": (ALIASES, "line 5: it holds more than 10,000 values, each alias .* counted in full"),
    "a long number": (b"seed: " + b"1:" * 5000 + b"1", "line 1: a number of 10,001 characters"),
    "4,000 unknown keys": (b"".join(b"k%d: 1\n" % n for n in range(4000)), "k0: unknown key.*; and 3997 more"),
    "large": (b"# " + b"x" * 1_000_000, "larger than 1,000,000 bytes"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_file_is_named(name: str, tmp_path: Path) -> None:
    content, message = FILES[name]
    path = tmp_path / "wrong.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        load_config(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["s3://me:secret@bucket/x", "https://secret@host/x", "http://a:secret@h", "sftp://a:secret@h"]
)
@pytest.mark.parametrize("key", ["data.url", "data.cache_dir", "evaluation.weights", "description"])
def test_a_password_is_refused_and_not_repeated(url: str, key: str) -> None:
    with pytest.raises(UserError, match=f"{key}: no passwords in a URL") as caught:
        load_config("quickstart", [f"{key}={url}"])
    assert "secret" not in str(caught.value)
    assert "secret" not in without_credentials(f"run x in {url} and {url}")
    assert load_config("quickstart", [f"{key}=sftp://me@host/x"])


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.write_text("# nothing\n")
    config = load_config(str(path))
    assert (config.scale, config.training, config.optimizer) == (Config().scale, Config().training, Config().optimizer)
    assert config.generator.options["width"] == config.discriminator.options["width"] == 64


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the configuration .*gone\.yaml: .*No such file"):
        load_config(str(tmp_path / "gone.yaml"))
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(UserError, match="cannot read the configuration"):
        load_config(str(tmp_path / "folder.yaml"))
    with pytest.raises(UserError, match="cannot read the configuration"):
        load_config("x" * 5000)
    for name in ("quick-start", "quickstat"):
        with pytest.raises(UserError, match=r"unknown preset .*; did you mean 'quickstart'"):
            load_config(name)
    for name in ("", "a\0b", str(tmp_path)):
        with pytest.raises(
            UserError, match=re.escape(f"unknown preset {name!r}; there are: cgan-faces, cgan-fashion, dcgan-bricks")
        ):
            load_config(name)


def test_an_override_changes_one_of_two_aliased_sections(tmp_path: Path) -> None:
    path = tmp_path / "aliased.yaml"
    path.write_text("optimizer: {generator: &adam {lr: 1.0e-3}, discriminator: *adam}\n")
    optimizer = load_config(str(path), ["optimizer.generator.lr=1e-5"]).optimizer
    assert (optimizer.generator.lr, optimizer.discriminator.lr) == (1e-5, 1e-3)


def test_a_configuration_cannot_be_changed() -> None:
    config = load_config("quickstart")
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        config.objective.name = "wgan_gp"  # type: ignore[misc]


def test_free_keys_may_change_and_others_are_named() -> None:
    old = load_config("quickstart")
    free = [
        "description=other",
        "data.url=elsewhere",
        "data.memory_mb=1",
        "data.cache_dir=there",
        "training.kimg=5",
        "training.log_every=3",
        "training.samples_every_kimg=7",
        "checkpoint.every_kimg=7",
        "checkpoint.keep_last=5",
        "evaluation.every_kimg=7",
        "evaluation.patience=3",
        "scale.workers=2",
        "scale.threads=1",
        "scale.device=cpu",
    ]
    assert training_differences(old, load_config("quickstart", free)) == {}
    held = {
        "seed=1": ("seed", 0, 1),
        "optimizer.generator.lr=1e-3": ("optimizer.generator.lr", 8e-4, 1e-3),
        "optimizer.generator.max_grad_norm=1": ("optimizer.generator.max_grad_norm", None, 1.0),
        "optimizer.lr_factor={from: 1, to: 0, until_kimg: 300}": (
            "optimizer.lr_factor",
            1.0,
            {"from": 1.0, "to": 0.0, "from_kimg": 0.0, "until_kimg": 300.0, "shape": "cosine"},
        ),
        "training.augment=[color]": ("training.augment", [], ["color"]),
        "generator.width=16": ("generator.width", 32, 16),
        "objective.label_noise=0.1": ("objective.label_noise", 0.0, 0.1),
        "scale.groups=4": ("scale.groups", 2, 4),
        "data.streams=32": ("data.streams", 16, 32),
        "training.precision=float64": ("training.precision", "float32", "float64"),
        "ema.ramp_up=null": ("ema.ramp_up", 0.05, None),
    }
    for override, (key, before, after) in held.items():
        assert training_differences(old, load_config("quickstart", [override])) == {key: (before, after)}


def test_another_component_is_a_difference_of_all_its_options() -> None:
    old = load_config("wgan-gp-faces")
    tree = old.model_dump() | {"objective": {"name": "bce", "critic_steps": 3}}
    found = training_differences(old, build_config(tree, "test"))
    assert found["objective.name"] == ("wgan_gp", "bce")
    assert found["objective.gp_weight"] == (10.0, None)
    assert found["objective.label_noise"] == (None, 0.1)


def test_another_optimizer_is_a_difference() -> None:
    old = load_config("quickstart")
    new = load_config("quickstart", ["optimizer.discriminator={name: rmsprop}"])
    found = training_differences(old, new)
    assert found["optimizer.discriminator.name"] == ("adam", "rmsprop")
    assert found["optimizer.discriminator.beta1"] == (0.5, None)
    assert found["optimizer.discriminator.alpha"] == (None, 0.99)


def test_a_configuration_of_before_optimizers_had_names_is_the_same() -> None:
    config = load_config("quickstart")
    tree = config.model_dump(mode="json")
    for network in ("generator", "discriminator"):
        del tree["optimizer"][network]["name"], tree["optimizer"][network]["max_grad_norm"]
    del tree["training"]["augment"], tree["objective"]["r1_weight"]
    assert build_config(tree, "old") == config


def test_every_free_key_is_a_key() -> None:
    assert runtime_keys() <= flatten(load_config("quickstart").model_dump()).keys()


# A key that nobody reads is an error.

_PACKAGE = Path(distgan.__file__).parent
_SECTIONS = {name: item for name, item in vars(schema).items() if inspect.isclass(item) and issubclass(item, Section)}


def _keys_read() -> set[str]:
    """Dotted keys that code outside config/ reads: `config.training.kimg`, and `config.lr` of an `AdamConfig`."""
    found: set[str] = set()
    for path in _PACKAGE.rglob("*.py"):
        if path.is_relative_to(_PACKAGE / "config"):
            continue
        for scope in _scopes(ast.parse(path.read_text())):
            found |= _keys_read_in(scope)
    return found


def _scopes(tree: ast.Module) -> Iterator[ast.AST]:
    """Each class, and each function outside a class: where a name of a section keeps its meaning."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node


def _keys_read_in(scope: ast.AST) -> set[str]:
    kinds: dict[str, type[BaseModel]] = {"config": Config, "_config": Config}
    for node in ast.walk(scope):
        if isinstance(node, ast.arg) and isinstance(node.annotation, ast.Name) and node.annotation.id in _SECTIONS:
            kinds[node.arg] = kinds[f"_{node.arg}"] = _SECTIONS[node.annotation.id]
    assignments = [node for node in ast.walk(scope) if isinstance(node, ast.Assign)]
    for assignment in assignments:
        target = assignment.targets[0]
        pairs = [(target, assignment.value)]
        if isinstance(target, ast.Tuple) and isinstance(assignment.value, ast.Tuple):
            pairs = list(zip(target.elts, assignment.value.elts, strict=True))
        for name, value in pairs:
            kind = _kind(value, kinds)
            if isinstance(name, ast.Name) and kind is not None:
                kinds[name.id] = kind
    found = set()
    for node in ast.walk(scope):
        if isinstance(node, ast.Attribute):
            owner = _kind(node.value, kinds)
            if owner is not None and node.attr in owner.model_fields:
                found |= {f"{kind.__name__}.{node.attr}" for kind in owner.__mro__ if node.attr in _own_keys(kind)}
    return found


def _own_keys(kind: type) -> set[str]:
    """The keys that a section declares, without those that it inherits."""
    return set(vars(kind).get("__annotations__", {})) & set(getattr(kind, "model_fields", {}))


def _kind(node: ast.AST, kinds: dict[str, type[BaseModel]]) -> type[BaseModel] | None:
    """The section that an expression is, as far as names tell."""
    if isinstance(node, ast.Name):
        return kinds.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    owner = _kind(node.value, kinds)
    if owner is None:
        return kinds.get(node.attr) if node.attr in {"config", "_config"} else None
    annotation = owner.model_fields[node.attr].annotation if node.attr in owner.model_fields else None
    return annotation if inspect.isclass(annotation) and issubclass(annotation, BaseModel) else None


def test_every_key_is_read_outside_of_config() -> None:
    read = _keys_read()
    read |= {f"Config.{name}" for name in CONTEXT}  # by `context_arguments`
    read |= {"GeneratorConfig.network", "DiscriminatorConfig.network"}  # by `build_networks`, one after the other
    read |= {f"Config.{section}" for section in ("generator", "discriminator")}
    read |= {"AdamConfig.name", "RMSPropConfig.name"}  # by pydantic, which chooses the class
    declared = {f"{kind.__name__}.{name}" for kind in _SECTIONS.values() for name in _own_keys(kind)}
    assert declared - read == set()


COMPONENTS = [registry.resolve(name) for registry in (GENERATORS, DISCRIMINATORS, OBJECTIVES) for name in registry]


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda each: each.__name__)
def test_every_option_of_a_component_is_read_and_checked(component: Any) -> None:
    options = options_model(component)
    body = ast.parse(textwrap.dedent(inspect.getsource(component.__init__)))
    loaded = {node.id for node in ast.walk(body) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    assert set(options.model_fields) <= loaded
    assert not set(options.model_fields) & set(CONTEXT)
    for name, field in options.model_fields.items():
        ranges = [mark for mark in field.metadata if not isinstance(mark, Doc)]
        assert field.annotation not in {int, float} or ranges, f"{name} has no range"


@pytest.mark.parametrize(
    "registry", [GENERATORS, DISCRIMINATORS, OBJECTIVES, EXTRACTORS, SOURCES], ids=lambda r: r.kind
)
def test_every_name_resolves(registry: Registry) -> None:
    assert len(registry) == len(list(registry)) > 0
    for name in registry:
        assert callable(registry.resolve(name)), name
        assert ":" in registry[name]
    with pytest.raises(UserError, match=f"unknown {registry.kind} 'nonsense'; there are: {min(registry)}"):
        registry.resolve("nonsense")
