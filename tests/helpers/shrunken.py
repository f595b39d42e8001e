"""Presets at small widths in float64, small enough for two steps in a moment."""

from __future__ import annotations

from distgan.config.load import load_config
from distgan.config.schema import Config

_RESIDUAL = ("sngan", "sagan_resnet")  # these make no image below 32 pixels


def shrunken_overrides(preset: str) -> list[str]:
    """What makes a preset small: everything but sizes, widths and the number format is as shipped."""
    config = load_config(preset)
    size = 32 if config.generator.network in _RESIDUAL else 16
    overrides = [f"image_size={size}", "latent_dim=8", "generator.width=8", "discriminator.width=8"]
    if config.generator.options.get("widths") is not None:
        overrides += ["generator.widths=null", "discriminator.widths=null"]
    if "attention_at" in config.generator.options and config.generator.options["attention_at"] is not None:
        overrides += [f"{network}.attention_at={size // 2}" for network in ("generator", "discriminator")]
    return [*overrides, "training.batch_size=16", "data.streams=4", "scale.groups=4", "training.precision=float64"]


def shrunken(preset: str, *overrides: str) -> Config:
    return load_config(preset, [*shrunken_overrides(preset), *overrides])
