"""An exported generator: a folder with `config.json`, weights or a program, and a model card. No file is a pickle."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from torch import Tensor

import distgan
from distgan.bounds import MOST_UNPACKED_BYTES, parse_json
from distgan.config.plugins import is_custom
from distgan.config.schema import Config
from distgan.errors import DamagedError, UserError
from distgan.evaluation.metrics.registry import metric_name
from distgan.inference.hub import HubModel, hub_model
from distgan.storage.storage import NotFoundError, Storage
from distgan.training.checkpoints import Checkpoint
from distgan.training.manifest import Manifest
from distgan.training.progress import Progress, StepScores
from distgan.training.starting_point import find_checkpoint

CONFIG = "config.json"

WEIGHTS = "model.safetensors"

CARD = "README.md"

Format = Literal["distgan-generator-1"]

_MOST_BYTES = 16 * 2**20

# What says where a run was made, and nothing of its generator.
_PRIVATE: dict[str, Any] = {
    "data": {"url", "cache_dir"},
    "evaluation": {"weights", "statistics"},
    "storage": True,
    "placement": True,
    "tracking": True,
}


class ExportedFile(BaseModel):
    """A file of the folder: its size and SHA-256."""

    model_config = ConfigDict(frozen=True)
    bytes: Annotated[int, Field(ge=0)]
    sha256: str


class ExportedConfig(BaseModel):
    """`config.json`.

    Attributes:
        checkpoint: the name of the checkpoint that was exported.
        latents: shape of the input `latents`, normal numbers; N is any.
        images: shape of the output, whose values are in [-1, 1].
        num_classes: of the second input `labels`, int64 (N,) from 0 to `num_classes` - 1; None without that input.
        metrics: of this checkpoint, by the names that reports have.
        config: the configuration of the run, without the places of its data and files.
    """

    model_config = ConfigDict(frozen=True)
    format: Format = "distgan-generator-1"
    library_name: Literal["distgan"] = "distgan"
    distgan: str
    checkpoint: str
    step: Annotated[int, Field(ge=0)]
    kimg: Annotated[float, Field(ge=0)]
    latents: tuple[Literal["N"], int]
    images: tuple[Literal["N"], int, int, int]
    num_classes: int | None
    classes: list[str]
    metrics: dict[str, float]
    files: dict[str, ExportedFile]
    config: dict[str, Any]


def described(checkpoint: Checkpoint, config: Config, files: dict[str, bytes]) -> ExportedConfig:
    """The description of a checkpoint's generator, and of the files that it is exported as."""
    manifest = checkpoint.manifest
    scores = [StepScores(**one) for one in manifest.progress["evaluations"] if one["step"] == manifest.step]
    return ExportedConfig(
        distgan=distgan.__version__,
        checkpoint=manifest.name,
        step=manifest.step,
        kimg=manifest.kimg,
        latents=("N", config.latent_dim),
        images=("N", *config.image_shape),
        num_classes=config.num_classes,
        classes=manifest.classes if config.num_classes is not None else [],
        metrics=_metrics(scores, config),
        files={
            name: ExportedFile(bytes=len(data), sha256=hashlib.sha256(data).hexdigest()) for name, data in files.items()
        },
        config=config.model_dump(mode="json", exclude=_PRIVATE),
    )


def _metrics(scores: list[StepScores], config: Config) -> dict[str, float]:
    """By the names of reports; custom metrics and those of a custom extractor by those of the configuration."""
    evaluation = config.evaluation
    return {
        name
        if is_custom(name) or is_custom(evaluation.extractor)
        else metric_name(name, evaluation.extractor, evaluation.samples): value
        for one in scores
        for name, value in one.values.items()
        if not name.endswith("_std")
    }


def weights_bytes(tensors: dict[str, Tensor]) -> bytes:
    """A state dict in the format of safetensors."""
    return safetensors.torch.save({name: tensor.contiguous().clone() for name, tensor in tensors.items()})


