"""An evaluation of its own: what is measured against what, checked before anything starts."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from distgan.config.config_errors import mistakes
from distgan.config.load import build_config
from distgan.config.plugins import own_names, own_sources
from distgan.config.schema import Config, DataConfig, EvaluationConfig
from distgan.data.files import describe_counts
from distgan.data.index import Index
from distgan.errors import UserError
from distgan.evaluation.extractors.published import published_weights
from distgan.evaluation.extractors.weights import VARIABLE, located_weights
from distgan.evaluation.given_images import is_given, open_images
from distgan.evaluation.metrics.registry import parse_metrics
from distgan.evaluation.reference_files import check_given_statistics
from distgan.storage.storage import Storage
from distgan.training.data_checks import check_labels
from distgan.training.run_spec import addresses_elsewhere, check_addresses
from distgan.training.starting_point import find_checkpoint


@dataclass(frozen=True)
class EvaluationOptions:
    """What a user asks for, as `distgan evaluate` takes it; None is the run's own value, or else a default.

    Attributes:
        data: URL of the data set.
        metrics: short names, joined by commas.
        samples: generated or given images; real_samples: real ones, at most.
        checkpoint: which of a run's.
        statistics: path or URL of a file that takes the place of the data's images.
        per_class: also the distance of each class of a conditional generator.
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
class EvaluationJob:
    """What to measure, on any worker.

    Attributes:
        source: URL of a checkpoint, or path of images.
        shape: (channels, height, width) of what is measured.
        measures: what was asked for, `frechet` perhaps among them.
        evaluation: how it is measured: extractor, numbers of images, statistics.
        data: what it is compared with; its `url` is None where that is a file of statistics alone.
        config: the run's, with `evaluation` and `data` in it; None where images are given.
        real_images: how many there are to compare with; 0 where nobody knows.
        nearest: for how many samples the nearest of all `training_images` are looked for.
        notes: what the reader of the results should know, a sentence each.
    """

    source: str
    shape: tuple[int, int, int]
    measures: tuple[str, ...]
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
        """URL of what it is compared with."""
        return str(self.evaluation.statistics or self.data.url)

    @property
    def device(self) -> Literal["auto", "cpu"]:
        """A GPU where there is one, unless the run was bound to the CPU."""
        return "cpu" if self.config is not None and self.config.scale.device == "cpu" else "auto"

    @property
    def own_sources(self) -> list[str]:
        """Files and folders of the user's own modules that workers must be able to import."""
        tree = {"evaluation": self.evaluation.model_dump()} if self.config is None else self.config.model_dump()
        return own_sources(own_names(tree).values())


def plan_evaluation(source: str, options: EvaluationOptions) -> EvaluationJob:
    """The job that measures a run, a checkpoint, a folder of images or an array of them.

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
    return _job_of_images(source, options) if is_given(source) else _job_of_run(source, options)


def _job_of_run(source: str, options: EvaluationOptions) -> EvaluationJob:
    checkpoint = find_checkpoint(source, options.checkpoint)
    manifest = checkpoint.manifest
    tree: dict[str, Any] = {**manifest.config}
    measures, extractor = _asked(options)
    given = options
    if replace(options, samples=None, checkpoint=None, trust_code=False, trust_addresses=False) == EvaluationOptions():
        # As the run was measured: nothing else is asked for that needs images.
        options = replace(options, statistics=tree.get("evaluation", {}).get("statistics"))
    changes = _changes(options, measures)
    if os.environ.get(VARIABLE):
        changes["weights"] = None
    if extractor is not None:
        changes["extractor"] = EvaluationConfig().extractor  # the run's own is not asked for
    tree["evaluation"] = {**tree.get("evaluation", {}), **changes}
    tree["data"] = {**tree.get("data", {}), "cache_dir": None}
    config = build_config(tree, manifest.name, trust_code=options.trust_code)
    if not given.trust_addresses:
        _check_addresses(config, checkpoint.url, given, extractor)
    if options.per_class and config.num_classes is None:
        raise UserError(f"--per-class: {checkpoint.url} is of a generator that takes no labels; leave it out")
    needs_labels = config.num_classes is not None
    data = _located_data(config.data, options, needs_labels)
    if extractor is not None:
        config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"extractor": extractor})})
    config = config.model_copy(update={"evaluation": located_weights(config.evaluation), "data": data})
    index = _index(data)
    notes = [f"{damaged}; {checkpoint.manifest.name} is measured" for damaged in checkpoint.passed_over]
    if index is not None:
        _check_same(config.image_shape, checkpoint.url, index, data)
        if config.num_classes is not None:
            check_labels(config.num_classes, index, str(data.url))
        if options.data is None and index.hash != manifest.data_hash:
            notes.append(f"{data.url} is not the data set any more that the run was trained on")
    real_images, more = _real_side(config.evaluation, index, config.image_size)
    return EvaluationJob(
        source=checkpoint.url,
        shape=config.image_shape,
        measures=measures,
        evaluation=config.evaluation,
        data=data,
        config=config,
        real_images=real_images,
        per_class=options.per_class,
        nearest=_checked_nearest(options.nearest, config.evaluation.samples),
        training_images=len(index) if index is not None else 0,
        notes=(*notes, *more),
    )


def _check_addresses(config: Config, source: str, given: EvaluationOptions, extractor: str | None) -> None:
    """Raises UserError for a checkpoint's addresses on other hosts, as far as they would be contacted."""
    needs_data = config.evaluation.statistics is None or config.num_classes is not None
    keys = {
        "data.url": needs_data and given.data is None,
        "evaluation.statistics": given.statistics is None,
        "evaluation.weights": published_weights(extractor or config.evaluation.extractor) is not None,
    }
    elsewhere = addresses_elsewhere(config, source, (key for key, contacted in keys.items() if contacted))
    ways = {"data.url": "--data URL", "evaluation.statistics": "--statistics FILE", "evaluation.weights": VARIABLE}
    named = " and ".join(ways[key] for key in elsewhere)
    check_addresses(config, source, elsewhere, f"name them with {named}, or add --trust-addresses")


