"""Components by name: registered ones, and custom ones as `module:Class`.

A component is imported when it is used. Its keyword arguments are its configuration keys: names, types, ranges and
defaults come from its signature.
"""

from __future__ import annotations

import importlib
import inspect
import os
import site
import sys
import sysconfig
import traceback
import typing
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model

from distgan.config.config_errors import join_or
from distgan.config.schema import DiscriminatorConfig, GeneratorConfig, ObjectiveConfig
from distgan.config.section import Section
from distgan.errors import UserError
from distgan.text import did_you_mean

_PACKAGE = __name__.partition(".")[0]


def is_custom(name: str) -> bool:
    """Whether a name is that of a custom component, `module:Class`, and not a registered one."""
    return ":" in name


def import_custom(name: str) -> type[Any]:
    """The class of `module:Class`; modules are found on Python's path and in the current folder.

    Raises UserError where there is no such module or class, or the module cannot be imported.
    """
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise UserError(
                f"{name}: there is no module {error.name!r}; go to the folder that holds it, or name that folder in "
                f"PYTHONPATH"
            ) from None
        raise UserError(f"{name}: importing {module_name!r} failed: {error_text(error)}") from error
    found = getattr(module, attribute, None)
    if not isinstance(found, type):
        classes = [key for key, value in vars(module).items() if isinstance(value, type) and key[:1] != "_"]
        file = getattr(module, "__file__", None)
        where = f" ({file})" if file else ""
        raise UserError(
            f"{name}: module {module_name!r}{where} has no class {attribute!r}{did_you_mean(attribute, classes)}"
        )
    return found


def error_text(error: BaseException) -> str:
    """One line: the exception that a user's code raised, and the place in that code."""
    text = f"{type(error).__name__}: {' '.join(str(error).split()):.300}"
    not_theirs = ("<", *_installed_folders(), f"{Path(__file__).parents[1]}{os.sep}")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(not_theirs)]
    return f"{text} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else text


def custom_sources(names: Iterable[str]) -> list[str]:
    """Files and folders of the modules of custom components, without installed packages.

    Other machines need them to import the components.
    """
    sources = set()
    for name in filter(is_custom, names):
        import_custom(name)
        top = sys.modules[name.partition(":")[0].partition(".")[0]]
        source = str(next(iter(top.__path__))) if hasattr(top, "__path__") else inspect.getsourcefile(top)
        if source is not None and top.__name__ != _PACKAGE and not source.startswith(_installed_folders()):
            sources.add(source)
    return sorted(sources)


def _installed_folders() -> tuple[str, ...]:
    folders = [sysconfig.get_path(kind) for kind in ("purelib", "platlib", "stdlib")]
    return tuple(f"{folder}{os.sep}" for folder in [*folders, *site.getsitepackages(), site.getusersitepackages()])


class Registry(Mapping[str, str]):
    """The components of one kind: `module:attribute` by name."""

    def __init__(self, kind: str, entries: dict[str, str]) -> None:
        self.kind = kind
        self._entries = entries

    def __getitem__(self, name: str) -> str:
        return self._entries[name]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def require(self, name: str) -> None:
        """Raises UserError if there is no component `name`; the module of a custom one is imported."""
        if is_custom(name):
            import_custom(name)
        elif name not in self._entries:
            raise UserError(f"unknown {self.kind} {name!r}{did_you_mean(name, self._entries)}")

    def resolve(self, name: str) -> Any:
        """The class called `name`, registered or custom. Raises UserError with the nearest name if there is none."""
        self.require(name)
        if is_custom(name):
            return import_custom(name)
        module, _, attribute = self._entries[name].partition(":")
        return getattr(importlib.import_module(module), attribute)


GENERATORS = Registry(
    "generator network",
    {
        "cgan": "distgan.models.cgan:Generator",
        "dcgan": "distgan.models.dcgan:Generator",
        "r3gan": "distgan.models.r3gan:Generator",
        "sagan": "distgan.models.sagan:Generator",
        "sagan_resnet": "distgan.models.sagan_resnet:Generator",
        "sngan": "distgan.models.sngan:Generator",
    },
)

DISCRIMINATORS = Registry(
    "discriminator network",
    {
        "cgan": "distgan.models.cgan:Discriminator",
        "dcgan": "distgan.models.dcgan:Discriminator",
        "r3gan": "distgan.models.r3gan:Discriminator",
        "sagan": "distgan.models.sagan:Discriminator",
        "sagan_resnet": "distgan.models.sagan_resnet:Discriminator",
        "sngan": "distgan.models.sngan:Discriminator",
        "wgan_gp": "distgan.models.wgan_gp:Discriminator",
    },
)