def find_generator(url: str, which: str | None = None, *, trust_code: bool = False) -> Checkpoint:
    """The checkpoint of a run (see `find_checkpoint`), or an exported generator, which has the tensors `ema` only.

    An exported generator is a folder, or a model of the hub: `hf://USER/NAME`.

    Raises UserError where there is none, and DamagedError for files that are not those that were exported.
    """
    model = hub_model(url)
    folder = Storage.open(url) if model is None else _from_hub(model)
    exported = read_config(folder)
    if exported is None:
        if model is not None:
            raise UserError(f"{url}: it is no generator that distgan exported; give a model that `distgan push` made")
        return find_checkpoint(url, which, trust_code=trust_code)
    if which is not None:
        raise UserError(f"--checkpoint {which}: {url} is an exported generator, of {exported.checkpoint} alone")
    if model is not None and WEIGHTS in exported.files:
        folder = model.folder(WEIGHTS, min(exported.files[WEIGHTS].bytes, MOST_UNPACKED_BYTES))
    manifest = _manifest(folder, exported)
    return Checkpoint(folder.url, manifest, {"ema": _read_weights(folder, exported)})


def _from_hub(model: HubModel) -> Storage:
    try:
        return model.folder(CONFIG, _MOST_BYTES)
    except NotFoundError:
        raise UserError(
            f"{model.url}: it has no {CONFIG}, so distgan did not export it; give a model that `distgan push` made"
        ) from None


def _manifest(folder: Storage, exported: ExportedConfig) -> Manifest:
    """A checkpoint's manifest as far as an export has it. Raises DamagedError for values that no run has."""
    try:
        return Manifest(
            distgan=exported.distgan,
            name=exported.checkpoint,
            step=exported.step,
            kimg=exported.kimg,
            config=exported.config,
            data_hash="",
            workers=1,
            threads=1,
            progress=Progress().as_dict(),
            classes=exported.classes,
        )
    except ValidationError as error:
        raise _damaged(folder, error) from None


def _damaged(folder: Storage, error: ValidationError) -> DamagedError:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return DamagedError(
        f"{folder.url}: its {CONFIG} is not one that distgan {distgan.__version__} writes: {place:.80}: "
        f"{first['msg']:.80}; use the version that wrote it, or export it again"
    )


def read_config(folder: Storage) -> ExportedConfig | None:
    """None for a folder that is no exported generator."""
    try:
        data = folder.read_bytes(CONFIG, most=_MOST_BYTES)
    except NotFoundError:
        return None
    try:
        content = parse_json(data)
        found = str(content.get("format", "")) if isinstance(content, dict) else ""
        return ExportedConfig.model_validate(content) if found.startswith("distgan-generator-") else None
    except ValidationError as error:
        raise _damaged(folder, error) from None
    except ValueError:
        raise DamagedError(f"{folder.url}: its {CONFIG} is no JSON; export it again") from None


def _read_weights(folder: Storage, exported: ExportedConfig) -> dict[str, Tensor]:
    if WEIGHTS not in exported.files:
        raise UserError(
            f"{folder.url}: exported as {', '.join(exported.files)}, which other libraries run; for distgan export it "
            f"with --format safetensors"
        )
    data = read_exported(folder, WEIGHTS, exported)
    try:
        return dict(safetensors.torch.load(data))
    except (SafetensorError, ValueError) as error:
        raise DamagedError(f"{folder.url}: {WEIGHTS} cannot be read ({error}); export it again") from None


def read_exported(folder: Storage, name: str, exported: ExportedConfig) -> bytes:
    """One of the files that `config.json` lists. Raises DamagedError for another content than was exported."""
    data = folder.read_bytes(name, most=exported.files[name].bytes)
    if hashlib.sha256(data).hexdigest() != exported.files[name].sha256:
        raise DamagedError(f"{folder.url}: {name} is not the file that was exported; copy it again")
    return data


def config_bytes(config: ExportedConfig) -> bytes:
    """`config.json` as a file."""
    return (json.dumps(config.model_dump(mode="json"), indent=1) + "\n").encode()


def example_inputs(config: Config, count: int, device: torch.device) -> tuple[Tensor, ...]:
    """Latents (count, latent_dim), and labels (count,) of a conditional generator, always the same."""
    latents = torch.randn(count, config.latent_dim, generator=torch.Generator().manual_seed(0)).to(device)
    if config.num_classes is None:
        return (latents,)
    return latents, (torch.arange(count, device=device) % config.num_classes)
