"""Placement of a run's workers on a cluster: keys that do not change what is trained."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import Field, ValidationInfo, field_validator

from distgan.config.section import Runtime, Section

# As Ray's: Kubernetes' rules for the names of labels and their values.
_VALUE = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"

_KEY = re.compile(rf"(?:[A-Za-z0-9.-]{{1,253}}/)?{_VALUE}")

_SELECTOR = re.compile(rf"(!?)(?:({_VALUE})|in\(({_VALUE}(?:, ?{_VALUE})*)\))")

# Ray's own resources have keys of their own.
_OWN_KEYS = {
    "CPU": "cpus_per_worker",
    "GPU": "gpus_per_worker",
    "memory": "memory_gb_per_worker",
    "object_store_memory": "memory_gb_per_worker",
}


@dataclass(frozen=True)
class Selector:
    """The accepted values of a node's label; with `negated` all others are accepted."""

    values: frozenset[str]
    negated: bool = False

    def accepts(self, value: str | None) -> bool:
        """Whether a node with this value is accepted; None: the node has no such label."""
        return (value in self.values) != self.negated


def parse_labels(entries: Sequence[str]) -> dict[str, str]:
    """Selectors by label, in Ray's syntax. Raises ValueError for any other."""
    found: dict[str, str] = {}
    for entry in entries:
        key, equals, text = (part.strip() for part in entry.partition("="))
        if not equals or not _KEY.fullmatch(key):
            raise ValueError(f"{entry!r:.80}: write KEY=SELECTOR, as in ray.io/market-type=spot")
        parse_selector(text)
        if key in found:
            raise ValueError(f"{key:.80}: given twice; write {key:.80}=in(A,B) for one of several values")
        found[key] = text
    return found


def parse_selector(text: str) -> Selector:
    """The selector of a text. Raises ValueError for any other text."""
    match = _SELECTOR.fullmatch(text)
    if match is None:
        quote = "; quote it, for its commas" if "in(" in text else ""
        raise ValueError(f"{text!r:.80}: no selector; write VALUE, !VALUE, in(A,B) or !in(A,B){quote}")
    negation, value, several = match.groups()
    values = [value] if value is not None else [one.strip() for one in several.split(",")]
    return Selector(frozenset(values), bool(negation))


def parse_resources(entries: Sequence[str]) -> dict[str, float]:
    """Amounts of custom resources by name. Raises ValueError for any other text."""
    found: dict[str, float] = {}
    for entry in entries:
        name, equals, text = (part.strip() for part in entry.partition("="))
        if not name or not equals:
            raise ValueError(f"{entry!r:.80}: write NAME=AMOUNT, as in fpga=1")
        if name in _OWN_KEYS:
            raise ValueError(f"{name}: has a key of its own; set placement.{_OWN_KEYS[name]}")
        if name in found:
            raise ValueError(f"{name:.80}: given twice")
        found[name] = _amount(name, text)
    return found


def _amount(name: str, text: str) -> float:
    """The amount; Ray counts in units of 1/10,000, and above 1 of most resources in whole ones."""
    if not re.fullmatch(r"[0-9]*\.?[0-9]+", text) or not 0.0001 <= float(text) <= 1e9:
        raise ValueError(f"{name:.60}={text:.40}: the amount is a number above 0, as in {name:.60}=1")
    return float(text)


def matches(labels: Mapping[str, str], selectors: Mapping[str, str]) -> bool:
    """Whether a node with these labels is accepted."""
    return all(parse_selector(text).accepts(labels.get(key)) for key, text in selectors.items())


class PlacementConfig(Section):
    """Resources and nodes of a run's workers on a Ray cluster, and the network interface between them."""

    cpus_per_worker: Annotated[float | None, Ge(0.01), Runtime()] = Field(
        None, description="processors a worker, also a fraction; by default one, or a share if the cluster has fewer"
    )
    gpus_per_worker: Annotated[float | None, Ge(0), Runtime()] = Field(
        None, description="GPUs a worker, also a fraction; by default one if the cluster has enough"
    )
    memory_gb_per_worker: Annotated[float | None, Gt(0), Le(1e6), Runtime()] = Field(
        None, description="memory of a node that Ray reserves for a worker, GB of 10^9 bytes"
    )
    resources_per_worker: Annotated[list[str], Runtime()] = Field(
        [], description="custom Ray resources a worker, each NAME=AMOUNT, as [fpga=1]"
    )
    accelerator_type: Annotated[str | None, Runtime()] = Field(
        None, description="GPU type that workers need, by Ray's name, as H100 or A10G"
    )
    strategy: Annotated[Literal["pack", "spread", "strict_pack", "strict_spread"], Runtime()] = Field(
        "pack", description="workers on few nodes (pack) or many (spread); strict: all on one node, or each on its own"
    )
    labels: Annotated[list[str], Runtime()] = Field(
        [], description="node labels that workers need, each KEY=SELECTOR, as [ray.io/market-type=!spot]"
    )
    wait: Annotated[bool | None, Runtime()] = Field(
        None, description="wait until the cluster has enough nodes; by default if it has an autoscaler"
    )
    interface: Annotated[str | None, MinLen(1), Runtime()] = Field(
        None, description="network interface of gloo and NCCL, as eth0; by default that of the node's address"
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
    def _list_not_section(cls, given: Any, info: ValidationInfo) -> Any:
        if isinstance(given, Mapping):
            example = "[ray.io/market-type=spot]" if info.field_name == "labels" else "[fpga=1]"
            raise ValueError(f"write a list of NAME=VALUE, as in {example}")
        return given

    @field_validator("resources_per_worker")
    @classmethod
    def _amounts(cls, entries: list[str]) -> list[str]:
        parse_resources(entries)
        return entries

    @field_validator("labels")
    @classmethod
    def _selectors(cls, entries: list[str]) -> list[str]:
        parse_labels(entries)
        return entries