OBJECTIVES = Registry(
    "objective",
    {
        "bce": "distgan.losses.bce:BinaryCrossEntropy",
        "hinge": "distgan.losses.hinge:Hinge",
        "rpgan": "distgan.losses.rpgan:RelativisticPairing",
        "wgan": "distgan.losses.wgan:Wasserstein",
        "wgan_gp": "distgan.losses.wgan_gp:WassersteinGradientPenalty",
    },
)

EXTRACTORS = Registry(
    "feature extractor",
    {
        "fd_lite0": "distgan.evaluation.extractors.lite0:EfficientNetLite0Features",
        "fid": "distgan.evaluation.extractors.fid:InceptionFeatures",
        "fid_clean": "distgan.evaluation.extractors.fid:CleanInceptionFeatures",
        "fd_dinov2": "distgan.evaluation.extractors.dinov2:Dinov2Features",
        "fd_dinov2_b14": "distgan.evaluation.extractors.dinov2:Dinov2FeaturesB14",
        "fd_dinov2_s14": "distgan.evaluation.extractors.dinov2:Dinov2FeaturesS14",
    },
)

METRICS = Registry(
    "metric",
    {
        "frechet": "distgan.evaluation.metrics.frechet:FrechetDistance",
        "kernel": "distgan.evaluation.metrics.kid:KernelDistance",
        "precision": "distgan.evaluation.metrics.prdc:Precision",
        "recall": "distgan.evaluation.metrics.prdc:Recall",
        "density": "distgan.evaluation.metrics.prdc:Density",
        "coverage": "distgan.evaluation.metrics.prdc:Coverage",
        "mind": "distgan.evaluation.metrics.mind:Mind",
        "inception_score": "distgan.evaluation.metrics.inception_score:InceptionScore",
    },
)

TRACKERS = Registry(
    "tracker",
    {
        "tensorboard": "distgan.tracking.tensorboard:TensorBoardTracker",
        "samples": "distgan.tracking.grids:SampleTracker",
        "curves": "distgan.tracking.curves:CurvesTracker",
        "wandb": "distgan.tracking.wandb:WandbTracker",
        "mlflow": "distgan.tracking.mlflow:MlflowTracker",
        "trackio": "distgan.tracking.trackio:TrackioTracker",
    },
)

SOURCES = Registry(
    "data source",
    {
        "folder": "distgan.data.sources.folder:FolderSource",
        "celeba": "distgan.data.sources.celeba:CelebaSource",
        "cifar": "distgan.data.sources.cifar:CifarSource",
        "idx": "distgan.data.sources.idx:IdxSource",
        "npz": "distgan.data.sources.npz:NpzSource",
        "csv": "distgan.data.sources.csv_table:CsvSource",
        "parquet": "distgan.data.sources.parquet:ParquetSource",
        "webdataset": "distgan.data.sources.webdataset:WebdatasetSource",
    },
)

# By section: its schema, the key that names the component, its registry.
COMPONENTS: dict[str, tuple[type[Section], str, Registry]] = {
    "generator": (GeneratorConfig, "network", GENERATORS),
    "discriminator": (DiscriminatorConfig, "network", DISCRIMINATORS),
    "objective": (ObjectiveConfig, "name", OBJECTIVES),
}

# Other keys that name a component or a list of them, each with its registry. All but the first are `Runtime` keys.
NAMES: dict[str, Registry] = {
    "evaluation.extractor": EXTRACTORS,
    "evaluation.metrics": METRICS,
    "evaluation.monitor": METRICS,
    "tracking": TRACKERS,
}

# Arguments that are top-level keys, not keys of the section.
CONTEXT = ("image_size", "channels", "latent_dim", "num_classes")


def options_model(target: type[Any], declared: Collection[str] = ()) -> type[BaseModel]:
    """A pydantic model of the options of `target`: its keyword arguments without `CONTEXT` and `declared`.

    Raises UserError for a signature that cannot be configuration keys.
    """
    return _options_model(target, frozenset(declared))  # type: ignore[arg-type]  # a class is hashable


@cache
def _options_model(target: Any, declared: frozenset[str]) -> type[BaseModel]:
    try:
        hints = typing.get_type_hints(target.__init__, include_extras=True)
        fields = {
            name: _field(parameter, hints)
            for name, parameter in inspect.signature(target).parameters.items()
            if name not in CONTEXT and name not in declared
        }
        config = ConfigDict(extra="forbid", allow_inf_nan=False)
        return create_model(f"{target.__name__}Options", __config__=config, **fields)
    except UserError as error:
        raise UserError(f"{target.__module__}:{target.__name__}: {error}") from None
    except Exception as error:
        if target.__module__.startswith("distgan."):
            raise
        raise UserError(
            f"{target.__module__}:{target.__name__}: its signature cannot be read: {error_text(error)}"
        ) from error


