"""The residual networks of SNGAN and SAGAN: the papers' shapes, and their layers against literal formulas."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from distgan.config.load import build_config, load_config
from distgan.config.schema import Config
from distgan.errors import UserError
from distgan.models import sagan_resnet, sngan
from distgan.models.attention import SelfAttention2d
from distgan.models.layers import ConditionalBatchNorm2d
from distgan.models.residual import DiscriminatorBlock, GeneratorBlock
from distgan.training.manifest import Manifest
from distgan.training.networks import build_networks
from distgan.training.progress import Progress
from distgan.training.state import check_resumable
from layer_table import layer_table, meta, parameters, running_statistics

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]

LATENTS = torch.empty(2, 128, device="meta")
WIDTHS = ["generator.width=64", "discriminator.width=64"]
LABELS = torch.zeros(2, dtype=torch.int64, device="meta")
# Output channels and pixels of the blocks: Miyato et al. tables 4 and 6, and the authors' codes.
GENERATOR_BLOCKS = {
    32: [(256, 8), (256, 16), (256, 32)],
    64: [(512, 8), (256, 16), (128, 32), (64, 64)],
    128: [(1024, 8), (512, 16), (256, 32), (128, 64), (64, 128)],
}
DISCRIMINATOR_BLOCKS = {
    (32, sngan): [(128, 16), (128, 8), (128, 8), (128, 8)],
    (64, sngan): [(64, 32), (128, 16), (256, 8), (512, 4), (1024, 2)],
    (64, sagan_resnet): [(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)],
    (128, sngan): [(64, 64), (128, 32), (256, 16), (512, 8), (1024, 4), (1024, 4)],
}


def blocks(network: nn.Module, *inputs: Tensor) -> list[tuple[int, int]]:
    found = []
    for layer in network.modules():
        if isinstance(layer, GeneratorBlock | DiscriminatorBlock):
            layer.register_forward_hook(lambda _, __, output: found.append((output.shape[1], output.shape[2])))
    network(*inputs)
    return found


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("module", [sngan, sagan_resnet])
@pytest.mark.parametrize("num_classes", [None, 10])
def test_blocks_are_the_papers(size: int, module: object, num_classes: int | None) -> None:
    labels = () if num_classes is None else (LABELS,)
    context = {"image_size": size, "channels": 3, "num_classes": num_classes}
    generator = meta(module.Generator, latent_dim=128, **context)
    assert blocks(generator, LATENTS, *labels) == GENERATOR_BLOCKS[size]
    images = generator(LATENTS, *labels)
    assert images.shape == (2, 3, size, size)
    discriminator = meta(module.Discriminator, **context)
    wanted = DISCRIMINATOR_BLOCKS.get((size, module), DISCRIMINATOR_BLOCKS[size, sngan])
    assert blocks(discriminator, images, *labels) == wanted
    assert discriminator(images, *labels).shape == (2,)


# Parameters of both networks without labels and attention, by image size: those of Miyato et al.'s code, and of SAGAN's
# form, in which the first convolution of a discriminator's block has the block's outputs already.
COUNTS = {
    (64, "sngan"): (12_220_675, 10_141_441),
    (64, "sagan"): (8_541_443, 9_578_689),
    (128, "sngan"): (32_150_787, 29_017_857),
    (128, "sagan"): (32_150_787, 38_419_137),
}


@pytest.mark.parametrize(("size", "form"), COUNTS)
def test_sizes_above_32_are_the_authors(size: int, form: str) -> None:
    """At 64 pixels SNGAN's generator goes from 1,024 channels to 64, and its discriminator halves in five blocks."""
    context = {"image_size": size, "channels": 3}
    chosen = {} if form == "sngan" else {"form": form}
    generator = meta(sngan.Generator, latent_dim=128, **context, **chosen)
    discriminator = meta(sngan.Discriminator, **context, **chosen)
    assert (parameters(generator), parameters(discriminator)) == COUNTS[size, form]
    if form == "sagan":
        attentive = meta(sagan_resnet.Discriminator, **context, attention="none")
        assert parameters(attentive) == COUNTS[size, form][1]


