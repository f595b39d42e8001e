"""The networks: exact parameter counts and shapes, and what their options do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from distgan.config.load import load_config
from distgan.errors import UserError
from distgan.models.dcgan import Discriminator, Generator
from distgan.models.wgan_gp import Discriminator as PenalizedDiscriminator
from distgan.training.networks import Networks, build_networks, build_objective, check_combination
from layer_table import meta, parameters, running_statistics

pytestmark = pytest.mark.timeout(60)

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def stages(network: nn.Module, inputs: Tensor) -> list[tuple[tuple[int, ...], int, int]]:
    """(output shape, convolution's numbers, normalization's numbers) of each convolution and what follows it."""
    rows: list[list[object]] = []

    def note(layer: nn.Module, _: object, output: Tensor) -> None:
        if isinstance(layer, CONVOLUTIONS):
            rows.append([tuple(output.shape[1:]), parameters(layer), 0])
        elif isinstance(layer, nn.BatchNorm2d):
            rows[-1][2] = parameters(layer) + running_statistics(layer)
        assert rows == [] or not isinstance(layer, nn.LeakyReLU | nn.Tanh) or rows[-1][0] == tuple(output.shape[1:])

    for layer in network.modules():
        if not list(layer.children()):
            layer.register_forward_hook(note)
    network(inputs)
    return [tuple(row) for row in rows]  # type: ignore[misc]


@pytest.mark.parametrize("upsampling", ["transposed", "nearest"])
def test_dcgan_generator_is_the_sources(upsampling: str) -> None:
    network = meta(Generator, image_size=64, channels=1, latent_dim=100, upsampling=upsampling)
    assert stages(network, torch.empty(2, 100, device="meta")) == [
        ((512, 4, 4), 819_200, 2_048),
        ((256, 8, 8), 2_097_152, 1_024),
        ((128, 16, 16), 524_288, 512),
        ((64, 32, 32), 131_072, 256),
        ((1, 64, 64), 1_024, 0),
    ]
    assert (parameters(network), running_statistics(network)) == (3_574_656, 1_920)
    assert all(layer.bias is None for layer in network.modules() if isinstance(layer, CONVOLUTIONS))
    assert all(layer.eps == 1e-3 for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))


def test_dcgan_discriminator_is_the_sources() -> None:
    network = meta(Discriminator, image_size=64, channels=1)
    assert stages(network, torch.empty(2, 1, 64, 64, device="meta")) == [
        ((64, 32, 32), 1_024, 0),
        ((128, 16, 16), 131_072, 512),
        ((256, 8, 8), 524_288, 1_024),
        ((512, 4, 4), 2_097_152, 2_048),
        ((1, 1, 1), 8_192, 0),
    ]
    assert (parameters(network), running_statistics(network)) == (2_763_520, 1_792)
    assert all(layer.bias is None for layer in network.modules() if isinstance(layer, CONVOLUTIONS))
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.3] * 4


def test_wgan_gp_generator_is_the_sources() -> None:
    network = meta(Generator, image_size=64, channels=3, latent_dim=128, last_bias=True)
    assert stages(network, torch.empty(2, 128, device="meta")) == [
        ((512, 4, 4), 1_048_576, 2_048),
        ((256, 8, 8), 2_097_152, 1_024),
        ((128, 16, 16), 524_288, 512),
        ((64, 32, 32), 131_072, 256),
        ((3, 64, 64), 3_075, 0),
    ]
    assert (parameters(network), running_statistics(network)) == (3_806_083, 1_920)
    biased = [layer.bias is not None for layer in network.modules() if isinstance(layer, CONVOLUTIONS)]
    assert biased == [False, False, False, False, True]


def test_wgan_gp_discriminator_is_the_sources() -> None:
    network = meta(PenalizedDiscriminator, image_size=64, channels=3)
    assert stages(network, torch.empty(2, 3, 64, 64, device="meta")) == [
        ((64, 32, 32), 3_136, 0),
        ((128, 16, 16), 131_200, 0),
        ((256, 8, 8), 524_544, 0),
        ((512, 4, 4), 2_097_664, 0),
        ((1, 1, 1), 8_193, 0),
    ]
    assert (parameters(network), running_statistics(network)) == (2_764_737, 0)
    assert [layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)] == [0.3] * 3


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_size(size: int, channels: int) -> None:
    generator = meta(Generator, image_size=size, channels=channels, latent_dim=5, width=2)
    images = generator(torch.empty(3, 5, device="meta"))
    assert images.shape == (3, channels, size, size)
    for network in (Discriminator, PenalizedDiscriminator):
        assert meta(network, image_size=size, channels=channels, width=2)(images).shape == (3,)


def test_a_stage_of_full_size_is_the_one_next_to_the_image() -> None:
    options = {"image_size": 32, "channels": 1, "width": 2, "kernel_size": 3, "full_size_stage": True}
    generator = meta(Generator, latent_dim=4, **options)
    latents = torch.empty(5, 4, device="meta")
    hidden = [shape for shape, *_ in stages(generator, latents)]
    assert hidden[-2:] == [(2, 32, 32), (1, 32, 32)]
    for network in (Discriminator, PenalizedDiscriminator):
        found = [shape for shape, *_ in stages(meta(network, **options), generator(latents))]
        assert found[0] == (2, 32, 32)
        assert found[-2:] == [(16, 4, 4), (1, 1, 1)]
    with pytest.raises(ValueError, match="stride 1 needs an odd kernel_size"):
        meta(Generator, latent_dim=4, **options | {"kernel_size": 4})


@pytest.mark.parametrize("strides", [None, [2, 2, 2], [4, 2], [1, 2, 4], [8], [2, 1, 4]])
@pytest.mark.parametrize("kernel_size", range(2, 10))
@pytest.mark.parametrize("upsampling", ["transposed", "nearest"])
def test_strides_and_kernel_sizes_lead_to_the_image_size(
    strides: list[int] | None, kernel_size: int, upsampling: str
) -> None:
    options: dict[str, object] = {"image_size": 32, "channels": 3, "width": 2, "kernel_size": kernel_size}
    given = strides or [2, 2, 2]

    def make(network: type[nn.Module], **more: object) -> nn.Module:
        return meta(network, **options, strides=strides, **more)

    if max(given) > kernel_size and upsampling == "transposed":
        for network, more in ((Generator, {"latent_dim": 4}), (Discriminator, {}), (PenalizedDiscriminator, {})):
            with pytest.raises(ValueError, match=r"is smaller than the stride|stride 1 needs an odd kernel_size"):
                make(network, **more)
        return
    if upsampling == "transposed" and 1 in given and kernel_size % 2 == 0:
        with pytest.raises(ValueError, match="stride 1 needs an odd kernel_size"):
            make(Generator, latent_dim=4)
        return
    images = make(Generator, latent_dim=4, upsampling=upsampling)(torch.empty(2, 4, device="meta"))
    assert images.shape == (2, 3, 32, 32)
    if max(given) <= kernel_size:
        for network in (Discriminator, PenalizedDiscriminator):
            layers = stages(make(network), images)
            assert layers[-2][0][1:] == (4, 4)
            assert layers[-1][0] == (1, 1, 1)


def test_widths_count_from_the_image_inwards() -> None:
    discriminator = PenalizedDiscriminator(image_size=32, channels=1, widths=[3, 5, 7])
    assert [layer.out_channels for layer in discriminator.modules() if isinstance(layer, nn.Conv2d)] == [3, 5, 7, 1]
    generator = Generator(image_size=32, channels=1, latent_dim=4, widths=[3, 5, 7])
    outputs = [layer.out_channels for layer in generator.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert outputs == [7, 5, 3, 1]
    doubled = PenalizedDiscriminator(image_size=32, channels=1, width=3)
    assert [layer.out_channels for layer in doubled.modules() if isinstance(layer, nn.Conv2d)] == [3, 6, 12, 1]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("generator.widths=[8, 8]", "generator: widths has 2 entries, the network has 3 stages"),
        ("discriminator.strides=[2, 2]", "discriminator: strides .* lead from 4 to 16, not to 32"),
        ("generator.strides=[]", "generator: strides .* lead from 4 to 4, not to 32"),
        ("discriminator.strides=[8]", "discriminator: kernel_size 4 is smaller than the stride 8"),
        ("generator={strides: [1, 2, 2, 2]}", "generator: a transposed convolution of stride 1 needs an odd"),
        pytest.param(
            f"discriminator={{width: 4096, kernel_size: 8, strides: [8{', 1' * 200}]}}",
            "discriminator: width 4096 doubled at each of 201 stages",
            id="too wide",
        ),
    ],
)
def test_options_that_do_not_fit_are_named(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_networks(load_config("quickstart", [override]), torch.device("meta"))


def test_a_penalized_discriminator_has_no_batch_statistics() -> None:
    config = load_config("wgan-gp-faces", ["discriminator={network: dcgan}"])
    networks = build_networks(config, torch.device("meta"))
    with pytest.raises(UserError, match=r"discriminator\.network=dcgan normalizes over the batch"):
        check_combination(config, networks, build_objective(config))
    config = load_config("wgan-gp-faces", ["objective.critic_steps=1", "objective.updates=simultaneous"])
    with pytest.raises(UserError, match=r"objective\.updates=simultaneous does not go with objective\.name=wgan_gp"):
        check_combination(config, build_networks(config, torch.device("meta")), build_objective(config))
    fine = load_config("wgan-gp-faces")
    check_combination(fine, build_networks(fine, torch.device("meta")), build_objective(fine))


def small(name: str, *overrides: str) -> Networks:
    widths = ["generator.width=16", "discriminator.width=16", "image_size=32"]
    return build_networks(load_config(name, [*widths, *overrides]), torch.device("cpu"))


@pytest.mark.parametrize("name", ["dcgan-bricks", "wgan-gp-faces"])
def test_initial_weights_are_the_papers(name: str) -> None:
    networks = small(name)
    for network in (networks.generator, networks.discriminator):
        weights = torch.cat([layer.weight.flatten() for layer in network.modules() if isinstance(layer, CONVOLUTIONS)])
        assert weights.std().item() == pytest.approx(0.02, rel=0.03)
        assert abs(weights.mean().item()) < 4 * 0.02 / math.sqrt(len(weights))
        for layer in network.modules():
            if isinstance(layer, CONVOLUTIONS) and layer.bias is not None:
                assert not layer.bias.any()
            if isinstance(layer, nn.BatchNorm2d):
                assert (layer.weight == 1).all()
                assert not layer.bias.any()


def test_slopes_differ_by_stage_where_they_are_given() -> None:
    discriminator = PenalizedDiscriminator(image_size=64, channels=3, width=2, slopes=[0.2, 0.3, 0.2, 0.2])
    assert [layer.negative_slope for layer in discriminator.modules() if isinstance(layer, nn.LeakyReLU)] == [
        0.2,
        0.3,
        0.2,
        0.2,
    ]
    with pytest.raises(ValueError, match="slopes has 2 entries, the network has 4 stages"):
        PenalizedDiscriminator(image_size=64, channels=3, width=2, slopes=[0.2, 0.3])


def test_glorot_weights_are_selectable() -> None:
    discriminator = PenalizedDiscriminator(image_size=32, channels=3, width=16, init="glorot")
    first = next(layer for layer in discriminator.modules() if isinstance(layer, nn.Conv2d))
    bound = math.sqrt(6 / (16 * (3 + 16)))
    assert 0.95 * bound < first.weight.abs().max().item() <= bound


def test_initial_weights_follow_the_seed_and_leave_torchs_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, same, other = small("quickstart"), small("quickstart"), small("quickstart", "seed=1")
    assert torch.equal(before, torch.get_rng_state())
    for part in ("generator", "discriminator"):
        weights = [torch.cat([p.flatten() for p in getattr(each, part).parameters()]) for each in (first, same, other)]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])


def test_images_are_in_range_and_reach_both_ends() -> None:
    generator = small("quickstart").generator
    latents = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert generator(latents).abs().max() < 1
        generator(latents * 1e3)
        for layer in generator.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.weight.mul_(100)
        images = generator(latents)
    assert images.min() < -0.99
    assert images.max() > 0.99
    assert images.abs().max() <= 1


def test_the_discriminator_mixes_no_images_of_a_batch() -> None:
    discriminator = small(
        "wgan-gp-faces", "training.precision=float64", "discriminator.dropout=0"
    ).discriminator.train()
    images = torch.randn(5, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = discriminator(images)
    changed = images.clone()
    changed[2] = -changed[2] + 1
    after = discriminator(changed)
    others = [0, 1, 3, 4]
    assert before[2] != after[2]
    torch.testing.assert_close(before[others], after[others], rtol=1e-12, atol=1e-15)


def test_the_dcgan_discriminator_does_normalize_over_the_batch() -> None:
    discriminator = small("quickstart", "discriminator.dropout=0").discriminator.train()
    images = torch.randn(5, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    before, after = discriminator(images), discriminator(torch.cat([images[:4], 3 * images[4:]]))
    assert (before[:4] != after[:4]).all()


@pytest.mark.parametrize(("activation", "slope", "expected"), [("relu", 0.2, 0.0), ("leaky_relu", 0.3, -0.3)])
def test_activations(activation: str, slope: float, expected: float) -> None:
    discriminator = PenalizedDiscriminator(image_size=16, channels=1, width=2, activation=activation, slope=slope)
    layers = [layer for layer in discriminator.modules() if isinstance(layer, nn.ReLU | nn.LeakyReLU)]
    assert len(layers) == 2
    for layer in layers:
        assert layer(torch.tensor([-1.0, 2.0])).tolist() == pytest.approx([expected, 2.0])


def test_precision_and_memory_format_reach_the_weights() -> None:
    networks = small("quickstart", "training.precision=float64", "training.channels_last=true")
    assert {p.dtype for p in networks.generator.parameters()} == {torch.float64}
    weights = [layer.weight for layer in networks.discriminator.modules() if isinstance(layer, nn.Conv2d)]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