def _field(parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Any:
    """A parameter's type and default, for pydantic's `create_model`."""
    if parameter.kind not in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD):
        raise UserError(f"its parameter `{parameter}` cannot be a key; write keyword arguments, each with a type")
    if parameter.name not in hints:
        raise UserError(f"its parameter `{parameter}` has no type; write one, as in `width: int = 64`")
    return hints[parameter.name], ... if parameter.default is inspect.Parameter.empty else parameter.default


def option_of_others(section: str, name: str, option: str) -> str:
    """`; it is an option of …, not of NAME` if other components of the section have it, else empty."""
    _, _, registry = COMPONENTS[section]
    others = [other for other in registry if option in options_model(registry.resolve(other)).model_fields]
    return f"; it is an option of {join_or(others)}, not of {name}" if others else ""


def takes_labels(target: type[Any]) -> bool:
    """Whether a network can be conditional: its constructor has an argument `num_classes`."""
    return "num_classes" in inspect.signature(target).parameters


def needs_labels(target: type[Any]) -> bool:
    """Whether a network must be conditional: its argument `num_classes` cannot be None."""
    parameter = inspect.signature(target).parameters.get("num_classes")
    if parameter is None or parameter.default is None:
        return False
    hint = typing.get_type_hints(target.__init__).get("num_classes")
    return type(None) not in typing.get_args(hint)


def custom_names(tree: Mapping[str, Any]) -> dict[str, str]:
    """The custom components in a plain tree of values: key -> `module:Class`; `key[0]` in a list."""
    found = {}
    for key in [*(f"{section}.{key}" for section, (_, key, _) in COMPONENTS.items()), *NAMES]:
        value = _value_at(tree, key)
        names = enumerate(value) if isinstance(value, list) else [(None, value)]
        for place, name in names:
            if isinstance(name, str) and is_custom(name):
                found[key if place is None else f"{key}[{place}]"] = name
    return found


def without_custom_observers(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A plain tree of values without custom metrics and trackers, which do not affect what is trained."""
    found = dict(tree)
    if isinstance(tree.get("tracking"), list):
        found["tracking"] = [name for name in tree["tracking"] if not is_custom(str(name))]
    evaluation = tree.get("evaluation")
    if isinstance(evaluation, Mapping):
        found["evaluation"] = kept = dict(evaluation)
        if is_custom(str(kept.get("monitor"))):
            del kept["monitor"]
        if isinstance(kept.get("metrics"), list):
            kept["metrics"] = [name for name in kept["metrics"] if not is_custom(str(name))]
    return found


def name_problems(tree: Mapping[str, Any]) -> list[str]:
    """What is wrong with the names of metrics and trackers in a checked tree; a user's own modules are imported."""
    problems = []
    for key, registry in NAMES.items():
        if registry is EXTRACTORS:
            continue  # a generator's samples need none
        value = _value_at(tree, key)
        for name in value if isinstance(value, list) else [value]:
            try:
                registry.require(name)
            except UserError as error:
                problems.append(f"{key}: {error}")
    return problems


def is_loaded(name: str) -> bool:
    """Whether a component can be used without importing a module that is not imported yet."""
    return not is_custom(name) or name.partition(":")[0] in sys.modules


def _value_at(tree: Mapping[str, Any], dotted: str) -> Any:
    value: Any = tree
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def context_arguments(target: type[Any], tree: Any) -> dict[str, Any]:
    """The top-level values that `target` has arguments for, by name."""
    parameters = inspect.signature(target).parameters
    return {name: getattr(tree, name) for name in CONTEXT if name in parameters}


def with_former_options(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's configuration with the values that later options had implicitly when it was trained.

    Networks called `sngan` had SAGAN's form before the option `form` existed; it is added where the forms differ.
    """
    former, size = dict(tree), tree.get("image_size")
    for section in ("generator", "discriminator"):
        options = tree.get(section)
        if isinstance(options, Mapping) and options.get("network") == "sngan" and "form" not in options:
            widths = options.get("widths") is not None
            differs = (size == 64 and not widths) if section == "generator" else (size != 32 or widths)
            former[section] = {**options, "form": "sagan"} if differs else options
    return former


def split_section(section: str, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of a component's section: keys of its schema, and options of the component."""
    schema, _, _ = COMPONENTS[section]
    declared = {key: value for key, value in values.items() if key in schema.model_fields}
    return declared, {key: value for key, value in values.items() if key not in declared}
