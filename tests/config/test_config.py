"""From presets, files and overrides to a checked configuration."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
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
from distgan.config.optimizer import AdamConfig
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
from distgan.config.schema import Config
from distgan.config.section import Section
from distgan.errors import UserError
from messages import NOT_ALLOWED, NOT_TOGETHER, UNKNOWN_KEY, UNKNOWN_NAME, by_kind

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


def test_another_component_keeps_the_options_that_it_has_too() -> None:
    preset, hinge = load_config("quickstart"), load_config("quickstart", ["objective.name=hinge"])
    assert hinge.objective.options == load_config("quickstart", ["objective={name: hinge}"]).objective.options
    assert hinge.objective.updates == preset.objective.updates == "simultaneous"
    assert load_config("wgan-gp-faces", ["objective.name=rpgan"]).objective.critic_steps == 3
    wider = load_config("quickstart", ["generator.network=r3gan", "discriminator.network=wgan_gp"])
    assert wider.discriminator.options["width"] == preset.discriminator.options["width"]
    optimizer = load_config("quickstart", ["optimizer.generator.name=rmsprop"]).optimizer
    assert (optimizer.generator.name, optimizer.generator.lr) == ("rmsprop", preset.optimizer.generator.lr)
    assert optimizer.discriminator == preset.optimizer.discriminator


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("objective: {name: bce, label_noise: 0.1}", ["objective.name=hinge", "objective.label_noise=0.2"]),
        ("objective: {name: bce, label_nois: 0.1}", ["objective.name=hinge"]),  # a mistake of the file stays one
        ("optimizer: {generator: {beta: 0.1}}", ["optimizer.generator.name=rmsprop"]),
    ],
)
def test_an_option_of_no_component_in_sight_is_refused(text: str, overrides: list[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=UNKNOWN_KEY):
        load_config(str(file), overrides)


# Mistakes by kind; the words of each are in `__snapshots__`.
SECTION = r"[\w.]+=.+: a section of keys, not a value; write [\w.]+\.KEY=VALUE \(`distgan keys [\w.]+` lists them\)$"
NOT_AN_OVERRIDE = r"^override '.*: write KEY=VALUE with a dotted key, as in "
NOT_VALID_YAML = r"^override '.+: the value is not valid YAML; quote it$"
WRONG = {
    UNKNOWN_KEY: [
        # The nearest is named.
        "optimzer.generator.lr=1e-4",
        "optimizer.generator.lrr=1e-4",
        "batch_size=64",
        "training.batch-size=64",
        "objective.label_nose=0",
        "discriminator.drop_out=0",
        "generator.image_size=64",
        "generator.networks=dcgan",
        "lr=1",
        # None is near: how they are listed.
        "colour=1",
        "training.speed=1",
        "objective.zzz=1",
        "optimizer.generator.zzz=1",
        "training." + "x" * 300 + "=1",
        # An option of another component.
        "objective.gp_weight=10",
        "optimizer.generator.alpha=0.9",
        "optimizer.generator={name: rmsprop, beta1: 0}",
        "optimizer.discriminator={name: rmsprop, alfa: 0}",
    ],
    UNKNOWN_NAME: [
        "generator.network=dcgann",
        "objective.name=wgan-gp",
        "objective.name=zzz",
        "optimizer.generator.name=adm",
        "optimizer.generator.name=[1]",
    ],
    NOT_ALLOWED: [
        # Other types.
        "seed=one",
        "training.batch_size=12.5",
        "data.flip=sometimes",
        "generator.network=[1]",
        "generator.widths=[a, 1, 2]",
        "seed=null",
        "description=2020-01-01",
        "training.augment=color",
        "training.augment=[colour]",
        "seed.value=1",
        # Out of range.
        "image_size=48",
        "channels=2",
        "optimizer.generator.lr=0",
        "optimizer.generator.beta2=1",
        "optimizer.generator={name: rmsprop, alpha: 1}",
        "optimizer.generator.max_grad_norm=0",
        "discriminator.dropout=1",
        "generator.width=10000000",
        "generator.upsampling=bilinear",
        "evaluation.patience=0",
        "checkpoint.every_kimg=0",
        "seed=-1",
        "seed=4294967296",
        # Numbers that are none.
        "training.kimg=.nan",
        "optimizer.generator.lr=.nan",
        "training.kimg=.inf",
        "objective.label_noise=.nan",
    ],
    SECTION: ["data=5", "generator=dcgan", "objective=null", "optimizer.generator=adam", "objective=[1]"],
    r"'image_size' is a value, not a section$": ["image_size.value=1"],
    r"generator\.1=1: keys should be strings$": ["generator={1: 2}"],
    NOT_AN_OVERRIDE: ["seed", "=1", "training.=1", "a..b=1", "x" * 300],
    NOT_VALID_YAML: [  # PyYAML raises more than its own errors
        "seed=[1",
        "seed=2020-99-99",
        "seed=!!timestamp x",
        "seed=!!python/object:os.system x",
        "seed=\0",
        "seed=" + "[" * 1200,
        "seed=&a [*a]",
        "data=&a {url: *a}",
        "seed=1" + "0" * 5000,
    ],
    NOT_TOGETHER: [
        "training.batch_size=100",
        "data.streams=7",
        "scale.workers=5",
        "optimizer.lr_factor={from: 1, to: 0, until_kimg: 239}",
        "optimizer.generator.lr={from: 1e-3, to: 0, until_kimg: 239}",
    ],
    r"^preset quickstart: training\.augment: ": ["training.augment=[cutout, cutout]"],
    r"objective: updates=simultaneous .* must be 1 \(it is 2\); ": [
        "objective.critic_steps=2",
        "objective.generator_batch_multiple=2",
    ],
}


@pytest.mark.parametrize(("kind", "override"), by_kind(WRONG))
def test_a_wrong_override_is_named(kind: str, override: str, same_words: Callable[..., None]) -> None:
    with pytest.raises(UserError, match=kind) as caught:
        load_config("quickstart", [override])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
    same_words(str(caught.value))


def test_several_mistakes_are_told_together() -> None:
    with pytest.raises(UserError) as caught:
        load_config("quickstart", ["seed=x", "generator.width=0", "data.flip=maybe", "training.kimg=-1", "channels=9"])
    assert "generator.width" in str(caught.value)
    assert str(caught.value).endswith("and 2 more")


# Each is nine of the one before: 3.9 billion values in all.
ALIASES = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (name + 1, name + 1, b",".join([b"*%c" % name] * 9)) for name in range(97, 106)
)

NOT_A_MAPPING = r"wrong\.yaml: a configuration is a mapping of keys to values$"
CANNOT_READ = r"^cannot read the configuration .*wrong\.yaml: "
NOT_YAML = r"wrong\.yaml: not valid YAML(:| in line \d+:)"
TOO_MUCH = r"wrong\.yaml: (not valid YAML in line \d+: (it holds more than|a number|an alias)|it is larger than 1,0)"
FILES: dict[str, tuple[bytes, str]] = {
    "a list": (b"- seed\n- 1\n", NOT_A_MAPPING),
    "a string": (b"just words\n", NOT_A_MAPPING),
    "numbers as keys": (b"1: 2\n", NOT_A_MAPPING),
    "garbage": (b"{{{{: ]]\n", NOT_YAML),
    "tabs": (b"data:\n\turl: x\n", NOT_YAML),
    "an impossible date": (b"description: 2020-99-99\n", NOT_YAML),
    "a Python object": (b"seed: !!python/object/apply:os.getpid []\n", NOT_YAML),
    "binary": (bytes(range(128, 256)) * 4, CANNOT_READ),
    "zeros": (b"\0\0\0\0", NOT_YAML),
    "a picture": (b"\x89PNG\r\n\x1a\n", CANNOT_READ),
    "a mapping to itself": (b"&a\ngenerator: *a\n", TOO_MUCH),
    "aliases of aliases": (ALIASES, TOO_MUCH),
    "a long number": (b"seed: " + b"1:" * 5000 + b"1", TOO_MUCH),
    "4,000 unknown keys": (b"".join(b"k%d: 1\n" % n for n in range(4000)), "k0: unknown key.*; and 3997 more"),
    "large": (b"# " + b"x" * 1_000_000, TOO_MUCH),
}


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_file_is_named(name: str, tmp_path: Path, same_words: Callable[..., None]) -> None:
    content, kind = FILES[name]
    path = tmp_path / "wrong.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=kind) as caught:
        load_config(str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    same_words(str(caught.value), tmp=tmp_path)


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
    read |= {"Config.preset"}  # by the page of a report, from a run's config.yaml
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