@pytest.mark.parametrize("part", ["Generator", "Discriminator"])
def test_first_weights_are_the_authors(part: str) -> None:
    """Glorot-uniform with a gain of √2 in the 3x3 convolutions of residual blocks and 1 elsewhere, biases 0."""
    torch.manual_seed(0)
    more = {"latent_dim": 128} if part == "Generator" else {"spectral_norm": False}
    options = {"image_size": 32, "channels": 3, "width": 64, **more}
    network = getattr(sngan, part)(**options)
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    residual = {
        id(layer)
        for block in network.modules()
        if isinstance(block, GeneratorBlock | DiscriminatorBlock)
        for layer in (block.conv1, block.conv2)
    }
    assert 0 < len(residual) < len(convolutions)
    for layer in convolutions:
        weight = layer.weight.detach()
        fan = weight[0][0].numel() * (weight.shape[0] + weight.shape[1])
        gain = math.sqrt(2) if id(layer) in residual else 1
        most = gain * math.sqrt(6 / fan)
        assert most * 0.9 < float(weight.abs().max()) <= most * (1 + 1e-6)
        if weight.numel() > 5000:
            assert float(weight.std()) == pytest.approx(gain * math.sqrt(2 / fan), rel=0.03)
        assert not layer.bias.any()
    normal = getattr(sngan, part)(**options, init="normal").blocks[0].conv2.weight.detach()
    assert float(normal.std()) == pytest.approx(0.02, rel=0.03)
    # SAGAN's code has a gain of 1 everywhere.
    without = {**options, "attention": "none", "spectral_norm": False}
    for module, chosen in ((sngan, {"residual_gain": 1.0}), (sagan_resnet, without)):
        torch.manual_seed(0)
        other = getattr(module, part)(**{**options, **chosen})
        torch.testing.assert_close(other.blocks[0].conv2.weight * math.sqrt(2), network.blocks[0].conv2.weight)


def test_checkpoints_from_before_the_forms_are_built_as_they_were() -> None:
    """`form` and `residual_gain` are younger: without them a network is of SAGAN's form where that is another."""

    def manifest(size: int) -> tuple[Manifest, Config]:
        config = load_config("sngan-cifar", [f"image_size={size}", *WIDTHS])
        tree = config.model_dump(mode="json")
        for section in ("generator", "discriminator"):
            del tree[section]["form"], tree[section]["residual_gain"]
        progress = Progress().as_dict()
        facts = {"name": "step-0", "step": 0, "kimg": 0, "data_hash": "", "workers": 1, "threads": 1}
        return Manifest(distgan="0.1.0", config=tree, progress=progress, **facts), config

    small, config = manifest(32)
    check_resumable(small, config, "", "runs/old")
    large, config = manifest(64)
    networks = build_networks(build_config(large.config, "manifest.json"), torch.device("meta"))
    assert (parameters(networks.generator), parameters(networks.discriminator)) == COUNTS[64, "sagan"]
    with pytest.raises(
        UserError, match=r"discriminator\.form was sagan and is sngan; generator\.form was .*set them back"
    ):
        check_resumable(large, config, "", "runs/old")
    as_before = ["image_size=64", "generator.form=sagan", "discriminator.form=sagan", *WIDTHS]
    check_resumable(large, load_config("sngan-cifar", as_before), "", "runs/old")
    former, _ = manifest(128)
    assert "form" not in former.config["generator"]  # both forms have it
    assert former.config["discriminator"]["form"] == "sagan"


def test_generator_for_cifar_is_the_papers() -> None:
    network = meta(sngan.Generator, image_size=32, channels=3, latent_dim=128)
    block = [512, 590_080, 65_792, 512, 590_080]
    table = layer_table(network, LATENTS)
    assert sorted(count for _, count in table) == sorted(
        [528_384, *[count * 2 if count == 512 else count for count in block * 3], 1_024, 6_915]
    )
    assert (parameters(network), running_statistics(network)) == (4_276_739, 7 * 512)
    # A conditional normalization has a scale and shift a class, and the last one is none.
    conditional = meta(sngan.Generator, image_size=32, channels=3, latent_dim=128, num_classes=10)
    assert parameters(conditional) == 4_276_739 + 6 * 9 * 512


