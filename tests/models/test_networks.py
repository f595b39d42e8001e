"""Every registered pair of networks from a configuration: precisions, memory formats, and options that do not fit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from distgan.config.load import load_config
from distgan.config.plugins import DISCRIMINATORS, GENERATORS
from distgan.errors import UserError
from distgan.training.networks import Networks, build_networks, layers_of
from layer_table import parameters

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]

CPU = torch.device("cpu")
# Generator, discriminator, classes. Every registered name is in one.
PAIRS = [
    ("dcgan", "dcgan", None),
    ("dcgan", "wgan_gp", None),
    ("cgan", "cgan", 3),
    ("r3gan", "r3gan", 3),
    ("r3gan", "r3gan", None),
    ("sagan", "sagan", None),
    ("sagan_resnet", "sagan_resnet", 3),
    ("sngan", "sngan", None),
]
NO_DROPOUT = {name: ["discriminator.dropout=0.0"] for name in ("dcgan", "wgan_gp", "cgan")}
pairs = pytest.mark.parametrize(("generator", "discriminator", "classes"), PAIRS)


def build(
    generator: str, discriminator: str, classes: int | None, *overrides: str, device: torch.device = CPU
) -> Networks:
    named = {"generator": generator, "discriminator": discriminator}
    sections = [f"{section}={{network: {name}, width: 8}}" for section, name in named.items()]
    labels = [] if classes is None else [f"num_classes={classes}"]
    return build_networks(load_config("quickstart", ["image_size=32", *sections, *labels, *overrides]), device)


def forward(networks: Networks, classes: int | None) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    dtype = next(networks.generator.parameters()).dtype
    labels = () if classes is None else (torch.tensor([0, 1, 2, 1]),)
    images = networks.generator(torch.randn(4, 64, generator=random).to(dtype), *labels)
    return images, networks.discriminator(images, *labels)


def test_every_name_is_in_a_pair() -> None:
    assert {pair[0] for pair in PAIRS} == set(GENERATORS)
    assert {pair[1] for pair in PAIRS} == set(DISCRIMINATORS)


@pairs
def test_precisions_and_memory_formats(generator: str, discriminator: str, classes: int | None) -> None:
    """Single precision in both memory formats, double, and autocast give about the same, forwards and backwards."""
    names = (generator, discriminator, classes)
    found: dict[str, list[Tensor]] = {}
    for case, precision, channels_last in (
        ("double", "float64", False),
        ("single", "float32", False),
        ("channels last", "float32", True),
        ("autocast", "bfloat16", True),
    ):
        options = [
            f"training.precision={precision}",
            f"training.channels_last={channels_last}",
            *NO_DROPOUT.get(discriminator, []),
        ]
        networks = build(*names, *options, *NO_DROPOUT.get(discriminator, []))
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            images, logits = forward(networks, classes)
        assert images.shape == (4, 1, 32, 32)
        assert logits.shape == (4,)
        logits.double().sum().backward()
        gradients = [p.grad for network in (networks.generator, networks.discriminator) for p in network.parameters()]
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
        found[case] = [images.double(), logits.double()]
    for case, tolerance in (("single", 1e-3), ("channels last", 1e-3), ("autocast", 0.1)):
        for value, wanted in zip(found[case], found["double"], strict=True):
            assert (value - wanted).abs().max() <= tolerance * wanted.abs().max(), case


@pairs
def test_without_numbers(generator: str, discriminator: str, classes: int | None) -> None:
    """On the device "meta" the same parameters and buffers, by name and shape, and a whole table of layers."""
    names = (generator, discriminator, classes)
    real, networks = build(*names), build(*names, device=torch.device("meta"))
    labels = [] if classes is None else [f"num_classes={classes}"]
    config = load_config("quickstart", ["image_size=32", *labels])
    for part in ("generator", "discriminator"):
        shapes = [{k: v.shape for k, v in getattr(each, part).state_dict().items()} for each in (real, networks)]
        assert shapes[0] == shapes[1]
        table = layers_of(getattr(networks, part), config, part)
        assert sum(count for _, _, count in table) == parameters(getattr(real, part))
        assert not [name for name, _, _ in table if name.startswith(("Parametr", "_"))]


@pairs
def test_weights_follow_the_seed(generator: str, discriminator: str, classes: int | None) -> None:
    names = (generator, discriminator, classes)
    first, same, other = build(*names), build(*names), build(*names, "seed=1")
    for part in ("generator", "discriminator"):
        states = [getattr(networks, part).state_dict() for networks in (first, same, other)]
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
        assert any(not torch.equal(value, states[2][name]) for name, value in states[0].items())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["image_size=16", "generator={network: sngan}"], "generator: image_size=16: residual networks are made for"),
        (["discriminator={network: sagan_resnet}", "image_size=16"], "discriminator: image_size=16: residual networks"),
        (
            ["generator={network: sagan, width: 6}"],
            "generator: self-attention divides .* its stage has 12",
        ),
        (["discriminator={network: sagan, widths: [9, 8, 8]}"], "discriminator: self-attention .* its stage has 9"),
        (["generator={network: sagan_resnet, width: 12}"], "generator: self-attention .* its stage has 12"),
        (["generator={network: sagan, attention_at: 12}"], "attention_at=12: no stage .* one of 8, 16, 32"),
        (["discriminator={network: sagan, attention_at: 32}"], "attention_at=32: no stage .* one of 4, 8, 16"),
        (
            ["generator={network: cgan, widths: [8]}", "num_classes=2"],
            "generator: widths has 1 entries, the",
        ),
        (["generator={network: r3gan, width: 12}"], "generator: group_size 16 does not divide 24, twice the 12"),
        (["discriminator={network: r3gan, widths: [8]}"], "discriminator: widths has 1 entries, the network has 4"),
        (["discriminator={network: wgan_gp, slopes: [0.1]}"], "slopes has 1 entries, the network has 3 stages"),
    ],
)
def test_options_that_do_not_fit_are_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        build_networks(load_config("quickstart", overrides), torch.device("meta"))
    assert "\n" not in str(error.value)


def test_attention_may_be_left_out_with_odd_widths() -> None:
    networks = build("sagan", "sagan", None, "generator.width=3", "generator.attention=none")
    assert isinstance(networks.generator, nn.Module)
