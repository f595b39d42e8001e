"""The manifest of a checkpoint: its format, its former formats, and its fields."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

import distgan
from distgan.bounds import parse_json
from distgan.config.plugins import with_former_options
from distgan.errors import DamagedError, UserError
from distgan.training.progress import Images, Progress, Updates
from distgan.training.session import Session

MANIFEST_NAME = "manifest.json"

Format = Literal["distgan-checkpoint-2", "distgan-checkpoint-3", "distgan-checkpoint-4"]

FORMAT: Format = "distgan-checkpoint-4"

# In runs of this format, groups read adjacent streams.
ADJACENT_STREAMS: Format = "distgan-checkpoint-2"

_FORMATS = (ADJACENT_STREAMS, "distgan-checkpoint-3", FORMAT)

# Keys of `progress` in former formats, and their names now.
_FORMER_KEYS = {
    "critic_updates": "discriminator_updates",
    "health.spells": "episodes",
    "health.logs": "log_sizes",
    "health.widest": "largest_diversity",
}

_DAMAGED = ": damaged: "

# In a manifest: SHA-256 of its other fields. Earlier versions did not write it.
_CHECKSUM = "manifest_sha256"


class Manifest(BaseModel):
    """The description of a checkpoint, without its tensors.

    Attributes:
        config: resolved configuration of the run.
        workers, threads: a resume with the same of both repeats the same bits.
        classes: names of the labels of a conditional generator.
        init_from: URL of the checkpoint whose weights the run began with; None for random weights.
        continued_from: URL of the checkpoint of another run whose whole state the run began with.
        partial: whether only the weights of `init_from` were taken that fit.
        seconds: duration of all sessions of the run so far; None if an earlier version did not record it.
        session: where and how the checkpoint was made; None if an earlier version did not record it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Format = FORMAT
    distgan: str
    name: str
    step: Updates
    kimg: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    config: dict[str, Any]
    data_hash: str
    workers: Annotated[int, Field(ge=1, le=2**20)]
    threads: Annotated[int, Field(ge=1, le=2**12)]
    progress: dict[str, Any]
    classes: list[str] = []
    init_from: str | None = None
    continued_from: str | None = None
    partial: bool = False
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    session: Session | None = None
    state_bytes: Images = 0
    state_sha256: str = ""

    @field_validator("progress")
    @classmethod
    def _check_progress(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if info.data.get("format") != FORMAT:
            value = _with_current_keys(value)
        progress = Progress.from_dict(value)
        if not progress.health.is_valid:
            raise ValueError("numbers that no run has")
        return progress.as_dict()

    @field_validator("config")
    @classmethod
    def _as_trained(cls, value: dict[str, Any]) -> dict[str, Any]:
        return with_former_options(value)

    @property
    def former_format(self) -> str | None:
        """A line that says that the checkpoint has a former format; None for the current one."""
        if self.format == FORMAT:
            return None
        renamed = ", ".join(f"{old} is now {new}" for old, new in _FORMER_KEYS.items())
        return (
            f"{self.name} has the format {self.format} ({renamed}); new checkpoints have {FORMAT}, which earlier "
            f"versions cannot read"
        )


def manifest_bytes(manifest: Manifest) -> bytes:
    """The manifest as a file, with a checksum of its fields."""
    return json.dumps(with_checksum(manifest.model_dump(mode="json")), indent=1).encode()


def with_checksum(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a manifest with their checksum: that of their JSON with sorted keys and without spaces."""
    fields = {key: value for key, value in fields.items() if key != _CHECKSUM}
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return fields | {_CHECKSUM: hashlib.sha256(text.encode()).hexdigest()}


def parse_manifest(data: bytes, name: str, where: str) -> Manifest:
    """The manifest of the checkpoint `name` at `where`.

    Raises DamagedError for invalid content, and UserError for the format of another version.
    """
    try:
        content = parse_json(data)
    except ValueError:
        raise damaged_checkpoint(where, f"its {MANIFEST_NAME} is no JSON") from None
    fields = content if isinstance(content, dict) else {}
    if _CHECKSUM in fields:
        if fields != with_checksum(fields):
            raise damaged_checkpoint(where, f"its {MANIFEST_NAME} has another checksum")
        content = {key: value for key, value in fields.items() if key != _CHECKSUM}
    try:
        if fields.get("format") not in _FORMATS:
            raise ValueError
        manifest = Manifest.model_validate(content)
        if manifest.name != name:
            raise damaged_checkpoint(where, f"its {MANIFEST_NAME} is that of {manifest.name:.80}")
        return manifest
    except ValueError as error:
        form, version = fields.get("format"), fields.get("distgan")
        if (isinstance(form, str) and form not in _FORMATS) or (isinstance(version, str) and is_other(version)):
            raise of_other_version(where, version, str(form)) from None
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": ["format"], "msg": "missing"}
        place = ".".join(map(str, first["loc"]))
        raise damaged_checkpoint(where, f"its {MANIFEST_NAME}: {place:.80}: {first['msg']:.80}") from None


def damaged_checkpoint(where: str, reason: str) -> DamagedError:
    """The error for a damaged checkpoint at `where`."""
    return DamagedError(f"{where}{_DAMAGED}{reason}")


def damage_of(error: DamagedError) -> str:
    """The reason in an error that `damaged_checkpoint` made."""
    return str(error).partition(_DAMAGED)[2]


def is_other(version: str) -> bool:
    """Whether a checkpoint was written by another version of distgan than this one."""
    return version != distgan.__version__


def of_other_version(where: str, version: object, reason: str) -> UserError:
    """The error for a checkpoint that only the version that wrote it can read."""
    return UserError(
        f"{where}: not a checkpoint that distgan {distgan.__version__} can read (written by version {version}: "
        f"{reason}); use that version, or start a new run with another --name"
    )


def _with_current_keys(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    return {
        _FORMER_KEYS.get(f"{prefix}{key}", key): _with_current_keys(value, f"{prefix}{key}.")
        if isinstance(value, Mapping)
        else value
        for key, value in values.items()
    }
