"""Copies of training images are found, among all of them, by any number of workers, without holding the data."""

from __future__ import annotations

import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from distgan.config.schema import DataConfig
from distgan.data import dataset as dataset_module
from distgan.data.blocks import BlockReader
from distgan.data.dataset import Dataset
from distgan.data.index import Block, Index
from distgan.data.pack import PackOptions, pack
from distgan.data.sources.base import Source
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.evaluation.extractors.extractor import load_extractor
from distgan.evaluation.image_source import CHUNK
from distgan.inference.memorization import Nearest, Neighbors, find_nearest
from distgan.inference.nearest_picture import MOST_ROWS, draw_nearest, nearest_picture
from distgan.inference.report import nearest_lines
from distgan.storage.storage import Storage
from gloo import run_workers
from runs import ALONE, pack_bricks
from toy_data import pack_numbered

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("one_thread")]


class Levels(Source):
    """Flat gray images of few levels, so that many are equally near, and many equal."""

    count, levels = 200, 60

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        return np.full((16, 16), 4 * (number % self.levels), np.uint8), -1


class Quarters:
    """Means of an image's four quarters: features that can be checked by hand."""

    name, dimension = "quarters", 4

    def __call__(self, images: Tensor) -> Tensor:
        assert len(images) == CHUNK, "the last bits of features depend on the size of a batch"
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).mean(1).flatten(1)


def dataset_of(url: str, shape: tuple[int, int, int] = (1, 16, 16), **options: str) -> Dataset:
    storage = Storage.open(url)
    index = Index.load(storage)
    return Dataset(index, BlockReader(storage, index), shape, DataConfig.model_validate(options))


def all_images(dataset: Dataset) -> dict[int, Tensor]:
    return {number: torch.tensor(image) for number, image in dataset.images(np.arange(len(dataset.index)))}


def noisy(image: Tensor, deviation: float) -> Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)) * deviation
    return (image + noise).round().clamp(0, 255).byte()