def test_discriminator_for_cifar_is_the_papers() -> None:
    network = meta(sngan.Discriminator, image_size=32, channels=3)
    table = layer_table(network, torch.empty(2, 3, 32, 32, device="meta"))
    wanted = [3_584, 147_584, 512, *[147_584] * 2, 16_512, *[147_584] * 4, 129]
    assert sorted(count for _, count in table) == sorted(wanted)
    assert parameters(network) == 1_053_825
    conditional = meta(sngan.Discriminator, image_size=32, channels=3, num_classes=10)
    assert parameters(conditional) == 1_053_825 + 10 * 128


@pytest.mark.parametrize("size", [32, 64, 128])
def test_sngan_is_sagan_without_attention(size: int) -> None:
    context = {"image_size": size, "channels": 3, "num_classes": 10}
    for part, more in (("Generator", {"latent_dim": 128, "spectral_norm": False}), ("Discriminator", {})):
        plain = meta(getattr(sngan, part), **context, **more, form="sagan")
        attentive = meta(getattr(sagan_resnet, part), **context, **more)
        without = meta(getattr(sagan_resnet, part), **context, **more, attention="none")
        shapes = {name: tensor.shape for name, tensor in plain.state_dict().items()}
        assert {name: tensor.shape for name, tensor in without.state_dict().items()} == shapes
        extra = {name for name in attentive.state_dict() if name not in shapes}
        assert extra
        assert all(name.startswith("attention.") for name in extra)


def test_attention_is_where_the_papers_have_it() -> None:
    context = {"image_size": 128, "channels": 3}
    for network, inputs, channels in (
        (meta(sagan_resnet.Generator, latent_dim=128, **context), LATENTS, 256),
        (meta(sagan_resnet.Discriminator, **context), torch.empty(2, 3, 128, 128, device="meta"), 128),
    ):
        (attention,) = (layer for layer in network.modules() if isinstance(layer, SelfAttention2d))
        seen = []
        attention.register_forward_hook(lambda _, __, output, seen=seen: seen.append(tuple(output.shape[1:])))
        network(inputs)
        assert seen == [(channels, 32, 32)]


def test_what_is_normalized_spectrally() -> None:
    context = {"image_size": 32, "channels": 3, "num_classes": 10}
    kinds = (nn.Conv2d, nn.Linear, nn.Embedding)
    for network, normalized in (
        (meta(sngan.Generator, latent_dim=8, **context), False),
        (meta(sngan.Discriminator, **context), True),
        (meta(sagan_resnet.Generator, latent_dim=8, **context), True),
        (meta(sagan_resnet.Discriminator, **context), True),
    ):
        layers = [layer for layer in network.modules() if isinstance(layer, kinds)]
        assert len(layers) >= 11
        assert {is_parametrized(layer, "weight") for layer in layers} == {normalized}


