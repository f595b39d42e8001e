"""The vision transformer and its extractor: formulas written out, sizes and names of the published weights."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from distgan.errors import UserError
from distgan.evaluation.extractors import dinov2
from distgan.evaluation.extractors.dinov2 import Dinov2Features, Dinov2FeaturesB14, Dinov2FeaturesS14
from distgan.evaluation.extractors.vision_transformer import VisionTransformer

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]


def network(width: int = 8, depth: int = 2, heads: int = 2) -> VisionTransformer:
    """Of random weights, every one of them felt in the features."""
    built = VisionTransformer(width, depth, heads).requires_grad_(False).eval()
    random = torch.Generator().manual_seed(0)
    for parameter in built.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.5)
    return built


class Tiny(Dinov2Features):
    dimension, depth, heads = 8, 2, 2


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.pth"
    torch.save(network().state_dict(), path)
    return path


def literal(weights: dict[str, Tensor], images: Tensor, heads: int, depth: int) -> Tensor:
    """Features by the papers' formulas, from a state dict, one image, patch and head at a time."""

    def normalized(x: Tensor, name: str) -> Tensor:
        deviation = (x.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
        return (x - x.mean(-1, keepdim=True)) / deviation * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    found = []
    for image in images:
        kernel = weights["patch_embed.proj.weight"].flatten(1)
        rows, columns = image.shape[1] // 14, image.shape[2] // 14
        patches = [
            kernel @ image[:, 14 * r : 14 * r + 14, 14 * c : 14 * c + 14].flatten() + weights["patch_embed.proj.bias"]
            for r in range(rows)
            for c in range(columns)
        ]
        grid = weights["pos_embed"][0, 1:].reshape(37, 37, -1).permute(2, 0, 1)[None]
        scale = ((rows + 0.1) / 37, (columns + 0.1) / 37)
        places = F.interpolate(grid, scale_factor=scale, mode="bicubic")[0].flatten(1).T
        x = torch.cat([weights["cls_token"][0] + weights["pos_embed"][0, :1], torch.stack(patches) + places])
        for block in (f"blocks.{number}" for number in range(depth)):
            query, key, value = linear(normalized(x, f"{block}.norm1"), f"{block}.attn.qkv").chunk(3, dim=1)
            mixed = [
                (q @ k.T / math.sqrt(q.shape[1])).softmax(1) @ v
                for q, k, v in zip(query.chunk(heads, 1), key.chunk(heads, 1), value.chunk(heads, 1), strict=True)
            ]
            x = x + weights[f"{block}.ls1.gamma"] * linear(torch.cat(mixed, 1), f"{block}.attn.proj")
            hidden = linear(normalized(x, f"{block}.norm2"), f"{block}.mlp.fc1")
            hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
            x = x + weights[f"{block}.ls2.gamma"] * linear(hidden, f"{block}.mlp.fc2")
        found.append(normalized(x[0], "norm"))
    return torch.stack(found)


def test_the_network_is_its_formulas() -> None:
    built = network().double()
    images = torch.randn(2, 3, 28, 42, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(built(images), literal(built.state_dict(), images, heads=2, depth=2))


def test_positions_of_the_trained_grid_are_not_interpolated() -> None:
    built = network()
    assert torch.equal(built.positions(37, 37), built.pos_embed)
    assert built.positions(16, 16).shape == (1, 257, 8)


@pytest.mark.parametrize(
    ("extractor", "millions"), [(Dinov2FeaturesS14, 22.1), (Dinov2FeaturesB14, 86.6), (Dinov2Features, 304.4)]
)
def test_published_sizes_and_names(extractor: type[Dinov2Features], millions: float) -> None:
    """Parameters as the model card counts them, by the names of its state dicts."""
    with torch.device("meta"):
        built = VisionTransformer(extractor.dimension, extractor.depth, extractor.heads)
    assert sum(parameter.numel() for parameter in built.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    names = {
        "cls_token",
        "pos_embed",
        "mask_token",
        *(f"{layer}.{kind}" for layer in ("patch_embed.proj", "norm") for kind in ("weight", "bias")),
        *(
            f"blocks.{number}.{layer}.{kind}"
            for number in range(extractor.depth)
            for layer in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
            for kind in ("weight", "bias")
        ),
        *(f"blocks.{number}.{scale}.gamma" for number in range(extractor.depth) for scale in ("ls1", "ls2")),
    }
    assert set(built.state_dict()) == names


@pytest.mark.parametrize("shape", [(64, 64, 3), (256, 256, 3)])
def test_preprocessing_is_pillows_resize_and_imagenets_normalization(shape: tuple[int, ...], weights: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    pixels = np.asarray(Image.fromarray(values).resize((224, 224), Image.Resampling.BICUBIC))
    mean, deviation = (np.array(of) for of in (dinov2.MEAN, dinov2.DEVIATION))
    expected = ((pixels / 255 - mean) / deviation).transpose(2, 0, 1)
    found = Tiny("cpu", weights).preprocess(torch.from_numpy(values).permute(2, 0, 1)[None])[0].numpy()
    assert np.abs(found - expected).max() < 2.01 / 255 / min(dinov2.DEVIATION)  # two gray levels
    assert np.mean(np.abs(found - expected) > 1e-5) < 0.01


def test_features_of_gray_images_and_of_any_batch(weights: Path) -> None:
    extractor = Tiny("cpu", weights)
    extractor.batch = 2
    gray = torch.randint(0, 256, (3, 1, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = extractor(gray.expand(-1, 3, -1, -1))
    assert (features.shape, features.dtype) == ((3, 8), torch.float32)
    torch.testing.assert_close(extractor(gray[1:2]), features[1:2], rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="channels"):
        extractor(torch.zeros(1, 4, 32, 32, dtype=torch.uint8))


def test_other_weights_are_refused(tmp_path: Path, weights: Path) -> None:
    """Also those with register tokens, and the same with other sizes."""
    registers = tmp_path / "registers.pth"
    torch.save({**torch.load(weights, weights_only=True), "register_tokens": torch.zeros(1, 4, 8)}, registers)
    for extractor, path in ((Tiny, registers), (Dinov2FeaturesS14, weights)):
        with pytest.raises(UserError, match=r"not the weights of fd_dinov2.*; give dinov2_vit[ls]14_pretrain\.pth$"):
            extractor("cpu", path)
