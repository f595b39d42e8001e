"""IDX files and NumPy archives as sources."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from distgan.data.sources.base import open_source
from distgan.data.sources.idx import IdxSource
from distgan.data.sources.npz import NpzSource
from distgan.errors import UserError

pytestmark = pytest.mark.timeout(60)


def idx(array: NDArray[np.uint8], kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape) + array.tobytes()


IMAGES = np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4)
LABELS = np.array([3, 1, 0, 1, 2, 4], np.uint8)


@pytest.mark.parametrize("pack_file", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_idx_files(tmp_path: Path, pack_file: Callable[[bytes], bytes]) -> None:
    suffix = ".gz" if pack_file is gzip.compress else ""
    images = tmp_path / f"train-images-idx3-ubyte{suffix}"
    images.write_bytes(pack_file(idx(IMAGES)))
    unlabeled = IdxSource(str(images))
    assert (unlabeled.classes, unlabeled[0][1]) == ([], -1)
    (tmp_path / f"train-labels-idx1-ubyte{suffix}").write_bytes(pack_file(idx(LABELS)))
    source = IdxSource(str(images))
    assert len(source) == 6
    assert [source[number][1] for number in range(6)] == LABELS.tolist()
    assert np.array_equal(source[5][0], IMAGES[5])
    assert source.classes == ["0", "1", "2", "3", "4"]


def test_a_file_url_and_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(IMAGES))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"")
    for name, path in {"idx": "train-images-idx3-ubyte", "folder": "photos"}.items():
        sizes = {len(open_source(name, f"{place}/{path}", {})) for place in (tmp_path, f"file://{tmp_path}", "~")}
        assert len(sizes) == 1


def test_a_folder_of_idx_files_is_joined_and_a_file_is_taken_once(tmp_path: Path) -> None:
    for name in ("t10k", "train"):
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(idx(IMAGES))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(IMAGES)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(LABELS))
    source = IdxSource(str(tmp_path))
    assert [source[number][1] for number in range(len(source))] == [-1] * 6 + LABELS.tolist()


IDX: dict[str, dict[str, bytes]] = {
    "nothing": {},
    "empty": {"a-images-idx3-ubyte": b""},
    "text": {"a-images-idx3-ubyte": b"hello world, no images"},
    "floats": {"a-images-idx3-ubyte": idx(IMAGES, kind=13)},
    "cut": {"a-images-idx3-ubyte": idx(IMAGES)[:-1]},
    "cut header": {"a-images-idx3-ubyte": idx(IMAGES)[:9]},
    "cut gzip": {"a-images-idx3-ubyte.gz": gzip.compress(idx(IMAGES))[:-12]},
    "wrong gzip": {"a-images-idx3-ubyte.gz": b"\x1f\x8b" + b"\0" * 30},
    "labels as images": {"a-images-idx3-ubyte": idx(LABELS)},
    "no images": {"a-images-idx3-ubyte": idx(IMAGES[:0])},
    "no pixels": {"a-images-idx3-ubyte": idx(np.zeros((5, 0, 4), np.uint8))},
    "labels too few": {"a-images-idx3-ubyte": idx(IMAGES), "a-labels-idx1-ubyte": idx(LABELS[:5])},
    "two sizes": {"a-images-idx3-ubyte": idx(IMAGES), "b-images-idx3-ubyte": idx(IMAGES.reshape(6, 2, 8))},
}


@pytest.mark.parametrize("name", IDX)
def test_a_wrong_idx_file_is_named(tmp_path: Path, name: str, same_words: Callable[..., None]) -> None:
    for file, content in IDX[name].items():
        (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError) as caught:
        IdxSource(str(tmp_path))
    assert str(caught.value).startswith(str(tmp_path))
    same_words(str(caught.value), tmp=tmp_path)


@pytest.mark.parametrize(("image_key", "label_key"), [("images", "labels"), ("x_train", "y_train"), ("arr_0", "arr_1")])
def test_npz_archives(tmp_path: Path, image_key: str, label_key: str) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, **{image_key: IMAGES[..., None], label_key: LABELS[:, None]})
    source = NpzSource(str(path))
    assert [source[number][1] for number in range(len(source))] == LABELS.tolist()
    assert np.array_equal(source[3][0], IMAGES[3, :, :, None])
    assert source.classes == ["0", "1", "2", "3", "4"]
    np.savez(path, **{image_key: IMAGES})
    assert (NpzSource(str(path)).classes, NpzSource(str(path))[0][1]) == ([], -1)


NPZ: dict[str, dict[str, Any]] = {
    "other names": {"pictures": IMAGES},
    "floats": {"images": IMAGES / 255},
    "planes first": {"images": np.zeros((2, 3, 8, 8), np.uint8)},
    "no images": {"images": IMAGES[:0]},
    "no images, no labels": {"images": IMAGES[:0], "labels": LABELS[:0]},
    "labels too few": {"images": IMAGES, "labels": LABELS[:5]},
    "one-hot labels": {"images": IMAGES, "labels": np.eye(6, dtype=int)},
    "real labels": {"images": IMAGES, "labels": LABELS / 2},
    "negative labels": {"images": IMAGES, "labels": LABELS.astype(int) - 1},
    "identities": {"images": IMAGES, "labels": LABELS.astype(int) + 10**9},
    "objects": {"images": np.array([{}], object)},
}


@pytest.mark.parametrize("name", NPZ)
def test_a_wrong_npz_archive_is_named(tmp_path: Path, name: str, same_words: Callable[..., None]) -> None:
    np.savez(tmp_path / "data.npz", **NPZ[name])
    with pytest.raises(UserError) as caught:
        NpzSource(str(tmp_path / "data.npz"))
    assert str(caught.value).startswith(f"{tmp_path}/data.npz: ")
    same_words(str(caught.value), tmp=tmp_path)


def test_files_that_are_no_npz_archive(tmp_path: Path) -> None:
    whole = io.BytesIO()
    np.savez_compressed(whole, images=IMAGES)
    array = io.BytesIO()
    np.save(array, IMAGES)
    middle = len(whole.getvalue()) // 3
    spoiled = whole.getvalue()[:middle] + b"\xff" * 30 + whole.getvalue()[middle + 30 :]
    for content in (b"", b"text", whole.getvalue()[:-30], array.getvalue(), spoiled, b"\x80\x04pickle"):
        (tmp_path / "data.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"data\.npz: not a readable \.npz archive"):
            NpzSource(str(tmp_path / "data.npz"))
    with pytest.raises(UserError, match="not a readable"):
        NpzSource(str(tmp_path / "gone.npz"))
