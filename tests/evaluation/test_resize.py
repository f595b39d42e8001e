"""Images of other sizes than the configuration's: resized as the configuration says, or refused."""

from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import webdataset as wds
from PIL import Image

from distgan.config.schema import Resize
from distgan.data.images import encode_image
from distgan.data.index import Index
from distgan.data.pack import PackOptions, pack
from distgan.data.shard_index import index_shards
from distgan.data.verify import verify
from distgan.errors import UserError
from distgan.storage.storage import Storage
from distgan.training.data_checks import check_data
from runs import run, tiny_config
from toy_data import NumberedSource, open_stream

pytestmark = pytest.mark.timeout(60)

SIZES = [(16, 16), (40, 16), (16, 33), (64, 64), (8, 8), (100, 75)]


def packed(folder: Path, size: int) -> Storage:
    """60 images of 64x64, packed at another size or as they are."""
    storage = Storage.open(str(folder))
    pack(NumberedSource(60, 64), storage, PackOptions(size, 1, processes=1))
    return storage


def first_batch(storage: Storage, size: Literal[32, 64], resize: Resize = "none") -> torch.Tensor:
    with closing(open_stream(storage, image_size=size, resize=resize)) as stream:
        return torch.cat([group.images for group in stream.next()])


@pytest.fixture
def foreign(tmp_path: Path) -> Storage:
    """Shards of gray and color images of several sizes, that name their left half's shade as their class."""
    with wds.TarWriter(str(tmp_path / "a.tar")) as writer:
        for number in range(30):
            width, height = SIZES[number % len(SIZES)]
            pixels = np.full((height, width, 3), 8 * number, np.uint8)
            pixels[:, width // 2 :] = 255
            content = encode_image(pixels if number % 2 else pixels[:, :, :1], "png")
            writer.write({"__key__": f"{number:04d}", "png": content, "cls": number})
    storage = Storage.open(str(tmp_path))
    index_shards(storage)
    return storage


def test_bilinear_is_what_pack_does(tmp_path: Path) -> None:
    small, large = packed(tmp_path / "small", 32), packed(tmp_path / "large", 64)
    assert torch.equal(first_batch(large, 32, "bilinear"), first_batch(small, 32))


def test_each_way_to_resize_is_its_own(tmp_path: Path) -> None:
    large = packed(tmp_path, 64)
    ways: list[Resize] = ["bilinear", "bicubic", "lanczos"]
    batches = [first_batch(large, 32, way).float() for way in ways]
    whole = first_batch(large, 64).float()
    for number, batch in enumerate(batches):
        assert batch.shape == (16, 1, 32, 32)
        assert not any(torch.equal(batch, other) for other in batches[:number])
        assert batch.mean() == pytest.approx(whole.mean(), abs=1)
    assert torch.equal(first_batch(large, 64, "lanczos"), first_batch(large, 64))


def test_foreign_images_of_several_sizes(foreign: Storage) -> None:
    assert Index.load(foreign).header.image_size is None
    assert verify(foreign) == []
    with closing(open_stream(foreign, image_size=32, resize="bilinear", streams=4, batch_size=32)) as stream:
        for group in stream.next():
            assert group.images.shape == (16, 3, 32, 32)
            assert group.images[:, :, 16, 4].float().mean(1).tolist() == [8 * label for label in group.labels.tolist()]
            assert (group.images[:, :, 16, 28] == 255).all()


def test_images_that_are_all_oblong_have_no_size(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("L", (16, 8)).save(buffer, "PNG")
    with wds.TarWriter(str(tmp_path / "a.tar")) as writer:
        writer.write({"__key__": "0", "png": buffer.getvalue()})
    assert index_shards(Storage.open(str(tmp_path))).header.image_size is None


def test_without_resize_another_size_is_refused(tmp_path: Path, foreign: Storage) -> None:
    large = packed(tmp_path / "large", 64)
    cases = {
        large.url: (
            1,
            r"image_size=16, but .* have 64: set image_size=64 or data\.resize=bilinear, or pack .*--size 16",
        ),
        foreign.url: (3, r"image_size=16, but .* have several sizes: set data\.resize=bilinear, or pack"),
    }
    for url, (channels, message) in cases.items():
        index = Index.load(Storage.open(url))
        with pytest.raises(UserError, match=message):
            check_data(tiny_config("quickstart", url, 1, f"channels={channels}"), index)
        check_data(tiny_config("quickstart", url, 1, f"channels={channels}", "data.resize=lanczos"), index)


def test_a_run_on_images_of_several_sizes(tmp_path: Path, foreign: Storage) -> None:
    keys = ["channels=3", "data.resize=bilinear", "evaluation.real_samples=null", "evaluation.samples=4"]
    summary, _ = run(tiny_config("quickstart", foreign.url, 2, *keys), str(tmp_path / "runs"))
    assert (summary.reason, summary.steps) == ("budget", 2)
    assert summary.latest is not None
