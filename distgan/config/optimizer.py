"""The configuration's section `optimizer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import Field, field_validator, model_validator

from distgan.config.schedule import Scheduled
from distgan.config.section import Mutable, Section
from distgan.text import did_you_mean


class OptimizerConfig(Section):
    """Keys of every optimizer."""

    max_grad_norm: Annotated[float, Gt(0), Le(1e6)] | None = Field(
        None, description="clips the gradient norm of the whole network; null: no clipping"
    )


class AdamConfig(OptimizerConfig):
    name: Literal["adam"] = Field("adam", description="optimizer")
    lr: Annotated[Scheduled, Gt(0), Le(1), Mutable()] = Field(2e-4, description="learning rate")
    beta1: Annotated[float, Ge(0), Lt(1)] = Field(0.5, description="decay of the mean of the gradient")
    beta2: Annotated[Scheduled, Ge(0), Lt(1)] = Field(0.999, description="decay of the mean square of the gradient")
    eps: Annotated[float, Gt(0), Le(1)] = Field(1e-7, description="added to the root of the mean square, for stability")


class RMSPropConfig(OptimizerConfig):
    name: Literal["rmsprop"] = Field(description="optimizer")
    lr: Annotated[Scheduled, Gt(0), Le(1), Mutable()] = Field(5e-5, description="learning rate")
    alpha: Annotated[Scheduled, Ge(0), Lt(1)] = Field(0.99, description="decay of the mean square of the gradient")
    eps: Annotated[float, Gt(0), Le(1)] = Field(1e-8, description="added to the root of the mean square, for stability")


OneOptimizer = Annotated[AdamConfig | RMSPropConfig, Field(discriminator="name")]

OPTIMIZERS = ("adam", "rmsprop")


class OptimizersConfig(Section):
    generator: OneOptimizer = AdamConfig()
    discriminator: OneOptimizer = AdamConfig()
    lr_factor: Annotated[Scheduled, Gt(0), Le(1)] = Field(1.0, description="factor of both learning rates")

    @model_validator(mode="before")
    @classmethod
    def _former_keys(cls, values: Any) -> Any:
        """Earlier configurations have `decay_from_kimg` and `decay_until_kimg` in the place of `lr_factor`."""
        if not isinstance(values, Mapping) or "decay_until_kimg" not in values:
            return values
        values = dict(values)
        start, end = values.pop("decay_from_kimg", 0.0), values.pop("decay_until_kimg")
        if end is None:
            return values
        return values | {
            "lr_factor": {"from": 1.0, "to": 0.0, "from_kimg": start, "until_kimg": end, "shape": "linear"}
        }

    @field_validator("generator", "discriminator", mode="before")
    @classmethod
    def _adam_by_default(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        name = values.get("name", "adam")
        if name not in OPTIMIZERS:
            raise ValueError(f"unknown optimizer {name!r:.80}{did_you_mean(str(name), OPTIMIZERS)}")
        return {**values, "name": name}
