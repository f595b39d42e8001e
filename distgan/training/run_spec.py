"""The specification and the plan of a run, checked before anything starts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import distgan
from distgan.bounds import MOST_TEXT_BYTES
from distgan.config.load import Overrides, dump_config, flatten, load_config, override_values, parse_config
from distgan.config.plugins import custom_names
from distgan.config.schema import Config
from distgan.data.index import Index
from distgan.data.shard_checks import open_index
from distgan.errors import UserError
from distgan.evaluation.extractors.published import feature_count
from distgan.evaluation.extractors.weights import with_weights
from distgan.evaluation.metrics.registry import check_configured_metrics
from distgan.evaluation.reference_files import check_given_statistics
from distgan.storage.lease import ClaimedStorage
from distgan.storage.storage import NotFoundError, Storage
from distgan.text import command, options
from distgan.training.checkpoints import CheckpointStore
from distgan.training.data_checks import check_data, check_held_out, small_dataset_warning
from distgan.training.events import SmallDatasetWarning
from distgan.training.manifest import Manifest
from distgan.training.networks import Networks, build_networks, build_objective, check_combination, layers_of
from distgan.training.progress import Progress
from distgan.training.starting_point import LAST, InitOption, check_initial, check_same_start, find_checkpoint
from distgan.training.state import check_continuable, check_resumable

# Keys whose addresses a run reads; statistics may also be written.
ADDRESS_KEYS = ("data.url", "data.held_out", "evaluation.statistics", "evaluation.weights")

# Object stores: the host is that of the user's environment, and the URL begins with a bucket.
_WITHOUT_HOST = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "hf": "hf"}


def addresses_elsewhere(config: Config, source: str, keys: Iterable[str] = ADDRESS_KEYS) -> dict[str, str]:
    """The addresses, by key, on another host than `source`, the file or folder of the configuration.

    Local paths do not count. Nothing is contacted.
    """
    values = flatten(config.model_dump())
    named = {key: values[key] for key in keys if values[key] is not None}
    own_host = _host(Storage.open(source))
    return {
        key: url for key, url in named.items() if (host := _host(Storage.open(url))) is not None and host != own_host
    }


def check_addresses(config: Config, source: str, keys: Iterable[str], remedy: str) -> None:
    """Raises UserError, before anything is contacted, if a configuration has an address on another host than `source`.

    Its author chooses what this machine contacts. `remedy` says how the user can permit that.
    """
    elsewhere = addresses_elsewhere(config, source, keys)
    if elsewhere:
        listed = ", ".join(f"{key}={url!r:.200}" for key, url in elsewhere.items())
        raise UserError(
            f"{source}: its configuration reads from other hosts than its own ({listed}); if you expect these "
            f"addresses, {remedy}"
        )


def keys_not_given(overrides: Overrides) -> list[str]:
    """The `ADDRESS_KEYS` that no override of the user sets."""
    given = override_values(overrides)
    return [key for key in ADDRESS_KEYS if not any(key == one or key.startswith(f"{one}.") for one in given)]


def _host(storage: Storage) -> tuple[str, str] | None:
    """The scheme and host of a storage; None for the local disk."""
    if storage.is_local:
        return None
    if storage.protocol in _WITHOUT_HOST:
        return _WITHOUT_HOST[storage.protocol], ""
    return storage.protocol, storage.url.partition("://")[2].partition("/")[0]


def read_configuration(name: str, overrides: Overrides = ()) -> Config:
    """The configuration of a preset, a YAML file or its URL, with overrides.

    Raises UserError for an invalid configuration, and for a file from a URL that names modules outside distgan or
    addresses on other hosts: its author would choose the code to run and the hosts to contact.
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


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class RunSpec:
    """The specification of a run. Its folder is `storage_url`/`name`.

    Attributes:
        profile: whether to record a trace of some steps.
        init_from: URL of a run or checkpoint whose weights a new run begins with.
        continue_from: URL of a run or checkpoint whose whole state a new run begins with: networks, moments of the
            optimizers and progress. At most one of both is given.
        claim: token of the process that owns the run's folder. Once another process owns it, writes fail.
        partial: whether to take only those weights of `init_from` that fit.
        command: of the process that starts the run, for its checkpoints.
    """

    config: Config
    name: str
    storage_url: str
    profile: bool = False
    init_from: str | None = None
    continue_from: str | None = None
    claim: str | None = None
    partial: bool = False
    command: str | None = None

    @property
    def run(self) -> Storage:
        folder = Storage.open(self.storage_url).child(self.name)
        return folder if self.claim is None else ClaimedStorage.of(folder, folder, self.claim)

    @property
    def patience_s(self) -> float:
        """Seconds to wait for storage that is unavailable."""
        return 60 * self.config.storage.patience_minutes

    def as_yaml(self) -> str:
        """A configuration file with all keys, and a comment with the command that repeats the run."""
        start = options(init_from=self.init_from, continue_from=self.continue_from)
        start += ["--partial"] if self.partial else []
        where = options(storage=None if self.storage_url == "runs" else self.storage_url, name="NEW_NAME")
        return (
            f"# The whole configuration of the run {self.name}, by distgan {distgan.__version__}. To repeat the run:\n"
            f"#   {command('train', 'THIS_FILE', *where, *start)}\n"
            f"{dump_config(self.config)}"
        )


