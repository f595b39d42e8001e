"""The Inception network of the published FID: its shapes, its names, its ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from distgan.errors import UserError
from distgan.evaluation.extractors.extractor import load_extractor
from distgan.evaluation.extractors.fid import InceptionFeatures, resize_as_pillow, resize_as_tensorflow
from distgan.evaluation.extractors.inception import InceptionV3, average_pool
from distgan.evaluation.extractors.published import published_weights

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("one_thread")]

# (channels, places) after each stage, as published.
STAGES = {
    "Conv2d_1a_3x3": (32, 149), "Conv2d_2a_3x3": (32, 147), "Conv2d_2b_3x3": (64, 147), "pool_1": (64, 73),
    "Conv2d_3b_1x1": (80, 73), "Conv2d_4a_3x3": (192, 71), "pool_2": (192, 35),
    "Mixed_5b": (256, 35), "Mixed_5c": (288, 35), "Mixed_5d": (288, 35),
    "Mixed_6a": (768, 17), "Mixed_6b": (768, 17), "Mixed_6c": (768, 17), "Mixed_6d": (768, 17), "Mixed_6e": (768, 17),
    "Mixed_7a": (1280, 8), "Mixed_7b": (2048, 8), "Mixed_7c": (2048, 8),
}  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict with the port's names and drawn values, under which activations keep their size."""
    torch.manual_seed(0)
    network = InceptionV3()
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.bias, std=0.1)
    path = tmp_path_factory.mktemp("weights") / "drawn.pth"
    torch.save(network.state_dict(), path)
    return path


def test_the_network_has_the_published_size_and_shapes() -> None:
    with torch.device("meta"):
        network = InceptionV3()
    assert sum(p.numel() for p in network.parameters()) == 23_850_960
    x = torch.empty(1, 3, 299, 299, device="meta")
    shapes = {}
    for name, stage in network.stages():
        x = stage(x)
        assert x.shape[2] == x.shape[3]
        shapes[name] = tuple(x.shape[1:3])
    assert shapes == STAGES


def test_the_state_dict_has_the_ports_names() -> None:
    """94 convolutions with their normalization, six tensors each, and the classifier."""
    with torch.device("meta"):
        state = InceptionV3().state_dict()
    assert len(state) == 566
    for name, shape in {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Mixed_5b.branch5x5_2.bn.running_var": (64,),
        "Mixed_6a.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
        "Mixed_6c.branch7x7dbl_5.conv.weight": (192, 160, 1, 7),
        "Mixed_7a.branch7x7x3_3.conv.weight": (192, 192, 7, 1),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "Mixed_7c.branch_pool.bn.num_batches_tracked": (),
        "fc.weight": (1008, 2048),
        "fc.bias": (1008,),
    }.items():
        assert tuple(state[name].shape) == shape


def test_average_pools_leave_their_padding_out() -> None:
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    pooled = average_pool(x)
    torch.testing.assert_close(pooled[:, :, 0, 0], x[:, :, :2, :2].mean((2, 3)))
    torch.testing.assert_close(pooled[:, :, 0, 2], x[:, :, :2, 1:4].mean((2, 3)))
    torch.testing.assert_close(pooled[:, :, 2, 2], x[:, :, 1:4, 1:4].mean((2, 3)))


def test_the_last_block_alone_pools_by_maximum() -> None:
    with torch.device("meta"):
        network = InceptionV3()
    x = torch.randn(1, 4, 8, 8)
    torch.testing.assert_close(network.Mixed_7b.pool(x), average_pool(x))
    torch.testing.assert_close(network.Mixed_7c.pool(x), F.max_pool2d(x, 3, 1, 1))


@pytest.mark.parametrize("shape", [(32, 32), (300, 299), (5, 64)])
def test_tensorflows_resize_literally(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    height, width = shape
    image = torch.rand(1, 2, height, width) * 255
    found = resize_as_tensorflow(image, 7)[0].double()
    for row in range(7):
        for column in range(7):
            y, x = row * height / 7, column * width / 7
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            above = image[0, :, top, left] * (1 - (x - left)) + image[0, :, top, right] * (x - left)
            below = image[0, :, bottom, left] * (1 - (x - left)) + image[0, :, bottom, right] * (x - left)
            wanted = above * (1 - (y - top)) + below * (y - top)
            torch.testing.assert_close(found[:, row, column], wanted.double(), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("size", [32, 299, 512])
def test_pillows_resize_is_clean_fids(size: int) -> None:
    """Pillow's bicubic of each channel as floats, and what overshoots clamped to gray levels."""
    values = np.random.default_rng(0).integers(0, 256, (3, size, size)).astype(np.float32)
    resized = [np.asarray(Image.fromarray(each).resize((299, 299), Image.Resampling.BICUBIC)) for each in values]
    found = resize_as_pillow(torch.from_numpy(values)[None], 299)[0].numpy()
    np.testing.assert_allclose(found, np.stack(resized).clip(0, 255), atol=5e-3, rtol=0)
    assert size != 32 or np.stack(resized).max() > 260


def literal_features(weights: Path, pixels: Tensor) -> Tensor:
    network = InceptionV3().eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    with torch.inference_mode():
        return network.pooled_features((pixels - 128) / 128)


def test_both_conventions_differ_in_the_resize_alone(weights: Path) -> None:
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for name, resize in (("fid", resize_as_tensorflow), ("fid_clean", resize_as_pillow)):
        extractor = load_extractor(name, "cpu", weights)
        assert (extractor.name, extractor.dimension) == (name, 2048)
        features = extractor(images)
        wanted = literal_features(weights, resize(images.float(), 299))
        torch.testing.assert_close(features, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


def test_gray_images_are_rgb_of_three_equal_channels(weights: Path) -> None:
    extractor = load_extractor("fid", "cpu", weights)
    gray = torch.randint(0, 256, (1, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(extractor(gray), extractor(gray.expand(-1, 3, -1, -1)))


def test_logits_leave_the_bias_out(weights: Path) -> None:
    extractor = InceptionFeatures("cpu", weights)
    features = torch.rand(3, 2048)
    state = torch.load(weights, weights_only=True)
    torch.testing.assert_close(extractor.logits(features), features @ state["fc.weight"].T)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(
        UserError, match=r"other\.pth: not the weights of fid: .*give pt_inception-2015-12-05"
    ) as caught:
        InceptionFeatures("cpu", path)
    assert "\n" not in str(caught.value)


def test_the_published_file_is_known_by_its_hash() -> None:
    for name in ("fid", "fid_clean"):
        published = published_weights(name)
        assert published is not None
        assert published.file.removesuffix(".pth").endswith(published.sha256[:8])
    assert published_weights("fd_lite0") is None
