"""The plan of an evaluation outside of training: images, data and metrics, checked before anything starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from distgan.config.config_errors import error_lines
from distgan.config.load import build_config
from distgan.config.plugins import custom_names, custom_sources, without_custom_observers
from distgan.config.schema import Config, DataConfig, EvaluationConfig
from distgan.data.files import describe_counts
from distgan.data.index import Index
from distgan.data.shard_checks import open_index
from distgan.errors import UserError
from distgan.evaluation.extractors.published import published_weights
from distgan.evaluation.extractors.weights import located_weights
from distgan.evaluation.given_images import is_given, open_images
from distgan.evaluation.metrics.registry import FRECHET, parse_metrics
from distgan.evaluation.reference_files import check_given_statistics
from distgan.storage.storage import Storage
from distgan.training.data_checks import check_labels
from distgan.training.run_spec import addresses_elsewhere, check_addresses
from distgan.training.starting_point import find_checkpoint


@dataclass(frozen=True)
class EvaluationOptions:
    """The options of `distgan evaluate`. None stands for the run's own value, or else a default.

    Attributes:
        data: URL of the data set.
        metrics: names, joined by commas (`metrics.registry.parse_metrics`).
        samples: generated or given images; real_samples: real ones, at most.
        checkpoint: `best`, `last` or the name of one of the run's.
        statistics: path or URL of a file of statistics, used in place of the data's images.
        per_class: also the distance of each class of a conditional generator.
        nearest: also the training images nearest to so many samples.
        trust_code: modules outside distgan that the checkpoint names may be imported.
        trust_addresses: data, statistics and weights may be read from other hosts that the checkpoint names.
    """

    data: str | None = None
    metrics: str | None = None
    samples: int | None = None
    checkpoint: str | None = None
    extractor: str | None = None
    real_samples: int | None = None
    statistics: str | None = None
    per_class: bool = False
    nearest: int = 0
    trust_code: bool = False
    trust_addresses: bool = False


@dataclass(frozen=True)
class EvaluationSpec:
    """What to evaluate, for any worker.

    Attributes:
        source: URL of a checkpoint, or path of images.
        shape: (channels, height, width) of the images.
        metrics: those requested, by their configuration names; `frechet` may be among them.
        evaluation: extractor, numbers of images, statistics.
        data: the real images; its `url` is None where only a file of statistics is used.
        config: the run's, with `evaluation` and `data` in it; None for given images.
        real_images: number of real images; 0 where it is not known.
        nearest: search the nearest of all `training_images` for so many samples.
        notes: remarks for the reader of the results, a sentence each.
    """

    source: str
    shape: tuple[int, int, int]
    metrics: tuple[str, ...]
    evaluation: EvaluationConfig
    data: DataConfig
    config: Config | None
    real_images: int
    per_class: bool = False
    nearest: int = 0
    training_images: int = 0
    notes: tuple[str, ...] = ()

    @property
    def against(self) -> str:
        """URL of the data set or statistics on the real side."""
        return str(self.evaluation.statistics or self.data.url)

    @property
    def device(self) -> Literal["auto", "cpu"]:
        """A GPU where there is one, unless the run was bound to the CPU."""
        return "cpu" if self.config is not None and self.config.scale.device == "cpu" else "auto"

    @property
    def custom_sources(self) -> list[str]:
        """Files and folders of the user's own modules, for the workers to import."""
        tree = {"evaluation": self.evaluation.model_dump()} if self.config is None else self.config.model_dump()
        return custom_sources(custom_names(tree).values())


def plan_evaluation(source: str, options: EvaluationOptions) -> EvaluationSpec:
    """Plans the evaluation of a run, a checkpoint, a folder of images or an array of them.

    Raises UserError for what is not there, cannot be compared or does not go together.
    """
    of_images = {
        "--per-class": options.per_class,
        "--real-samples": options.real_samples is not None,
        "--nearest": options.nearest,
    }
    option = next((option for option, given in of_images.items() if given), None)
    if options.statistics is not None and option is not None:
        raise UserError(f"{option} is of real images, and a file of statistics has none; leave out --statistics or it")
    return _spec_of_images(source, options) if is_given(source) else _spec_of_run(source, options)