def _job_of_images(source: str, options: EvaluationOptions) -> EvaluationJob:
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
        raise UserError(f"{source}: one image alone has no distance; give at least 2")
    measures, extractor = _asked(options)
    changes = _changes(options, measures) | {"samples": images.count}
    try:
        evaluation = EvaluationConfig(**changes)
    except ValidationError as error:
        raise UserError(f"{source}: {'; '.join(mistakes(error, EvaluationConfig, 'evaluation'))}") from None
    if extractor is not None:
        evaluation = evaluation.model_copy(update={"extractor": extractor})
    evaluation = located_weights(evaluation)
    data = _located_data(DataConfig(), options, needs_labels=False)
    index = _index(data)
    if index is not None:
        _check_same(images.shape, source, index, data)
    real_images, notes = _real_side(evaluation, index, images.shape[1])
    if images.left_out:
        notes = (f"files in {source} that are left out: {describe_counts(images.left_out)}", *notes)
    return EvaluationJob(
        source=str(Path(source).absolute()),
        shape=images.shape,
        measures=measures,
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
        raise UserError(f"--nearest {nearest}: {samples:,} samples are measured; ask for at most so many")
    return nearest


def _asked(options: EvaluationOptions) -> tuple[tuple[str, ...], str | None]:
    """Measures, and the extractor where one was asked for."""
    if options.metrics is None:
        return ("frechet",), options.extractor
    asked = parse_metrics(options.metrics)
    if asked.extractor is not None and options.extractor not in {None, asked.extractor}:
        raise UserError(
            f"--extractor {options.extractor}: --metrics {options.metrics} asks for {asked.extractor}; name one of them"
        )
    return asked.measures, asked.extractor or options.extractor


def _changes(options: EvaluationOptions, measures: tuple[str, ...]) -> dict[str, Any]:
    """Of the configuration's `evaluation`."""
    changes: dict[str, Any] = {
        "metrics": [measure for measure in measures if measure != "frechet"],
        "monitor": "frechet",
        "statistics": None if options.statistics is None else Storage.open(options.statistics).url,
    }
    given = {"samples": options.samples, "real_samples": options.real_samples}
    return changes | {key: value for key, value in given.items() if value is not None}


def _located_data(data: DataConfig, options: EvaluationOptions, needs_labels: bool) -> DataConfig:
    """The data to compare with, or to take labels from; its URL is None where nothing of it is needed."""
    url = options.data or data.url
    if options.statistics is not None and not needs_labels:
        url = None
    elif url is None:
        raise UserError("--data is missing: the URL of the data set to compare with; or give --statistics FILE.npz")
    return data.model_copy(update={"url": None if url is None else Storage.open(url).url})


def _index(data: DataConfig) -> Index | None:
    return None if data.url is None else Index.load(Storage.open(data.url))


def _real_side(evaluation: EvaluationConfig, index: Index | None, image_size: int) -> tuple[int, tuple[str, ...]]:
    """How many real images there are, and what is to be said of them."""
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
    """Raises UserError where the data's images are of other channels, or of another size and not to be resized."""
    (channels, size, _), of_data = shape, index.header
    if channels != of_data.channels:
        kinds = {1: "grey", 3: "RGB"}
        raise UserError(
            f"{source}: its images are {kinds[channels]}, and those at {data.url} are {kinds[of_data.channels]}; "
            f"convert one side, or compare with other data"
        )
    if size != of_data.image_size and data.resize == "none":
        raise UserError(
            f"{source}: its images have {size} pixels a side, and those at {data.url} have "
            f"{of_data.image_size or 'several sizes'}; compare with data that were packed with --size {size}"
        )
