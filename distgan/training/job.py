"""A job: a configuration with a name and a place to keep its results; checked before anything starts."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import distgan
from distgan.config.commands import command, options
from distgan.config.components import own_names
from distgan.config.load import dump_config
from distgan.config.schema import Config
from distgan.data.index import Index
from distgan.data.lease import ClaimedStorage
from distgan.data.order import Order
from distgan.data.storage import Storage
from distgan.errors import UserError
from distgan.evaluation.given_statistics import check_given_statistics
from distgan.evaluation.weights import with_weights
from distgan.metrics.known import feature_count
from distgan.training.checkpoints import CheckpointStore, Manifest
from distgan.training.events import FewImages
from distgan.training.few_images import few_images
from distgan.training.initial import Beginning, check_initial, check_same_beginning
from distgan.training.layers import layers_of
from distgan.training.networks import Networks, build_networks, build_objective, check_combination
from distgan.training.progress import Progress
from distgan.training.sampling import LAST, find_checkpoint
from distgan.training.state import check_continuable, check_resumable

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Job:
    """What to train and where to keep it: the run's folder is `storage_url`/`name`; `profile` records some steps.

    `init_from` is the URL of a run or checkpoint whose weights a new run begins with. `continue_from` is that of one
    whose whole state it begins with: networks, moments of the optimisers and all progress, of a run its last
    checkpoint. At most one of both is given. `claim` is the token of the process that has the run's folder: nothing is
    written there once it is another's.
    """

    config: Config
    name: str
    storage_url: str
    profile: bool = False
    init_from: str | None = None
    continue_from: str | None = None
    claim: str | None = None

    @property
    def run(self) -> Storage:
        folder = Storage.open(self.storage_url).child(self.name)
        return folder if self.claim is None else ClaimedStorage.of(folder, folder, self.claim)

    def as_yaml(self) -> str:
        """The text of a file that starts the same run anew: all keys, and above them a comment that says how."""
        beginning = options(init_from=self.init_from, continue_from=self.continue_from)
        where = options(storage=None if self.storage_url == "runs" else self.storage_url, name="NEW_NAME")
        return (
            f"# The whole configuration of the run {self.name}, by distgan {distgan.__version__}. The same run anew:\n"
            f"#   {command('train', 'THIS_FILE', *where, *beginning)}\n"
            f"{dump_config(self.config)}"
        )


@dataclass(frozen=True)
class Plan:
    """What a job will do.

    Attributes:
        layers: of each network a line a layer: name, output shape, parameters.
        job: the one that was planned, folders of its data now absolute and what it begins from a checkpoint.
        resumes: the checkpoint that the job goes on from; its own, or in a new run the one of another.
        few_images: what the data are too few for, if anything.
        warnings: of damaged checkpoints, in whose place the job begins from another.
    """

    job: Job
    index: Index | None
    layers: dict[str, list[tuple[str, str, int]]]
    parameters: dict[str, int]
    resumes: Manifest | None
    few_images: FewImages | None = None
    warnings: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """Generator updates to the end of the run's budget, with those that have been made."""
        config = self.job.config
        images = config.objective.critic_steps * config.training.batch_size
        done = Progress() if self.resumes is None else Progress.from_dict(self.resumes.progress)
        return done.step + max(0, -(-(round(config.training.kimg * 1000) - done.images) // images))


def make_plan(job: Job, *, dry_run: bool = False) -> Plan:
    """Checks everything that can be checked without training. Raises UserError for what cannot work.

    A dry run makes no folder, and may do without `data.url`.
    """
    config = job.config
    if not _NAME.fullmatch(job.name):
        raise UserError(f"--name {job.name!r}: use letters, digits, '.', '_' and '-', at most 100")
    networks = build_networks(config, torch.device("meta"))
    build_objective(config)
    check_combination(config, networks)
    layers = {name: layers_of(getattr(networks, name), config, name) for name in ("generator", "discriminator")}
    config = with_weights(config)
    if config.evaluation.statistics is not None:
        check_given_statistics(config.evaluation, config.evaluation.statistics, config.image_size)
    index = None
    if config.data.url is not None:
        index = Index.load(Storage.open(config.data.url))
        check_data(config, index)
    elif not dry_run:
        raise UserError(
            "data.url is not set: add data.url=URL, the folder or bucket that `distgan data pack` or "
            "`distgan data render` wrote"
        )
    storage = Storage.open(job.storage_url)
    if not (dry_run and storage.is_local):
        storage.prepare()
    manifest = CheckpointStore(job.run).newest_manifest()
    if manifest is not None and index is not None:
        check_resumable(manifest, config, index.hash, job.run.url)
    few = None
    if index is not None:
        few = few_images(len(index), config, feature_count(config.evaluation.extractor))
    job, begins, warnings = _with_beginning(replace(job, config=_with_absolute_data(config)), manifest, networks, index)
    return Plan(
        job=job,
        index=index,
        layers=layers,
        parameters=networks.parameter_counts,
        resumes=manifest or begins,
        few_images=few,
        warnings=warnings,
    )


def _with_absolute_data(config: Config) -> Config:
    """The configuration as it holds in every folder: workers run in other ones, and so may the run's next start."""
    places: dict[str, str] = {}
    if config.data.url is not None:
        places["url"] = Storage.open(config.data.url).url
    if config.data.cache_dir is not None:
        places["cache_dir"] = str(Path(config.data.cache_dir).absolute())
    data, evaluation = config.data.model_copy(update=places), config.evaluation
    if evaluation.statistics is not None:
        evaluation = evaluation.model_copy(update={"statistics": Storage.open(evaluation.statistics).url})
    return config.model_copy(update={"data": data, "evaluation": evaluation})


def _with_beginning(
    job: Job, manifest: Manifest | None, networks: Networks, index: Index | None
) -> tuple[Job, Manifest | None, tuple[str, ...]]:
    """The job with the URL of the checkpoint that its run begins, or has begun, with; whose progress is taken over.

    Also warnings, where other checkpoints would have been taken and are damaged.

    Raises UserError for an unfit one, and where a run that exists has begun with another.
    """
    if job.init_from is not None and job.continue_from is not None:
        raise UserError(
            "--init-from and --continue-from: give one; a run begins with the weights of another, or with all its state"
        )
    if manifest is not None:
        given: dict[Beginning, str | None] = {"--init-from": job.init_from, "--continue-from": job.continue_from}
        for option, asked in given.items():
            if asked is not None:
                check_same_beginning(manifest, option, Storage.open(asked).url, job.run.url)
        return replace(job, init_from=manifest.init_from, continue_from=manifest.continued_from), None, ()
    if job.init_from is not None:
        checkpoint = find_checkpoint(job.init_from)
        check_initial(checkpoint, networks)
        return replace(job, init_from=checkpoint.url), None, checkpoint.passed_over
    if job.continue_from is not None:
        checkpoint = find_checkpoint(job.continue_from, default=LAST, own=own_names(job.config.model_dump(mode="json")))
        check_continuable(checkpoint, job.config, index.hash if index is not None else checkpoint.manifest.data_hash)
        return replace(job, continue_from=checkpoint.url), checkpoint.manifest, checkpoint.passed_over
    return job, None, ()


def check_data(config: Config, index: Index) -> None:
    """Raises UserError where the data set is not what the configuration asks for."""
    size, channels = index.header.image_size, index.header.channels
    if channels != config.channels:
        raise UserError(
            f"channels={config.channels}, but the images at {config.data.url} have {channels}: "
            f"set channels={channels}, or pack the data with the other value"
        )
    if size != config.image_size and config.data.resize == "none":
        mend = f"set image_size={size} or data.resize=bilinear" if size else "set data.resize=bilinear"
        raise UserError(
            f"image_size={config.image_size}, but the images at {config.data.url} have {size or 'several sizes'}: "
            f"{mend}, or pack the data with --size {config.image_size}"
        )
    if config.num_classes is not None:
        check_labels(config.num_classes, index, str(config.data.url))
    Order(index, config.seed, config.data.streams, config.data.window_blocks)


def check_labels(num_classes: int, index: Index, url: str) -> None:
    """Raises UserError where the data's labels are not those of `num_classes` classes."""
    classes, unlabelled = len(index.header.classes), int((index.labels < 0).sum())
    if unlabelled:
        raise UserError(
            f"num_classes={num_classes}, but {unlabelled:,} of the {len(index):,} images at {url} have no label: "
            f"pack them with labels, or train networks that take none with num_classes=null"
        )
    if classes != num_classes:
        mend = f"set num_classes={classes}" if classes > 1 else "train networks that take no labels (num_classes=null)"
        raise UserError(f"num_classes={num_classes}, but the images at {url} are of {classes} classes: {mend}")
    if index.labels.max() >= num_classes:
        raise UserError(
            f"{url}: damaged: there is a label {index.labels.max()}, and {classes} classes; make the index again with "
            f"`{command('data', 'index', url)}`"
        )