def test_conditional_batch_norm_is_the_formula() -> None:
    torch.manual_seed(0)
    layer = ConditionalBatchNorm2d(3, 4, eps=1e-3, momentum=0.1).double()
    x, labels = torch.randn(5, 3, 2, 2, dtype=torch.float64) * 3 + 1, torch.tensor([0, 3, 1, 3, 0])
    plain = F.batch_norm(x, None, None, training=True, eps=1e-3)
    torch.testing.assert_close(layer(x, labels), plain, rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        layer.scale.normal_()
        layer.shift.normal_()
    wanted = torch.empty_like(x)
    for channel in range(3):
        values = x[:, channel]
        mean, variance = values.mean(), values.var(correction=0)
        for image, label in enumerate(labels.tolist()):
            normalized = (values[image] - mean) / (variance + 1e-3).sqrt()
            wanted[image, channel] = layer.scale[label, channel] * normalized + layer.shift[label, channel]
    torch.testing.assert_close(layer(x, labels), wanted, rtol=1e-12, atol=1e-12)
    layer(x, labels).square().sum().backward()
    assert layer.scale.grad is not None
    assert (layer.scale.grad.abs().sum(1) > 0).tolist() == [True, True, False, True]


def test_projection_is_the_formula() -> None:
    """D(x, y) = D(x) + e_yᵀ φ(x), Miyato & Koyama 2018, equation 3."""
    torch.manual_seed(0)
    conditional = sngan.Discriminator(image_size=32, channels=1, num_classes=5, width=4, spectral_norm=False).double()
    unconditional = copy.deepcopy(conditional)
    unconditional.projection = None
    features = []
    unconditional.dense.register_forward_hook(lambda _, given, __: features.append(given[0]))
    images, labels = torch.randn(3, 1, 32, 32, dtype=torch.float64), torch.tensor([4, 0, 4])
    without = unconditional(images)
    assert conditional.projection is not None
    projected = torch.einsum("nc,nc->n", conditional.projection.weight[labels], features[0])
    torch.testing.assert_close(conditional(images, labels), without + projected, rtol=1e-12, atol=1e-12)
    assert projected.abs().min() > 0


def test_mean_pooling_is_the_sum_over_its_places() -> None:
    torch.manual_seed(0)
    options = {"image_size": 32, "channels": 3, "width": 8, "spectral_norm": False}
    images = torch.randn(4, 3, 32, 32)
    summing = sngan.Discriminator(**options)
    averaging = sngan.Discriminator(**options, pooling="mean")
    averaging.load_state_dict(summing.state_dict())
    summing.dense.weight.data /= 64
    torch.testing.assert_close(averaging(images), summing(images))


def test_blocks_are_the_formula() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    block = GeneratorBlock(3, 5, nn.BatchNorm2d).double()
    h = F.interpolate(F.relu(F.batch_norm(x, None, None, training=True)), scale_factor=2)
    h = F.conv2d(h, block.conv1.weight, block.conv1.bias, padding=1)
    h = F.relu(F.batch_norm(h, None, None, training=True))
    h = F.conv2d(h, block.conv2.weight, block.conv2.bias, padding=1)
    beside = F.conv2d(F.interpolate(x, scale_factor=2), block.shortcut.weight, block.shortcut.bias)
    torch.testing.assert_close(block(x), h + beside, rtol=1e-12, atol=1e-12)
    for first, outputs, downsample in ((True, 5, True), (False, 5, True), (False, 5, False), (False, 3, False)):
        half = DiscriminatorBlock(3, 4, outputs, downsample=downsample, first=first).double()
        h = F.conv2d(x if first else F.relu(x), half.conv1.weight, half.conv1.bias, padding=1)
        h = F.conv2d(F.relu(h), half.conv2.weight, half.conv2.bias, padding=1)
        beside = x
        if isinstance(half.shortcut, nn.Conv2d):
            beside = F.conv2d(x, half.shortcut.weight, half.shortcut.bias)
        assert isinstance(half.shortcut, nn.Conv2d) == (outputs == 5)
        both = F.avg_pool2d(h + beside, 2) if downsample else h + beside
        torch.testing.assert_close(half(x), both, rtol=1e-12, atol=1e-12)


def test_widths_count_from_the_image_inwards() -> None:
    network = meta(sngan.Generator, image_size=32, channels=3, latent_dim=128, widths=[8, 16, 24, 32])
    assert blocks(network, LATENTS) == [(24, 8), (16, 16), (8, 32)]
    assert parameters(network.dense) == 128 * 512 + 512
    with pytest.raises(ValueError, match="widths has 3 entries, the network has 4 stages"):
        meta(sngan.Discriminator, image_size=32, channels=3, widths=[8, 16, 24])


@pytest.mark.parametrize("part", ["Generator", "Discriminator"])
def test_sizes_without_a_residual_network_are_refused(part: str) -> None:
    more = {"latent_dim": 8} if part == "Generator" else {}
    with pytest.raises(ValueError, match="image_size=16: residual networks are made for images of 32, 64 and 128"):
        meta(getattr(sngan, part), image_size=16, channels=3, **more)