def noise_images(count: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, 16, 16), dtype=torch.uint8, generator=random)


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of `Levels`, several blocks in several shards."""
    storage = Storage.open(str(tmp_path_factory.mktemp("levels")))
    pack(Levels(), storage, PackOptions(16, 1, processes=1, shard_bytes=60_000))
    return storage.url


def test_planted_copies_are_found(data: str) -> None:
    dataset = dataset_of(data)
    images = all_images(dataset)
    fakes = torch.cat([images[7][None], noisy(images[150], 12)[None], noise_images(1)])
    nearest = find_nearest(ALONE, dataset, load_extractor("fd_lite0"), fakes, neighbors=3)
    assert nearest.searched == 300
    assert (nearest.copies, nearest.extractor) == (1, "fd_lite0")
    for found in nearest.measures.values():
        assert found.fake.shape == found.fake_numbers.shape == (3, 3)
        assert found.fake_numbers[:2, 0].tolist() == [7, 150]
        assert found.fake[0, 0] == 0
        assert 0 < found.fake[1, 0] < found.fake[1, 1]
        assert found.fake[2, 0] > found.real.max(), "noise is farther from bricks than any brick"
    assert nearest.pixels.fake_close >= 1 / 3
    for number in np.unique(nearest.pixels.fake_numbers):
        assert torch.equal(nearest.training_images[number], images[number])


def by_hand(query: Tensor, own: int, images: dict[int, Tensor], neighbors: int) -> tuple[list[float], list[int]]:
    """Distances and numbers by pixels, one pair at a time."""
    pairs = sorted(
        (float((image.int() - query.int()).abs().double().mean()), number)
        for number, image in images.items()
        if number != own
    )
    return [distance for distance, _ in pairs[:neighbors]], [number for _, number in pairs[:neighbors]]


@pytest.mark.parametrize("which", ["bricks", "levels"])
def test_distances_are_those_of_brute_force(which: str, data: str, levels: str) -> None:
    """In `Levels` nearly all distances are shared by several images: the lowest numbers come first."""
    dataset = dataset_of(data if which == "bricks" else levels)
    images = all_images(dataset)
    fakes = torch.cat([noise_images(4), images[11][None], noisy(images[90], 3)[None]])
    nearest = find_nearest(ALONE, dataset, Quarters(), fakes, neighbors=8, seed=3)
    assert len(nearest.real) == len(fakes)
    assert sorted(set(nearest.real.tolist())) == nearest.real.tolist()
    found = nearest.pixels
    for fake, distances, numbers in zip(fakes, found.fake, found.fake_numbers, strict=True):
        assert (distances.tolist(), numbers.tolist()) == by_hand(fake, -1, images, 8)
    for own, distances, numbers in zip(nearest.real.tolist(), found.real, found.real_numbers, strict=True):
        assert (distances.tolist(), numbers.tolist()) == by_hand(images[own], own, images, 8)

    assert nearest.features is not None
    vectors = torch.stack([image.double().unfold(1, 8, 8).unfold(2, 8, 8).mean((0, 3, 4)) for image in images.values()])
    for own, distances, numbers in zip(nearest.real, nearest.features.real, nearest.features.real_numbers, strict=True):
        expected = (vectors - vectors[own]).flatten(1).norm(dim=1)
        expected[own] = torch.inf
        assert distances.tolist() == pytest.approx(expected.sort().values[:8].tolist(), abs=1e-4)
        assert expected[numbers].tolist() == pytest.approx(distances.tolist(), abs=1e-4)


def test_pixels_of_large_images_are_exact(tmp_path: Path) -> None:
    """Their differences add up to more than float32 counts."""
    dataset = dataset_of(pack_bricks(tmp_path, samples=12), (1, 512, 512), resize="bilinear")
    images = all_images(dataset)
    black = torch.zeros(1, 1, 512, 512, dtype=torch.uint8)
    nearest = find_nearest(ALONE, dataset, None, black, neighbors=11)
    found = nearest.pixels
    assert (found.fake[0].tolist(), found.fake_numbers[0].tolist()) == by_hand(black[0], -1, images, 11)
    assert found.fake[0, 0] * 512 * 512 > 2**24
    # As large as they are, beside each other: the sample and its eleven neighbors.
    assert nearest_picture(nearest).width > 12 * 512


def test_real_images_are_drawn_by_seed(levels: str) -> None:
    fakes = noise_images(10)
    one, again, other = (find_nearest(ALONE, dataset_of(levels), None, fakes, seed=seed).real for seed in (1, 1, 2))
    assert one.tolist() == again.tolist()
    assert len(set(one.tolist()) | set(other.tolist())) > 10


def test_duplicates_in_the_data_are_neighbors_and_counted(levels: str) -> None:
    """Each level but the last ones occurs four times."""
    dataset = dataset_of(levels)
    nearest = find_nearest(ALONE, dataset, None, noise_images(30), neighbors=2)
    assert (nearest.duplicates, nearest.copies) == (30, 0)
    assert (nearest.pixels.real == 0).all()
    assert not (nearest.pixels.real_numbers == nearest.real[:, None]).any()
    assert nearest.pixels.limit == 0
    assert (nearest.pixels.fake_close, nearest.pixels.real_close) == (0, 1)
    assert list(nearest.measures) == ["pixels"]


def search(distributed: Distributed, url: str, name: str) -> Nearest:
    dataset = dataset_of(url)
    images = all_images(dataset)
    fakes = torch.cat([images[0][None], noisy(images[149], 6)[None], noise_images(3)])
    extractor = load_extractor("fd_lite0") if name == "fd_lite0" else Quarters()
    return find_nearest(distributed, dataset, extractor, fakes if distributed.rank == 0 else fakes[:2].flip(1), seed=5)


@pytest.mark.parametrize("name", [pytest.param("fd_lite0", marks=pytest.mark.slow), "quarters"])
def test_any_number_of_workers_finds_the_same(name: str, levels: str, tmp_path: Path) -> None:
    """To the bit, ties included; the samples of rank 0 count."""
    url = pack_bricks(tmp_path, samples=150) if name == "fd_lite0" else levels
    (alone,) = run_workers(search, 1, url, name)
    for size in (2, 3):
        for other in run_workers(search, size, url, name):
            assert other.searched == alone.searched
            assert torch.equal(other.fakes, alone.fakes)
            assert other.training_images.keys() == alone.training_images.keys()
            for one, two in zip(other.measures.values(), alone.measures.values(), strict=True):
                for attribute, value in vars(one).items():
                    assert np.array_equal(value, vars(two)[attribute]), (size, attribute)


def test_more_workers_than_chunks(tmp_path: Path) -> None:
    url = pack_bricks(tmp_path, samples=CHUNK + 1)
    dataset = dataset_of(url)
    (last,) = dataset.images(np.array([CHUNK]))
    found = run_workers(search_last, 3, url, torch.tensor(last[1])[None])
    assert [each.pixels.fake_numbers[0, 0] for each in found] == [CHUNK] * 3
    assert [each.searched for each in found] == [CHUNK + 1] * 3


def search_last(distributed: Distributed, url: str, fakes: Tensor) -> Nearest:
    return find_nearest(distributed, dataset_of(url), None, fakes)


def test_bad_samples_are_passed_over(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real_decode = dataset_module.decode_pixels

    def partly(content: bytes, *arguments: object) -> NDArray[np.uint8]:
        if zlib.crc32(content) % 2:
            raise ValueError("not a whole PNG, JPEG or WebP image")
        return real_decode(content, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(dataset_module, "decode_pixels", partly)
    dataset = dataset_of(data, bad_samples="skip")
    images = all_images(dataset)
    assert 0 < len(images) < 300
    # More than there are: all of them stand beside the samples.
    for count, real in ((40, 40), (250, len(images))):
        nearest = find_nearest(ALONE, dataset, None, noise_images(count))
        assert (nearest.searched, len(nearest.real)) == (len(images), real)
        assert images.keys() >= set(nearest.real.tolist()) | set(nearest.pixels.real_numbers.flatten().tolist())


def test_too_few_images_are_a_users_error(tmp_path: Path) -> None:
    dataset = dataset_of(pack_bricks(tmp_path, samples=5))
    assert find_nearest(ALONE, dataset, None, noise_images(1), neighbors=4).pixels.real.shape == (1, 4)
    with pytest.raises(UserError, match=r"the data have 5 usable images: .* ask for fewer neighbors"):
        find_nearest(ALONE, dataset, None, noise_images(1), neighbors=5)


class CountingDataset(Dataset):
    """Counts how many images of each pass are alive at once."""

    most = 0

    def images(self, samples: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        alive = 0

        def gone() -> None:
            nonlocal alive
            alive -= 1

        for number, image in super().images(samples):
            alive += 1
            weakref.finalize(image, gone)
            self.most = max(self.most, alive)
            yield number, image


def test_a_pass_reads_a_block_once_and_holds_a_chunk(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    real_read = BlockReader.read

    def counted(self: BlockReader, blocks: list[Block]) -> list[bytes]:
        read.extend(block.number for block in blocks)
        return real_read(self, blocks)

    monkeypatch.setattr(BlockReader, "read", counted)
    plain = dataset_of(data)
    dataset = CountingDataset(plain.index, plain.reader, plain.shape, DataConfig())
    find_nearest(ALONE, dataset, None, noise_images(2))
    # Two of a chunk: the one that a data set has at hand, and the first of the next.
    assert CHUNK <= dataset.most <= CHUNK + 2
    # Beside the pass, the real images and the neighbors are read, two of the former and ten of the latter at most.
    assert len(read) <= len(plain.index.blocks) + 12


def test_numbers_beside_each_other() -> None:
    real = np.array([[value, 100.0] for value in range(1, 41)])
    fake = np.array([[0.0, 1.0], [1.0, 5.0], [2.0, 5.0], [2.5, 9.0], [60.0, 61.0]])
    found = Neighbors(fake, np.zeros((5, 2), np.int64), real, np.zeros((40, 2), np.int64))
    assert (found.fake_median, found.real_median) == (2, 20.5)
    assert (found.limit, found.real_close) == (2, 0.05)
    assert found.fake_close == 0.6
    few = Neighbors(fake, np.zeros((5, 2), np.int64), real[4:7], np.zeros((3, 2), np.int64))
    assert (few.limit, few.real_close) == (5, pytest.approx(1 / 3))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_picture_shows_samples_beside_their_neighbors(channels: int, tmp_path: Path) -> None:
    pack_numbered(tmp_path / "data", 100, channels=channels)
    dataset = dataset_of(str(tmp_path / "data"), (channels, 16, 16))
    images = all_images(dataset)
    fakes = torch.cat([noise_images(channels, seed=1).view(1, channels, 16, 16), images[42][None]])
    nearest = find_nearest(ALONE, dataset, Quarters(), fakes, neighbors=2)
    path = tmp_path / "nearest.png"
    draw_nearest(nearest, path)
    with Image.open(path) as opened:
        picture = np.asarray(opened.convert("RGB"))
    (first, *others), (second,) = places_of(picture, images[42]), places_of(picture, fakes[0])
    # The copy is nearer than noise, so it has the first row: the sample, the nearest by pixels, that by features.
    assert [top for top, _ in others] == [first[0], first[0]]
    assert second[0] > first[0] + 128
    assert second[1] == first[1] < others[0][1] < others[1][1]
    (row,) = (row for row in nearest.pixels.fake_numbers if row[0] != 42)
    assert (second[0], others[0][1]) in places_of(picture, images[row[0]])
    assert picture.shape[0] > second[0] + 128
    assert picture.shape[1] > others[1][1] + 2 * 128
    with pytest.raises(UserError, match=r"under-a-file\.png"):
        draw_nearest(nearest, path / "under-a-file.png")


def places_of(picture: NDArray[np.uint8], image: Tensor) -> list[tuple[int, int]]:
    """Where a noise image of 16 pixels a side is in the picture, with 8 of the picture's to one of its own."""
    grid = image.expand(3, -1, -1).permute(1, 2, 0).numpy()
    found = picture[: -15 * 8, : -15 * 8] == grid[0, 0]
    for row, column in ((0, 15), (15, 0), (15, 15), (7, 7)):
        found &= picture[row * 8 :, column * 8 :][: found.shape[0], : found.shape[1]] == grid[row, column]
    corners = [(int(top), int(left)) for top, left in np.argwhere(found.all(2))]
    return [
        (top, left)
        for top, left in corners
        if np.array_equal(picture[top : top + 128 : 8, left : left + 128 : 8], grid)
        and np.array_equal(picture[top + 7 : top + 128 : 8, left + 7 : left + 128 : 8], grid)
    ]


def test_the_words_and_rows_of_many_samples(levels: str) -> None:
    nearest = find_nearest(ALONE, dataset_of(levels), None, noise_images(MOST_ROWS + 1), neighbors=1)
    one_less = find_nearest(ALONE, dataset_of(levels), None, noise_images(MOST_ROWS), neighbors=1)
    difference = nearest_picture(nearest).height - nearest_picture(one_less).height
    assert 0 < difference < 128, "a line of words, and no row"
    first, pixels, copies = nearest_lines(nearest)
    assert first == "65 samples against 200 training images; beside them 65 real images against all others"
    assert pixels.startswith("pixels: median distance to the nearest ")
    assert pixels.endswith("(real images 0.000); 0.0% of samples within 0.000 (100.0% of real images)")
    assert copies == (
        "exact copies of a training image: 0 of 65 samples; with an exact duplicate in the data: 65 of 65 real images"
    )