@dataclass(frozen=True)
class RunPlan:
    """The plan of a run.

    Attributes:
        spec: the specification, with absolute paths, and with the URL of the checkpoint that the run begins with.
        layers: (name, output shape, parameters) of each layer of each network.
        resumes: the checkpoint that the run resumes from: its own, or in a new run that of another run.
        small_dataset: what the data set is too small for, if anything.
        warnings: damaged checkpoints in whose place another is used.
        left_out: with `spec.partial`, which weights of a new run are not those of the checkpoint.
    """

    spec: RunSpec
    index: Index | None
    layers: dict[str, list[tuple[str, str, int]]]
    parameters: dict[str, int]
    resumes: Manifest | None
    small_dataset: SmallDatasetWarning | None = None
    warnings: tuple[str, ...] = ()
    left_out: str | None = None

    @property
    def steps(self) -> int:
        """Generator updates of the whole budget, including those already made."""
        config = self.spec.config
        images = config.objective.critic_steps * config.training.batch_size
        done = Progress() if self.resumes is None else Progress.from_dict(self.resumes.progress)
        return done.step + max(0, -(-(round(config.training.kimg * 1000) - done.images) // images))


def plan_run(spec: RunSpec, *, dry_run: bool = False) -> RunPlan:
    """Checks everything that can be checked without training. Raises UserError if the run cannot work.

    A dry run creates no folder and does not need `data.url`.
    """
    config = spec.config
    if not _NAME.fullmatch(spec.name):
        raise UserError(f"--name {spec.name!r}: use letters, digits, '.', '_' and '-', at most 100")
    networks = build_networks(config, torch.device("meta"))
    check_combination(config, networks, build_objective(config))
    layers = {name: layers_of(getattr(networks, name), config, name) for name in ("generator", "discriminator")}
    config = with_weights(config)
    if config.evaluation.statistics is not None:
        check_given_statistics(config.evaluation, config.evaluation.statistics, config.image_size)
    index = None
    if config.data.url is not None:
        index = open_index(Storage.open(config.data.url))
        check_data(config, index)
        check_configured_metrics(config.evaluation, len(index))
        if config.data.held_out is not None:
            check_held_out(config, index, open_index(Storage.open(config.data.held_out)))
    elif not dry_run:
        raise UserError(
            "data.url is not set: add data.url=URL, the folder or bucket that `distgan data pack` or "
            "`distgan data render` wrote"
        )
    storage = Storage.open(spec.storage_url)
    if not (dry_run and storage.is_local):
        storage.prepare()
    manifest = CheckpointStore(spec.run).newest_manifest()
    if manifest is not None and index is not None:
        check_resumable(manifest, config, index.hash, spec.run.url)
    few = None
    if index is not None:
        few = small_dataset_warning(len(index), config, feature_count(config.evaluation.extractor))
    start = _with_start(replace(spec, config=_with_absolute_paths(config)), manifest, networks, index)
    return RunPlan(
        spec=start.spec,
        index=index,
        layers=layers,
        parameters=networks.parameter_counts,
        resumes=manifest or start.continues,
        small_dataset=few,
        warnings=start.warnings,
        left_out=start.left_out,
    )


def _with_absolute_paths(config: Config) -> Config:
    """The specification with absolute paths: workers and the next session may run in other folders."""
    places: dict[str, str] = {}
    if config.data.url is not None:
        places["url"] = Storage.open(config.data.url).url
    if config.data.held_out is not None:
        places["held_out"] = Storage.open(config.data.held_out).url
    if config.data.cache_dir is not None:
        places["cache_dir"] = str(Path(config.data.cache_dir).absolute())
    data, evaluation = config.data.model_copy(update=places), config.evaluation
    if evaluation.statistics is not None:
        evaluation = evaluation.model_copy(update={"statistics": Storage.open(evaluation.statistics).url})
    return config.model_copy(update={"data": data, "evaluation": evaluation})


@dataclass(frozen=True)
class _Start:
    """What a run begins with.

    Attributes:
        spec: the specification with the URL of the checkpoint that the run begins, or began, with.
        continues: the manifest of the checkpoint whose whole state a new run takes.
        warnings: damaged checkpoints that are skipped.
        left_out: which weights stay random.
    """

    spec: RunSpec
    continues: Manifest | None = None
    warnings: tuple[str, ...] = ()
    left_out: str | None = None


def _with_start(spec: RunSpec, manifest: Manifest | None, networks: Networks, index: Index | None) -> _Start:
    """What the run begins with; `manifest` is that of the run's newest checkpoint, if it exists.

    Raises UserError for a checkpoint that does not fit, and if an existing run began with another.
    """
    if spec.init_from is not None and spec.continue_from is not None:
        raise UserError(
            "--init-from and --continue-from: give one; a run begins with the weights of another run, or with its "
            "whole state"
        )
    if spec.partial and spec.init_from is None:
        raise UserError("--partial is about the weights of another run; give --init-from RUN too, or leave it out")
    if manifest is not None:
        given: dict[InitOption, str | None] = {"--init-from": spec.init_from, "--continue-from": spec.continue_from}
        for option, url in given.items():
            if url is not None:
                check_same_start(manifest, option, Storage.open(url).url, spec.run.url)
        began = replace(spec, init_from=manifest.init_from, continue_from=manifest.continued_from)
        return _Start(replace(began, partial=manifest.partial))
    if spec.init_from is not None:
        checkpoint = find_checkpoint(spec.init_from)
        left_out = check_initial(checkpoint, networks, partial=spec.partial)
        return _Start(replace(spec, init_from=checkpoint.url), None, checkpoint.skipped, left_out)
    if spec.continue_from is not None:
        checkpoint = find_checkpoint(
            spec.continue_from, default=LAST, custom=custom_names(spec.config.model_dump(mode="json"))
        )
        check_continuable(checkpoint, spec.config, index.hash if index is not None else checkpoint.manifest.data_hash)
        return _Start(replace(spec, continue_from=checkpoint.url), checkpoint.manifest, checkpoint.skipped)
    return _Start(spec)
