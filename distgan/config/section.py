"""Base classes of the configuration's sections, and the marks of their fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict


class Runtime:
    """Marks a field that does not change what is trained: a resumed run may have another value."""


@dataclass(frozen=True)
class Mutable:
    """Marks a field that a continued run may change, which changes what is trained from then on.

    An option of a component has the mark in the component's signature.

    Attributes:
        switch: 0 switches a part off when networks are built, so a value never changes to or from 0.
    """

    switch: bool = False

    def allows(self, before: Any, after: Any) -> bool:
        """Whether `before` may change to `after`."""
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