def _spec_of_run(source: str, options: EvaluationOptions) -> EvaluationSpec:
    checkpoint = find_checkpoint(source, options.checkpoint, trust_code=options.trust_code)
    manifest = checkpoint.manifest
    tree = without_custom_observers(manifest.config)
    metrics, extractor = _requested(options)
    given = options
    if replace(options, samples=None, checkpoint=None, trust_code=False, trust_addresses=False) == EvaluationOptions():
        # Evaluate as the run did: no option needs real images.
        options = replace(options, statistics=tree.get("evaluation", {}).get("statistics"))
    changes = _changes(options)
    if not _takes_the_runs_weights(tree.get("evaluation", {}), extractor):
        changes["weights"] = None
    if extractor is not None:
        changes["extractor"] = EvaluationConfig().extractor  # the run's own is not used, and need not be trusted
    tree["evaluation"] = {**tree.get("evaluation", {}), **changes}
    tree["data"] = {**tree.get("data", {}), "cache_dir": None}
    config = build_config(tree, manifest.name, trust_code=options.trust_code)
    if not given.trust_addresses:
        _check_addresses(config, checkpoint.url, given, extractor)
    if options.per_class and config.num_classes is None:
        raise UserError(f"--per-class: {checkpoint.url} is of a generator that takes no labels; leave it out")
    needs_labels = config.num_classes is not None
    data = _located_data(config.data, options, needs_labels)
    config = config.model_copy(
        update={"evaluation": located_weights(_requesting(config.evaluation, metrics, extractor)), "data": data}
    )
    index = _index(data)
    notes = [f"{damaged}; {checkpoint.manifest.name} is evaluated" for damaged in checkpoint.skipped]
    if index is not None:
        _check_same(config.image_shape, checkpoint.url, index, data)
        if config.num_classes is not None:
            check_labels(config.num_classes, index, str(data.url))
        if options.data is None and index.hash != manifest.data_hash:
            notes.append(f"{data.url} has changed since the run was trained on it")
    real_images, more = _real_side(config.evaluation, index, config.image_size)
    return EvaluationSpec(
        source=checkpoint.url,
        shape=config.image_shape,
        metrics=metrics,
        evaluation=config.evaluation,
        data=data,
        config=config,
        real_images=real_images,
        per_class=options.per_class,
        nearest=_checked_nearest(options.nearest, config.evaluation.samples),
        training_images=len(index) if index is not None else 0,
        notes=(*notes, *more),
    )


def _takes_the_runs_weights(evaluation: Mapping[str, Any], extractor: str | None) -> bool:
    """Whether the weights that a run's configuration may name stay: not for another extractor than theirs.

    An environment variable goes before them.
    """
    own = evaluation.get("extractor", EvaluationConfig().extractor)
    published = published_weights(extractor or own)
    if published is not None and os.environ.get(published.variable):
        return False
    return published_weights(own) in (None, published)


def _check_addresses(config: Config, source: str, given: EvaluationOptions, extractor: str | None) -> None:
    """Raises UserError for a checkpoint's addresses on other hosts, as far as they would be contacted."""
    needs_data = config.evaluation.statistics is None or config.num_classes is not None
    published = published_weights(extractor or config.evaluation.extractor)
    keys = {
        "data.url": needs_data and given.data is None,
        "evaluation.statistics": given.statistics is None,
        "evaluation.weights": published is not None,
    }
    elsewhere = addresses_elsewhere(config, source, (key for key, contacted in keys.items() if contacted))
    ways = {"data.url": "--data URL", "evaluation.statistics": "--statistics FILE"}
    if published is not None:
        ways["evaluation.weights"] = published.variable
    named = " and ".join(ways[key] for key in elsewhere)
    check_addresses(config, source, elsewhere, f"name them with {named}, or add --trust-addresses")


def _spec_of_images(source: str, options: EvaluationOptions) -> EvaluationSpec:
    for given, option in (
        (options.per_class, "--per-class"),
        (options.checkpoint is not None, f"--checkpoint {options.checkpoint}"),
        (options.trust_code, "--trust-code"),
        (options.trust_addresses, "--trust-addresses"),
    ):
        if given:
            raise UserError(f"{option} is for runs and checkpoints, and {source} holds images; leave it out")
    images = open_images(source, options.samples)
    if images.count < 2:
        raise UserError(f"{source}: a distance needs at least 2 images")
    metrics, extractor = _requested(options)
    changes = _changes(options) | {"samples": images.count}
    try:
        evaluation = EvaluationConfig(**changes)
    except ValidationError as error:
        raise UserError(f"{source}: {'; '.join(error_lines(error, EvaluationConfig, 'evaluation'))}") from None
    evaluation = located_weights(_requesting(evaluation, metrics, extractor))
    data = _located_data(DataConfig(), options, needs_labels=False)
    index = _index(data)
    if index is not None:
        _check_same(images.shape, source, index, data)
    real_images, notes = _real_side(evaluation, index, images.shape[1])
    if images.left_out:
        notes = (f"files in {source} that are not images: {describe_counts(images.left_out)}", *notes)
    return EvaluationSpec(
        source=str(Path(source).absolute()),
        shape=images.shape,
        metrics=metrics,
        evaluation=evaluation,
        data=data,
        config=None,
        real_images=real_images,
        nearest=_checked_nearest(options.nearest, images.count),
        training_images=len(index) if index is not None else 0,
        notes=notes,
    )


