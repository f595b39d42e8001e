"""The configuration: one typed tree, immutable once loaded.

Fields marked `Runtime` do not change what is trained: a run may go on with another value. All others are held
equal by a resume, and all but those marked `Mutable` by a new run that takes over the state (`config.compare`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, Field, field_validator, model_validator
from pydantic.fields import FieldInfo

from distgan.config.placement import PlacementConfig
from distgan.config.section import Component, Mutable, Runtime, Section
from distgan.text import did_you_mean

# How images of another size become those of the configuration.
Resize = Literal["none", "bilinear", "bicubic", "lanczos"]

# What becomes of a sample that does not decode, or has a size that is not wanted.
BadSamples = Literal["error", "skip"]

# Random changes of the images that a critic sees (`training.augmentation`).
Augmentation = Literal["color", "translation", "cutout"]


Kimg = Annotated[float, Gt(0), Le(1e9)]


class GeneratorConfig(Component):
    network: str = Field("dcgan", description="the generator's kind; `module:Class` is a class of your own")


class DiscriminatorConfig(Component):
    network: str = Field("dcgan", description="the discriminator's kind; `module:Class` is a class of your own")


class ObjectiveConfig(Component):
    name: str = Field("bce", description="what is minimised; `module:Class` is a class of your own")
    critic_steps: Annotated[int, Ge(1), Le(100), Mutable()] = Field(1, description="critic updates a generator update")
    critic_batches: Literal["fresh", "reuse"] = Field(
        "fresh", description="a new real batch for each critic update of a step, or one for all of them"
    )
    updates: Literal["sequential", "simultaneous"] = Field(
        "sequential", description="simultaneous: both gradients from one forward, before either update"
    )

    generator_batch_multiple: Annotated[int, Ge(1), Le(16)] = Field(
        1, description="fakes of a generator update for each real image of a batch"
    )

    @model_validator(mode="after")
    def _simultaneous_has_one_critic_step(self) -> ObjectiveConfig:
        if self.updates == "simultaneous" and self.critic_steps != 1:
            raise ValueError(
                f"updates=simultaneous takes both gradients from one forward, so critic_steps must be 1 "
                f"(it is {self.critic_steps}); set objective.updates=sequential"
            )
        if self.updates == "simultaneous" and self.generator_batch_multiple != 1:
            raise ValueError(
                f"updates=simultaneous has the same fakes in both updates, so generator_batch_multiple must be 1 "
                f"(it is {self.generator_batch_multiple}); set objective.updates=sequential"
            )
        return self


class OptimizerConfig(Section):
    """What every optimiser has."""

    max_grad_norm: Annotated[float, Gt(0), Le(1e6)] | None = Field(
        None, description="scales the gradient of the whole network down to this norm where it is above"
    )


class AdamConfig(OptimizerConfig):
    name: Literal["adam"] = Field("adam", description="kind of optimiser")
    lr: Annotated[float, Gt(0), Le(1), Mutable()] = Field(2e-4, description="learning rate")
    beta1: Annotated[float, Ge(0), Lt(1)] = Field(0.5, description="weight of the old mean of the gradient")
    beta2: Annotated[float, Ge(0), Lt(1)] = Field(0.999, description="weight of the old mean square of the gradient")
    eps: Annotated[float, Gt(0), Le(1)] = Field(1e-7, description="added to the root of the mean square")


class RMSPropConfig(OptimizerConfig):
    name: Literal["rmsprop"] = Field(description="kind of optimiser")
    lr: Annotated[float, Gt(0), Le(1), Mutable()] = Field(5e-5, description="learning rate")
    alpha: Annotated[float, Ge(0), Lt(1)] = Field(0.99, description="weight of the old mean square of the gradient")
    eps: Annotated[float, Gt(0), Le(1)] = Field(1e-8, description="added to the root of the mean square")


OneOptimizer = Annotated[AdamConfig | RMSPropConfig, Field(discriminator="name")]

OPTIMIZERS = ("adam", "rmsprop")


class OptimizersConfig(Section):
    generator: OneOptimizer = AdamConfig()
    discriminator: OneOptimizer = AdamConfig()
    decay_from_kimg: Annotated[float, Ge(0), Le(1e9)] = Field(
        0.0, description="until here both rates are lr; then they go down linearly"
    )
    decay_until_kimg: Kimg | None = Field(None, description="where both rates reach 0; constant rates by default")

    @field_validator("generator", "discriminator", mode="before")
    @classmethod
    def _adam_by_default(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        name = values.get("name", "adam")
        if name not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer {name!r:.80}{did_you_mean(str(name), OPTIMIZERS)}")
        return {**values, "name": name}

    @model_validator(mode="after")
    def _decay_has_a_length(self) -> OptimizersConfig:
        if self.decay_until_kimg is None and self.decay_from_kimg > 0:
            raise ValueError(
                "decay_from_kimg is where the rates begin to go down: set decay_until_kimg, where they end"
            )
        if self.decay_until_kimg is not None and self.decay_until_kimg <= self.decay_from_kimg:
            raise ValueError(
                f"decay_until_kimg={self.decay_until_kimg:g} must be more than decay_from_kimg={self.decay_from_kimg:g}"
            )
        return self


class EmaConfig(Section):
    half_life_kimg: Annotated[float, Ge(0), Le(1e9)] = Field(
        10.0, description="of the average of the generator's weights; 0 switches it off"
    )
    ramp_up: Annotated[float, Gt(0), Le(1)] | None = Field(
        0.05, description="half-life is at most this fraction of the kimg trained so far"
    )


class DataConfig(Section):
    url: Annotated[str | None, Runtime()] = Field(None, description="folder or bucket that holds index.json")
    streams: Annotated[int, Ge(1), Le(4096)] = Field(
        16, description="parts of the data that a batch takes equally from; a multiple of scale.groups"
    )
    window_blocks: Annotated[int, Ge(1), Le(1024)] = Field(8, description="blocks shuffled together")
    flip: bool = Field(False, description="random horizontal flips")
    dequantize: bool = Field(False, description="noise, uniform over the width of a grey level, on real images")
    resize: Resize = Field(
        "none",
        description="how images of another size are brought to image_size at load, the aspect ratio not kept; "
        "bilinear is what `distgan data pack` does; none refuses them",
    )
    bad_samples: BadSamples = Field(
        "error",
        description="a sample that cannot be decoded ends the run; or the next good one of its block takes its place",
    )
    max_bad_samples: Annotated[int, Ge(0), Runtime()] = Field(
        100, description="with bad_samples=skip: more of them than this, over all workers, end the run"
    )
    prefetch_batches: Annotated[int, Ge(1), Le(64), Runtime()] = Field(
        3, description="batches decoded ahead of the loop"
    )
    memory_mb: Annotated[int, Ge(0), Runtime()] = Field(
        1024, description="decoded samples kept in memory, MiB a worker"
    )
    cache_dir: Annotated[str | None, Runtime()] = Field(
        None, description="folder for a cache of remote blocks that all workers of a node share"
    )
    cache_mb: Annotated[int, Ge(1), Runtime()] = Field(16_384, description="of cache_dir at most, MiB")


class TrainingConfig(Section):
    batch_size: Annotated[int, Ge(2), Le(2**20)] = Field(128, description="images a batch, over all workers")
    kimg: Annotated[Kimg, Runtime()] = Field(1000.0, description="budget, thousands of real images")
    max_minutes: Annotated[float | None, Gt(0), Le(1e6), Runtime()] = Field(
        None, description="also end, evaluated and saved, once a session has lasted so long; it can be gone on with"
    )
    precision: Literal["float32", "bfloat16", "float64"] = Field(
        "float32", description="bfloat16 is autocast, with the gradient penalty in float32"
    )
    channels_last: bool = Field(True, description="memory format of images; the faster one on most hardware")
    augment: list[Augmentation] = Field(
        [], description="random changes, in this order, of all images that the discriminator sees, real and fake"
    )
    log_every: Annotated[int, Ge(1), Runtime()] = Field(10, description="steps between two rows of metrics")
    samples_every_kimg: Annotated[Kimg | None, Runtime()] = Field(
        None, description="sample grids at fixed latents; by default at every evaluation"
    )

    @field_validator("augment")
    @classmethod
    def _each_once(cls, augment: list[Augmentation]) -> list[Augmentation]:
        if len(set(augment)) < len(augment):
            raise ValueError(f"each augmentation once, not {', '.join(augment)}")
        return augment


class EvaluationConfig(Section):
    extractor: str = Field("fd_lite0", description="features that the distance is measured on")
    weights: Annotated[str | None, Runtime()] = Field(
        None, description="path or URL of the published weights that the extractor needs, where it brings none"
    )
    statistics: Annotated[str | None, Runtime()] = Field(
        None, description="path or URL of an .npz file with mu and sigma to measure against, in place of the data's own"
    )
    metrics: Annotated[list[str], Runtime()] = Field(
        [], description="computed beside the Fréchet distance, over the same features"
    )
    monitor: Annotated[str, Runtime()] = Field(
        "frechet", description="the metric that says which checkpoint is best and when to stop"
    )
    every_kimg: Annotated[Kimg, Runtime()] = Field(
        100.0, description="thousands of real images between two evaluations"
    )
    at_start: Annotated[bool, Runtime()] = Field(True, description="also evaluate the untrained generator")
    samples: Annotated[int, Ge(2)] = Field(2048, description="generated images an evaluation")
    real_samples: Annotated[int, Ge(4)] | None = Field(
        None, description="real images of the statistics, at most, drawn by seed; all of them by default"
    )
    patience: Annotated[int | None, Ge(1), Runtime()] = Field(
        None, description="stop after so many evaluations in a row without improvement; never by default"
    )
    min_improvement: Annotated[float, Ge(0), Lt(1), Runtime()] = Field(
        0.01, description="what counts as an improvement: more than this fraction of the best value"
    )
    min_improvement_absolute: Annotated[float, Ge(0), Runtime()] = Field(
        0.0, description="and more than this, in the measure's own unit"
    )
    warm_up_kimg: Annotated[float, Ge(0), Le(1e9), Runtime()] = Field(
        0.0, description="evaluations before this do not count against patience"
    )
    target: Annotated[float | None, Runtime()] = Field(
        None, description="stop when the monitored measure is as good as this; never by default"
    )
    asynchronous: Annotated[bool, Runtime()] = Field(
        False, description="on Ray, evaluate beside the training; each result is applied at the next evaluation"
    )
    processors: Annotated[int, Ge(1), Le(1024), Runtime()] = Field(
        1, description="of an asynchronous evaluation, at most"
    )


class HealthConfig(Section):
    stop: Annotated[bool, Runtime()] = Field(
        False, description="also end, evaluated and saved, where the run is found not to be healthy; else it only warns"
    )


class CheckpointConfig(Section):
    every_kimg: Annotated[Kimg | None, Runtime()] = Field(
        None, description="also between evaluations; by default at evaluations and at the end"
    )
    keep_last: Annotated[int, Ge(1), Runtime()] = Field(2, description="newest checkpoints kept, besides the best")


class ScaleConfig(Section):
    workers: Annotated[int, Ge(1), Le(4096), Runtime()] = Field(
        1, description="processes that share a batch; at most scale.groups"
    )
    groups: Annotated[int, Ge(1), Le(4096)] = Field(
        4, description="equal parts of a batch that batch statistics and random draws belong to"
    )
    threads: Annotated[int | None, Ge(1), Le(1024), Runtime()] = Field(
        None,
        description="torch threads a worker; by default OMP_NUM_THREADS, else a share of its host's processors "
        "(on Ray: of those offered)",
    )
    device: Annotated[Literal["auto", "cpu", "cuda"], Runtime()] = Field(
        "auto", description="auto: GPUs where there is one for each worker"
    )
    max_failures: Annotated[int, Ge(0), Runtime()] = Field(3, description="restarts after lost workers")


class Config(Section):
    """Everything that a run is made of."""

    description: Annotated[str, Runtime()] = Field("", description="what the configuration is, in words")
    source: Annotated[str, Runtime()] = Field("", description="whose recipe it is")
    seed: Annotated[int, Ge(0), Lt(2**32)] = Field(0, description="draws weights, order of the data and all else")
    image_size: Literal[16, 32, 64, 128] = Field(64, description="pixels a side")
    channels: Literal[1, 3] = Field(3, description="1 for grey, 3 for RGB")
    latent_dim: Annotated[int, Ge(1), Le(4096)] = Field(100, description="numbers that an image is made from")
    num_classes: Annotated[int, Ge(2), Le(4096)] | None = Field(
        None, description="classes of a conditional pair of networks; none: labels are not used"
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
    scale: ScaleConfig = ScaleConfig()
    placement: PlacementConfig = PlacementConfig()
    tracking: Annotated[list[str], Runtime()] = Field(
        ["tensorboard", "samples", "curves"], description="what records the run beside its metrics.jsonl"
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
    def _rates_last_for_the_budget(self) -> Config:
        end = self.optimizer.decay_until_kimg
        if end is not None and self.training.kimg > end:
            raise ValueError(
                f"training.kimg={self.training.kimg:g} goes beyond optimizer.decay_until_kimg={end:g}, from where the "
                f"rates are 0; lower the budget, or in a new run let the rates decay for longer"
            )
        return self


def sections_of(field: FieldInfo) -> list[type[BaseModel]]:
    """The section that a field is, or all those that it can be; none where it is a value."""
    kinds = get_args(field.annotation) or (field.annotation,)
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
