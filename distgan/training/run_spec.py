"""A run: a configuration with a name and a place for its results, checked before anything starts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import distgan
from distgan.bounds import MOST_TEXT_BYTES
from distgan.config.load import Overrides, dump_config, flatten, load_config, override_values, parse_config
from distgan.config.plugins import own_names
from distgan.config.schema import Config
from distgan.data.index import Index
from distgan.errors import UserError
from distgan.evaluation.extractors.published import feature_count
from distgan.evaluation.extractors.weights import with_weights
from distgan.evaluation.reference_files import check_given_statistics
from distgan.storage.lease import ClaimedStorage
from distgan.storage.storage import NotFoundError, Storage
from distgan.text import command, options
from distgan.training.checkpoints import CheckpointStore, Manifest
from distgan.training.data_checks import check_data, few_images
from distgan.training.events import SmallDatasetWarning
from distgan.training.networks import Networks, build_networks, build_objective, check_combination, layers_of
from distgan.training.progress import Progress
from distgan.training.starting_point import LAST, Beginning, check_initial, check_same_beginning, find_checkpoint
from distgan.training.state import check_continuable, check_resumable

# What a configuration has read, and, beside the data, statistics written.
ADDRESS_KEYS = ("data.url", "evaluation.statistics", "evaluation.weights")

# The host of their URLs is that of the user's own environment; the first part is a bucket or the like.
_WITHOUT_HOST = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "hf": "hf"}


def addresses_elsewhere(config: Config, source: str, keys: Iterable[str] = ADDRESS_KEYS) -> dict[str, str]:
    """Of `keys` those whose address is on another host than `source`, the file or folder that names them.

    Paths of this machine are everybody's. Nothing is contacted.
    """
    values = flatten(config.model_dump())
    named = {key: values[key] for key in keys if values[key] is not None}
    here = _host(Storage.open(source))
    return {key: url for key, url in named.items() if (host := _host(Storage.open(url))) is not None and host != here}


def check_addresses(config: Config, source: str, keys: Iterable[str], way: str) -> None:
    """Raises UserError, before anything is contacted, where a configuration's address is on another host than `source`.

    Whoever wrote it chooses what this machine talks to. `way` says how the user takes that on.
    """
    elsewhere = addresses_elsewhere(config, source, keys)
    if elsewhere:
        listed = ", ".join(f"{key}={url!r:.200}" for key, url in elsewhere.items())
        raise UserError(
            f"{source}: its configuration reads from another place than its own ({listed}); if these are the addresses "
            f"that you expect, {way}"
        )


def keys_not_given(overrides: Overrides) -> list[str]:
    """Of `ADDRESS_KEYS` those that no override of the user names."""
    given = override_values(overrides)
    return [key for key in ADDRESS_KEYS if not any(key == one or key.startswith(f"{one}.") for one in given)]


def _host(storage: Storage) -> tuple[str, str] | None:
    """Whom a contact would be with; None for this machine's disk."""
    if storage.is_local:
        return None
    if storage.protocol in _WITHOUT_HOST:
        return _WITHOUT_HOST[storage.protocol], ""
    return storage.protocol, storage.url.partition("://")[2].partition("/")[0]


def read_configuration(name: str, overrides: Overrides = ()) -> Config:
    """The configuration of a preset, a YAML file or its URL, with overrides.

    Raises UserError for what cannot be read or cannot work, and for a file from elsewhere that names modules outside
    distgan or addresses on other hosts than its own: whoever wrote it chooses what is run and what is contacted.
    """
    if "://" not in name:
        return load_config(name, overrides)
    folder, _, file = name.rpartition("/")
    try:
        text = Storage.open(folder).read_bytes(file, most=MOST_TEXT_BYTES).decode("utf-8")
    except NotFoundError:
        raise UserError(f"{name:.200}: no such file; name a YAML file, as the config.yaml of a run") from None
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read the configuration {name:.200}: {error}") from None
    config = parse_config(text, name, overrides)
    check_addresses(config, name, keys_not_given(overrides), "give them as KEY=VALUE, or copy the file here")
    return config


# Of fewer batches a discriminator soon knows every image.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class RunSpec:
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
class RunPlan:
    """What a job will do.

    Attributes:
        layers: of each network a line a layer: name, output shape, parameters.
        job: the one that was planned, folders of its data now absolute and what it begins from a checkpoint.
        resumes: the checkpoint that the job goes on from; its own, or in a new run the one of another.
        few_images: what the data are too few for, if anything.
        warnings: of damaged checkpoints, in whose place the job begins from another.
    """

    job: RunSpec
    index: Index | None
    layers: dict[str, list[tuple[str, str, int]]]
    parameters: dict[str, int]
    resumes: Manifest | None
    few_images: SmallDatasetWarning | None = None
    warnings: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """Generator updates to the end of the run's budget, with those that have been made."""
        config = self.job.config
        images = config.objective.critic_steps * config.training.batch_size
        done = Progress() if self.resumes is None else Progress.from_dict(self.resumes.progress)
        return done.step + max(0, -(-(round(config.training.kimg * 1000) - done.images) // images))


def plan_run(job: RunSpec, *, dry_run: bool = False) -> RunPlan:
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
    return RunPlan(
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
    job: RunSpec, manifest: Manifest | None, networks: Networks, index: Index | None
) -> tuple[RunSpec, Manifest | None, tuple[str, ...]]:
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
