"""What the sections of a configuration are, and the marks of their fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict


class Runtime:
    """Marks a field whose value does not change what is trained."""


@dataclass(frozen=True)
class Mutable:
    """Marks a field that changes what is trained, from the update on at which another value comes.

    An option of a component has the mark in the component's signature.

    Attributes:
        switch: 0 leaves out what is otherwise built in at the start, so the value never changes to 0 or from it.
    """

    switch: bool = False

    def allows(self, before: float, after: float) -> bool:
        """Whether the one value may change to the other."""
        return not self.switch or bool(before) == bool(after)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)


class Component(Section):
    """A section that names a registered component; its further keys are that component's own options."""

    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        """The component's own keyword arguments, already checked against its signature."""
        return dict(self.model_extra or {})
