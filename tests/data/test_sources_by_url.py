"""Every format at a URL has what the same files have on the disk; what cannot be read there is one line."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import Cli, one_line
from dataset_hub import dataset_hub
from distgan.data.sources import file_bytes
from distgan.data.sources.base import Source, open_source
from distgan.errors import UserError
from distgan.storage.storage import Storage
from miniatures import attribute_text, celeba_folder, cifar_archive, cifar_folder, write_faces, zip_faces
from packing import gray, write_foreign
from parquet_files import image_file
from served import JsonHandler, served
from web_files import web_server

pytestmark = pytest.mark.timeout(60)


def idx_files(root: Path) -> None:
    images = np.arange(6 * 4 * 4, dtype=np.uint8).reshape(6, 4, 4)
    for name, array in (("images-idx3", images), ("labels-idx1", images[:, 0, 0] % 3)):
        head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
        (root / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))


def npz_file(root: Path) -> None:
    np.savez(root / "a.npz", images=np.arange(64, dtype=np.uint8).reshape(4, 4, 4), labels=np.arange(4))


def faces(root: Path) -> None:
    write_faces(root / "Img" / "img_align_celeba")
    (root / "Anno").mkdir()
    (root / "Anno" / "list_attr_celeba.txt").write_text(attribute_text())


def zipped_faces(root: Path) -> None:
    zip_faces(root / "img_align_celeba.zip")
    (root / "list_attr_celeba.txt").write_text(attribute_text())


def archive(root: Path) -> None:
    with tarfile.open(root / "photos.tgz", "w:gz") as opened:
        for number, name in enumerate(["photos/cat/a.png", "./photos/dog/b.png", "photos/.hidden/c.png"]):
            data = image_file(number)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            opened.addfile(member, io.BytesIO(data))


def packed_shards(root: Path) -> None:
    for number in range(2):
        write_foreign(root / "a.tar", [{"jpg": gray(50 * number + each), "cls": each} for each in range(3)])
        (root / f"a-{number}.tar.gz").write_bytes(gzip.compress((root / "a.tar").read_bytes()))
    (root / "a.tar").unlink()


LABEL = {"label": ["Male"]}

# The format, what makes its files, the path in their folder, options.
FORMS: dict[str, tuple[str, Callable[[Path], object], str, dict[str, Any]]] = {
    "CelebA's folder": ("celeba", faces, "", LABEL),
    "CelebA, unpacked": ("celeba", celeba_folder, "img_align_celeba", LABEL),
    "CelebA's folder with a zip": ("celeba", zipped_faces, "", LABEL),
    "CelebA's zip": ("celeba", zipped_faces, "img_align_celeba.zip", LABEL),
    "CIFAR's archive": ("cifar", lambda root: cifar_archive(root / "cifar.tar.gz"), "cifar.tar.gz", {"split": "all"}),
    "CIFAR's parent": ("cifar", lambda root: cifar_folder(root, "cifar-100-binary"), "", {"label": ["coarse"]}),
    "CIFAR's folder": ("cifar", cifar_folder, "cifar-10-batches-py", {}),
    "IDX": ("idx", idx_files, "", {}),
    "IDX file": ("idx", idx_files, "train-images-idx3-ubyte.gz", {}),
    "NumPy": ("npz", npz_file, "a.npz", {}),
    "images in a tar": ("folder", archive, "photos.tgz", {}),
    "shards": ("webdataset", packed_shards, "", {}),
    "shards by a pattern": ("webdataset", packed_shards, "a-{0..1}.tar.gz", {}),
}


@pytest.fixture
def base(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], str]]:
    """Puts the files below `tmp_path/files` to a URL, which it returns."""
    folder = tmp_path / "files"
    folder.mkdir()

    def files() -> dict[str, Path]:
        return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}

    if request.param == "web":
        with web_server(tmp_path, lists=True) as (address, _):
            yield lambda: f"{address}/files"
        return
    if request.param == "hub":
        with dataset_hub(monkeypatch) as hub:

            def into_the_hub() -> str:
                hub.files["me/files"] = {name: path.read_bytes() for name, path in files().items()}
                return "hf://datasets/me/files"

            yield into_the_hub
        return
    bucket = request.getfixturevalue("bucket")

    def into_the_bucket() -> str:
        for name, path in files().items():
            Storage.open(f"{bucket}/files").upload(path, name)
        return f"{bucket}/files"

    yield into_the_bucket


def everything(source: Source) -> list[Any]:
    samples = [source[number] for number in range(len(source))]
    found = [(pixels.shape, hashlib.sha256(pixels.tobytes()).digest(), label) for pixels, label in samples]
    return [source.classes, dict(source.left_out), found]


IN_THE_HUB = ["CelebA's folder with a zip", "CIFAR's folder", "IDX", "shards"]


@pytest.mark.parametrize(
    ("base", "form"),
    [*((place, form) for place in ("s3", "web") for form in FORMS), *(("hub", form) for form in IN_THE_HUB)],
    indirect=["base"],
)
def test_a_format_at_a_url(tmp_path: Path, form: str, base: Callable[[], str]) -> None:
    kind, make, path, options = FORMS[form]
    make(tmp_path / "files")
    url = f"{base()}/{path}".rstrip("/")
    expected = everything(open_source(kind, f"{tmp_path}/files/{path}", options))
    source = open_source(kind, url, options)
    if not url.startswith("http"):
        shutil.rmtree(tmp_path / "files")
    assert everything(source) == expected
    assert len(expected[2]) > 1
    assert everything(pickle.loads(pickle.dumps(source))) == expected, "as in another process"
    assert source.name(1).startswith(url.partition("{")[0])


def test_a_zip_that_is_too_large_to_copy_is_read_in_parts(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped_faces(tmp_path)
    expected = everything(open_source("celeba", str(tmp_path), LABEL))
    for path in tmp_path.iterdir():
        Storage.open(bucket).upload(path, path.name)
    monkeypatch.setattr(file_bytes, "_MOST_COPIED_BYTES", 100)
    monkeypatch.setattr(Storage, "download", None)
    assert everything(open_source("celeba", bucket, LABEL)) == expected
    Storage.open(bucket).write_bytes("a.zip", b"PK" + bytes(3000))
    with pytest.raises(UserError, match=rf"^{bucket}/a\.zip: not a readable zip file: .*; get it again$"):
        open_source("celeba", f"{bucket}/a.zip", {})


# The format and the path of a file that stands for it.
FILES = {
    "celeba": "a.zip", "cifar": "a.tar.gz", "idx": "a-images-idx3-ubyte", "npz": "a.npz", "folder": "a.zip",
    "webdataset": "a.tar.gz", "csv": "a.csv", "parquet": "a.parquet",
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_what_is_missing_denied_or_away(kind: str, bucket: str, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    def line(url: str) -> str:
        return one_line(cli("data", "pack", f"{url}/{FILES[kind]}", "--format", kind, "--out", "new"))

    assert line(bucket).startswith(f"{bucket}/{FILES[kind]}: not found")
    with served(Refusing) as url:
        assert line(url).startswith(f"{url}/{FILES[kind]}: access denied (HTTP 403)")
    assert line(url).startswith(f"{url}/{FILES[kind]}: ")
    assert "cannot be reached" in line(url) or "nothing answers" in line(url)


class Refusing(JsonHandler):
    def do_GET(self) -> None:
        self.answer(403)

    do_HEAD = do_GET  # noqa: N815 - a name of http.server


BOUNDS = {
    "celeba": "file_bytes._MOST_COPIED_BYTES",
    "cifar": "cifar._MOST_UNPACKED_BYTES",
    "idx": "idx.MOST_UNPACKED_BYTES",
    "npz": "npz.MOST_UNPACKED_BYTES",
    "webdataset": "webdataset._MOST_SHARD_BYTES",
}


class Endless(JsonHandler):
    """Never says how large a file is, and never ends it."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while self.command == "GET":
                self.wfile.write(bytes(2**16))
        except OSError:
            pass

    do_HEAD = do_GET  # noqa: N815 - a name of http.server


@pytest.mark.parametrize("kind", BOUNDS)
def test_a_download_is_bounded(kind: str, monkeypatch: pytest.MonkeyPatch, bucket: str) -> None:
    monkeypatch.setattr(f"distgan.data.sources.{BOUNDS[kind]}", 2**20)
    with served(Endless) as url, pytest.raises(UserError, match=rf"^{url}/.*: more than 1,048,576 bytes; give a"):
        open_source(kind, f"{url}/{FILES[kind]}", {})
    if kind != "celeba":
        Storage.open(bucket).write_bytes(FILES[kind], bytes(2**20 + 1))
        with pytest.raises(
            UserError, match=rf"^{bucket}/{FILES[kind]}: has 1,048,577 bytes; at most 1,048,576 are read; "
        ):
            open_source(kind, f"{bucket}/{FILES[kind]}", {})
