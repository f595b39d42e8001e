"""The configuration: one typed, immutable tree.

A resumed run may change fields marked `Runtime`, which do not change what is trained. A run that continues from the
state of another may also change those marked `Mutable` (`resume_rules`).
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic.fields import FieldInfo

from distgan.config.optimizer import OptimizersConfig
from distgan.config.placement import PlacementConfig
from distgan.config.scale import ScaleConfig
from distgan.config.schedule import Schedule, Scheduled
from distgan.config.section import Component, Mutable, Runtime, Section

# How images of another size are resized.
Resize = Literal["none", "bilinear", "bicubic", "lanczos"]

# What happens with a sample that cannot be decoded or has the wrong size.
BadSamples = Literal["error", "skip"]

# Random changes of the images that the discriminator sees (`training.augment`).
Augmentation = Literal["color", "translation", "cutout", "ada"]

# YAML reads a bare `on` or `off` as a truth value.
Switch = Annotated[
    Literal["off", "on", "auto"],
    BeforeValidator(lambda value: {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value),
]

Kimg = Annotated[float, Gt(0), Le(1e9)]


class GeneratorConfig(Component):
    network: str = Field("dcgan", description="generator network; `module:Class` is a class of your own")


class DiscriminatorConfig(Component):
    network: str = Field("dcgan", description="discriminator network; `module:Class` is a class of your own")


class ObjectiveConfig(Component):
    name: str = Field("bce", description="losses of both networks; `module:Class` is a class of your own")
    critic_steps: Annotated[int, Ge(1), Le(100), Mutable()] = Field(
        1, description="discriminator updates for each generator update"
    )
    critic_batches: Literal["fresh", "reuse"] = Field(
        "fresh", description="a new real batch for each discriminator update of a step, or one for all of them"
    )
    updates: Literal["sequential", "simultaneous"] = Field(
        "sequential", description="simultaneous: gradients of both networks from one forward pass"
    )
    generator_batch_multiple: Annotated[int, Ge(1), Le(16)] = Field(
        1, description="fakes in a generator update for each real image of a batch"
    )

    @model_validator(mode="after")
    def _simultaneous_has_one_critic_step(self) -> ObjectiveConfig:
        if self.updates == "simultaneous" and self.critic_steps != 1:
            raise ValueError(
                f"updates=simultaneous takes both gradients from one forward pass, so critic_steps must be 1 "
                f"(it is {self.critic_steps}); set objective.updates=sequential"
            )
        if self.updates == "simultaneous" and self.generator_batch_multiple != 1:
            raise ValueError(
                f"updates=simultaneous has the same fakes in both updates, so generator_batch_multiple must be 1 "
                f"(it is {self.generator_batch_multiple}); set objective.updates=sequential"
            )
        return self


class EmaConfig(Section):
    half_life_kimg: Annotated[Scheduled, Ge(0), Le(1e9)] = Field(
        10.0, description="half-life of the average of the generator's weights; 0: no average"
    )
    ramp_up: Annotated[float, Gt(0), Le(1)] | None = Field(
        0.05, description="limits the half-life to this fraction of the kimg trained so far; null: no limit"
    )


class DataConfig(Section):
    url: Annotated[str | None, Runtime()] = Field(
        None, description="folder or bucket of the data set, with its index.json"
    )
    held_out: Annotated[str | None, Runtime()] = Field(
        None,
        description="folder or bucket of a data set of real images that are never trained on, by which overfitting of "
        "the discriminator is measured",
    )
    streams: Annotated[int, Ge(1), Le(4096)] = Field(
        16, description="parts of the data; a batch takes equally from each; a multiple of scale.groups"
    )
    window_blocks: Annotated[int, Ge(1), Le(1024)] = Field(8, description="blocks shuffled together")
    flip: bool = Field(False, description="random horizontal flips")
    dequantize: bool = Field(False, description="uniform noise of one gray level on real images")
    resize: Resize = Field(
        "none",
        description="filter that resizes images of another size at load, without keeping the aspect ratio; "
        "`distgan data pack` is bilinear; none: another size is an error",
    )
    bad_samples: BadSamples = Field(
        "error",
        description="error: a bad sample ends the run; skip: the next good one of its block replaces it",
    )
    max_bad_samples: Annotated[int, Ge(0), Runtime()] = Field(
        100, description="with bad_samples=skip: the run ends above this number, over all workers"
    )
    decode_threads: Annotated[int | None, Ge(1), Le(256), Runtime()] = Field(
        None, description="threads that decode images; by default cores / local workers; has no effect on results"
    )
    prefetch_batches: Annotated[int, Ge(1), Le(64), Runtime()] = Field(3, description="batches decoded in advance")
    memory_mb: Annotated[int, Ge(0), Runtime()] = Field(1024, description="memory for decoded samples, MiB a worker")
    cache_dir: Annotated[str | None, Runtime()] = Field(
        None, description="folder of a cache of remote blocks, shared by the workers of a node; null: no cache"
    )
    cache_mb: Annotated[int, Ge(1), Runtime()] = Field(16_384, description="largest size of cache_dir, MiB")


class TrainingConfig(Section):
    batch_size: Annotated[int, Ge(2), Le(2**20)] = Field(128, description="images in a batch, over all workers")
    kimg: Annotated[Kimg, Runtime()] = Field(1000.0, description="budget: thousands of real images")
    max_minutes: Annotated[float | None, Gt(0), Le(1e6), Runtime()] = Field(
        None, description="a session ends after this time, evaluated and saved; the run can be resumed"
    )
    precision: Literal["float32", "tf32", "bfloat16", "float64"] = Field(
        "float32",
        description="number format; tf32: float32 with TensorFloat-32 products on GPUs that have it; bfloat16: "
        "autocast, with penalties in float32",
    )
    channels_last: bool = Field(True, description="memory format channels_last, faster on most hardware")
    compile: Annotated[Switch, Runtime()] = Field(
        "off",
        description="compile networks and losses with torch.compile, gradient penalties included; auto: on a GPU, "
        "where torch can compile them",
    )
    cuda_graphs: Annotated[Switch, Runtime()] = Field(
        "off", description="replay whole updates as CUDA graphs; auto: where device and networks allow it"
    )
    augment: list[Augmentation] = Field(
        [],
        description="random changes of all images that the discriminator sees, real and fake, in this order; ada: "
        "flips, rotations, scales, shifts, colors, cutout",
    )
    augment_probability: Annotated[Scheduled, Ge(0), Le(1)] = Field(
        1.0,
        description="probability with which an image is changed, for each of training.augment; with augment_target "
        "the highest that is reached",
    )
    augment_target: Annotated[float, Gt(0), Lt(1)] | None = Field(
        None,
        description="raise the probability from 0 while the discriminator overfits more than this, and lower it else; "
        "0: not at all, 1: fully; null: the probability is as given",
    )
    augment_target_kimg: Kimg = Field(
        500.0, description="with augment_target: thousands of real images in which the probability can go from 0 to 1"
    )
    log_every: Annotated[int, Ge(1), Runtime()] = Field(10, description="steps between two rows of metrics.jsonl")
    samples_every_kimg: Annotated[Kimg | None, Runtime()] = Field(
        None, description="interval of sample grids at fixed latents; by default at every evaluation"
    )

    @field_validator("augment")
    @classmethod
    def _each_once(cls, augment: list[Augmentation]) -> list[Augmentation]:
        if len(set(augment)) < len(augment):
            raise ValueError(f"each augmentation once, not {', '.join(augment)}")
        return augment

    @model_validator(mode="after")
    def _target_has_augmentations(self) -> TrainingConfig:
        if self.augment_target is not None and not self.augment:
            raise ValueError(
                f"augment_target={self.augment_target:g} adapts the probability of augmentations, and "
                f"training.augment=[] has none; set training.augment=[ada], or leave augment_target out"
            )
        return self


class EvaluationConfig(Section):
    extractor: str = Field(
        "fd_lite0", description="network whose features are compared; `module:Class` is a class of your own"
    )
    weights: Annotated[str | None, Runtime()] = Field(
        None, description="path or URL of published weights, for an extractor that needs them"
    )
    statistics: Annotated[str | None, Runtime()] = Field(
        None, description="path or URL of an .npz file with mu and sigma to compare with, in place of the data"
    )
    metrics: Annotated[list[str], Runtime()] = Field(
        [], description="further metrics on the same features, besides the Fréchet distance"
    )
    monitor: Annotated[str, Runtime()] = Field(
        "frechet", description="metric that decides which checkpoint is best and when to stop"
    )
    every_kimg: Annotated[Kimg, Runtime()] = Field(
        100.0, description="interval of evaluations, thousands of real images"
    )
    at_start: Annotated[bool, Runtime()] = Field(True, description="also evaluate the untrained generator")
    samples: Annotated[int, Ge(2)] = Field(2048, description="generated images in an evaluation")
    real_samples: Annotated[int, Ge(4)] | None = Field(
        None, description="real images to compare with, at most, drawn by seed; all by default"
    )
    patience: Annotated[int | None, Ge(1), Runtime()] = Field(
        None, description="stop after this number of evaluations in a row without improvement; never by default"
    )
    min_improvement: Annotated[float, Ge(0), Lt(1), Runtime()] = Field(
        0.01, description="an improvement is more than this fraction of the best value"
    )
    min_improvement_absolute: Annotated[float, Ge(0), Runtime()] = Field(
        0.0, description="an improvement is also more than this, in the unit of the metric"
    )
    warm_up_kimg: Annotated[float, Ge(0), Le(1e9), Runtime()] = Field(
        0.0, description="evaluations before this do not count against patience"
    )
    target: Annotated[float | None, Runtime()] = Field(
        None, description="stop when the monitored metric reaches this value; never by default"
    )
    asynchronous: Annotated[bool, Runtime()] = Field(
        False, description="on Ray, evaluate in parallel with the training; a result is applied at the next evaluation"
    )
    processors: Annotated[int, Ge(1), Le(1024), Runtime()] = Field(
        1, description="processors of an asynchronous evaluation, at most"
    )


class HealthConfig(Section):
    stop: Annotated[bool, Runtime()] = Field(
        False, description="end an unhealthy run, evaluated and saved; false: only warn"
    )


class CheckpointConfig(Section):
    every_kimg: Annotated[Kimg | None, Runtime()] = Field(
        None, description="interval of further checkpoints; by default at evaluations and at the end"
    )
    every_minutes: Annotated[float | None, Gt(0), Le(1e6), Runtime()] = Field(
        None, description="longest time without a checkpoint, looked at each training.log_every steps; null: any"
    )
    keep_last: Annotated[int, Ge(1), Runtime()] = Field(2, description="newest checkpoints to keep, besides the best")


class StorageConfig(Section):
    patience_minutes: Annotated[float, Ge(0), Le(1e6), Runtime()] = Field(
        10.0,
        description="checkpoints, data and resumes wait so long for storage that is unavailable or full, before the "
        "run ends",
    )


class Config(Section):
    """The configuration of a run."""

    description: Annotated[str, Runtime()] = Field("", description="the configuration in words")
    source: Annotated[str, Runtime()] = Field("", description="origin of the recipe")
    preset: Annotated[str, Runtime()] = Field("", description="preset that the configuration began with")
    seed: Annotated[int, Ge(0), Lt(2**32)] = Field(
        0, description="seed of weights, data order and all other random numbers"
    )
    image_size: Literal[16, 32, 64, 128, 256, 512] = Field(64, description="pixels a side")
    channels: Literal[1, 3] = Field(3, description="1: gray, 3: RGB")
    latent_dim: Annotated[int, Ge(1), Le(4096)] = Field(100, description="length of a latent vector")
    num_classes: Annotated[int, Ge(2), Le(4096)] | None = Field(
        None, description="classes of conditional networks; null: labels are not used"
    )
    generator: GeneratorConfig = GeneratorConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizersConfig = OptimizersConfig()
    ema: EmaConfig = EmaConfig()
    training: TrainingConfig = TrainingConfig()
    data: DataConfig = DataConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    health: HealthConfig = HealthConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    storage: StorageConfig = StorageConfig()
    scale: ScaleConfig = ScaleConfig()
    placement: PlacementConfig = PlacementConfig()
    tracking: Annotated[list[str], Runtime()] = Field(
        ["tensorboard", "samples", "curves"], description="trackers that record the run besides metrics.jsonl"
    )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.image_size, self.image_size

    @model_validator(mode="after")
    def _batch_divides(self) -> Config:
        batch, streams, groups = self.training.batch_size, self.data.streams, self.scale.groups
        if streams % groups:
            raise ValueError(
                f"data.streams={streams} must be a multiple of scale.groups={groups}: each group reads its own streams"
            )
        if batch % streams:
            raise ValueError(
                f"training.batch_size={batch} must be a multiple of data.streams={streams}: "
                f"a batch takes equally from every stream"
            )
        if self.scale.workers > groups:
            raise ValueError(
                f"scale.workers={self.scale.workers} is more than scale.groups={groups}: each worker needs a group; "
                f"raise scale.groups (this changes the recipe) or ask for at most {groups} workers"
            )
        return self

    @model_validator(mode="after")
    def _can_be_elastic(self) -> Config:
        fewest, most, strategy = self.scale.min_workers, self.scale.workers, self.placement.strategy
        if fewest is None:
            return self
        if fewest > most:
            raise ValueError(
                f"scale.min_workers={fewest} is more than scale.workers={most}; give --workers LOW:HIGH, "
                f"which sets both"
            )
        if strategy.startswith("strict"):
            raise ValueError(
                f"placement.strategy={strategy} cannot place a changing number of workers "
                f"(scale.min_workers={fewest}); use pack or spread, or leave out scale.min_workers"
            )
        if self.evaluation.asynchronous:
            raise ValueError(
                f"evaluation.asynchronous=true needs processors that elastic workers take "
                f"(scale.min_workers={fewest}); leave out one of them"
            )
        return self

    @model_validator(mode="after")
    def _rates_last_for_the_budget(self) -> Config:
        optimizer = self.optimizer
        rates = {
            "lr_factor": optimizer.lr_factor,
            "generator.lr": optimizer.generator.lr,
            "discriminator.lr": optimizer.discriminator.lr,
        }
        for key, rate in rates.items():
            if isinstance(rate, Schedule) and rate.to == 0 and self.training.kimg > rate.until_kimg:
                raise ValueError(
                    f"training.kimg={self.training.kimg:g} is beyond optimizer.{key}.until_kimg={rate.until_kimg:g}, "
                    f"where it reaches 0; lower the budget, or in a new run raise until_kimg"
                )
        return self


def sections_of(field: FieldInfo) -> list[type[Section]]:
    """The section of a field, or all kinds that it can be; empty for a value."""
    kinds = get_args(field.annotation) or (field.annotation,)
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)]