def _checked_nearest(nearest: int, samples: int) -> int:
    if nearest > samples:
        raise UserError(f"--nearest {nearest}: only {samples:,} samples are evaluated; ask for at most as many")
    return nearest


def _requested(options: EvaluationOptions) -> tuple[tuple[str, ...], str | None]:
    """The requested metrics, and the requested extractor, if any."""
    if options.metrics is None:
        return (FRECHET,), options.extractor
    request = parse_metrics(options.metrics)
    if request.extractor is not None and options.extractor not in {None, request.extractor}:
        raise UserError(
            f"--extractor {options.extractor}: --metrics {options.metrics} asks for {request.extractor}; name one"
        )
    return request.metrics, request.extractor or options.extractor


def _requesting(evaluation: EvaluationConfig, metrics: tuple[str, ...], extractor: str | None) -> EvaluationConfig:
    """The section with the user's metrics and extractor, which may be custom ones."""
    changes: dict[str, Any] = {"metrics": [metric for metric in metrics if metric != FRECHET]}
    return evaluation.model_copy(update=changes if extractor is None else changes | {"extractor": extractor})


def _changes(options: EvaluationOptions) -> dict[str, Any]:
    """The changes to the configuration's `evaluation`, without metrics and extractor."""
    changes: dict[str, Any] = {
        "metrics": [],
        "monitor": FRECHET,
        "statistics": None if options.statistics is None else Storage.open(options.statistics).url,
    }
    given = {"samples": options.samples, "real_samples": options.real_samples}
    return changes | {key: value for key, value in given.items() if value is not None}


def _located_data(data: DataConfig, options: EvaluationOptions, needs_labels: bool) -> DataConfig:
    """The real images, or the source of labels; its URL is None where neither is needed."""
    url = options.data or data.url
    if options.statistics is not None and not needs_labels:
        url = None
    elif url is None:
        raise UserError("--data is missing: the URL of the data set to compare with; or give --statistics FILE.npz")
    return data.model_copy(update={"url": None if url is None else Storage.open(url).url})


def _index(data: DataConfig) -> Index | None:
    return None if data.url is None else open_index(Storage.open(data.url))


def _real_side(evaluation: EvaluationConfig, index: Index | None, image_size: int) -> tuple[int, tuple[str, ...]]:
    """The number of real images, and notes on them."""
    if evaluation.statistics is None:
        assert index is not None
        return min(len(index), evaluation.real_samples or len(index)), ()
    given = check_given_statistics(evaluation, evaluation.statistics, image_size)
    says = {"extractor": given.extractor, "image size": given.image_size}
    silent = [name for name, value in says.items() if value is None]
    if not silent:
        return given.statistics.count, ()
    return given.statistics.count, (
        f"{evaluation.statistics} does not say its {' and '.join(silent)}: the distance holds if they are "
        f"{evaluation.extractor} and {image_size} pixels",
    )


def _check_same(shape: tuple[int, int, int], source: str, index: Index, data: DataConfig) -> None:
    """Raises UserError where the data have other channels, or another size and `data.resize=none`."""
    (channels, size, _), of_data = shape, index.header
    if channels != of_data.channels:
        kinds = {1: "gray", 3: "RGB"}
        raise UserError(
            f"{source}: its images are {kinds[channels]}, and those at {data.url} are {kinds[of_data.channels]}; "
            f"convert one side, or compare with other data"
        )
    if size != of_data.image_size and data.resize == "none":
        raise UserError(
            f"{source}: its images have {size} pixels a side, and those at {data.url} have "
            f"{of_data.image_size or 'several sizes'}; compare with data that were packed with --size {size}"
        )
