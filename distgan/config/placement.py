"""Where on a cluster a run's workers are to be: keys of the configuration that change nothing of what is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import Field, ValidationInfo, field_validator

from distgan.config.pairs import parse_labels, parse_resources
from distgan.config.section import Free, Section


class PlacementConfig(Section):
    """Where on a Ray cluster workers run, and through which network interface they meet."""

    cpus_per_worker: Annotated[float | None, Ge(0.01), Free()] = Field(
        None, description="fractions too; by default one, or a fair share where the cluster has fewer"
    )
    gpus_per_worker: Annotated[float | None, Ge(0), Free()] = Field(
        None, description="fractions too; by default one each where the cluster has enough of them"
    )
    memory_gb_per_worker: Annotated[float | None, Gt(0), Le(1e6), Free()] = Field(
        None, description="of a node's memory, GB of 10^9 bytes that Ray sets aside for a worker"
    )
    resources_per_worker: Annotated[list[str], Free()] = Field(
        [], description="custom resources of the cluster, each NAME=AMOUNT, as in [fpga=1]"
    )
    accelerator_type: Annotated[str | None, Free()] = Field(
        None, description="Ray's name of the GPUs that workers must have, as H100 or A10G"
    )
    strategy: Annotated[Literal["pack", "spread", "strict_pack", "strict_spread"], Free()] = Field(
        "pack", description="workers on few nodes, or on many; strict: all on one, or each on another"
    )
    labels: Annotated[list[str], Free()] = Field(
        [], description="what nodes of workers must have, each KEY=SELECTOR, as in [ray.io/market-type=!spot]"
    )
    wait: Annotated[bool | None, Free()] = Field(
        None, description="for nodes that are still to come; by default where an autoscaler brings them"
    )
    interface: Annotated[str | None, MinLen(1), Free()] = Field(
        None, description="network interface of gloo and NCCL, as eth0; by default the one with the node's address"
    )

    @field_validator("cpus_per_worker", "gpus_per_worker")
    @classmethod
    def _whole_above_one(cls, amount: float | None) -> float | None:
        if amount is not None and amount > 1 and not amount.is_integer():
            raise ValueError(
                f"{amount:g}: Ray gives whole processors and GPUs above 1; ask for {math.floor(amount)} or "
                f"{math.ceil(amount)}"
            )
        if amount is not None and 0 < amount < 0.01:
            raise ValueError(f"{amount:g}: give at least 0.01, or 0 for none")
        return amount

    @field_validator("resources_per_worker", "labels", mode="before")
    @classmethod
    def _pairs_not_sections(cls, given: Any, info: ValidationInfo) -> Any:
        if isinstance(given, Mapping):
            example = "[ray.io/market-type=spot]" if info.field_name == "labels" else "[fpga=1]"
            raise ValueError(f"write a list of NAME=VALUE, as in {example}")
        return given

    @field_validator("resources_per_worker")
    @classmethod
    def _amounts(cls, pairs: list[str]) -> list[str]:
        parse_resources(pairs)
        return pairs

    @field_validator("labels")
    @classmethod
    def _selectors(cls, pairs: list[str]) -> list[str]:
        parse_labels(pairs)
        return pairs
