"""Every component that a configuration can name, one table a kind: name -> where its class or function lives.

Entries are resolved only when used, so reading a configuration imports nothing heavy. Adding a component is a
new file and a line here; its keyword arguments become its configuration keys (see `config.components`). A name
with a colon is looked up in a user's own module instead (see `config.own_code`).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from distgan.config.own_code import import_own, is_own
from distgan.config.suggest import did_you_mean
from distgan.errors import UserError


class Registry(Mapping[str, str]):
    """Names of one kind of component, each with its `module:attribute`."""

    def __init__(self, kind: str, entries: dict[str, str]) -> None:
        self.kind = kind
        self._entries = entries

    def __getitem__(self, name: str) -> str:
        return self._entries[name]

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def require(self, name: str) -> None:
        """Raises UserError where there is no component `name`; a user's own module is imported for that."""
        if is_own(name):
            import_own(name)
        elif name not in self._entries:
            raise UserError(f"unknown {self.kind} {name!r}{did_you_mean(name, self._entries)}")

    def resolve(self, name: str) -> Any:
        """The class called `name`, or that of a user's own module where `name` is `module:Class`.

        Raises UserError with the nearest name when there is none.
        """
        self.require(name)
        if is_own(name):
            return import_own(name)
        module, _, attribute = self._entries[name].partition(":")
        return getattr(importlib.import_module(module), attribute)


GENERATORS = Registry(
    "generator network",
    {
        "cgan": "distgan.models.cgan:Generator",
        "dcgan": "distgan.models.dcgan:Generator",
        "sagan": "distgan.models.sagan:Generator",
        "sagan_resnet": "distgan.models.sagan_resnet:Generator",
        "sngan": "distgan.models.sngan:Generator",
    },
)

DISCRIMINATORS = Registry(
    "discriminator network",
    {
        "cgan": "distgan.models.cgan:Critic",
        "dcgan": "distgan.models.dcgan:Discriminator",
        "sagan": "distgan.models.sagan:Discriminator",
        "sagan_resnet": "distgan.models.sagan_resnet:Discriminator",
        "sngan": "distgan.models.sngan:Discriminator",
        "wgan_gp": "distgan.models.wgan_gp:Critic",
    },
)

OBJECTIVES = Registry(
    "objective",
    {
        "bce": "distgan.training.objectives:BinaryCrossEntropy",
        "hinge": "distgan.training.objectives:Hinge",
        "wgan": "distgan.training.objectives:Wasserstein",
        "wgan_gp": "distgan.training.objectives:WassersteinGradientPenalty",
    },
)

EXTRACTORS = Registry(
    "feature extractor",
    {
        "fd_lite0": "distgan.metrics.lite0:EfficientNetLite0Features",
        "fid": "distgan.metrics.inception_features:InceptionFeatures",
        "fid_clean": "distgan.metrics.inception_features:CleanInceptionFeatures",
    },
)

SOURCES = Registry(
    "data source",
    {
        "folder": "distgan.data.sources.folder:FolderSource",
        "celeba": "distgan.data.sources.celeba:CelebaSource",
        "cifar": "distgan.data.sources.cifar:CifarSource",
        "idx": "distgan.data.sources.idx:IdxSource",
        "npz": "distgan.data.sources.npz:NpzSource",
    },
)
