"""Zip and tar files of images, StyleGAN's among them, as the folder that they hold."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from distgan.data.sources import file_bytes
from distgan.data.sources.folder import FolderSource
from distgan.data.tar import each_file
from distgan.errors import UserError
from distgan.storage.storage import Storage
from packing import contents, pack_here
from parquet_files import image_file

pytestmark = pytest.mark.timeout(60)

Write = Callable[[Path, dict[str, bytes]], None]


def as_folder(path: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)


def as_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def as_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


FORMS: dict[str, Write] = {
    "folder": as_folder,
    "a.zip": as_zip,
    "a.tar": as_tar,
    "a.tar.gz": lambda path, files: as_tar(path, files, "w:gz"),
    "a.tar.xz": lambda path, files: as_tar(path, files, "w:xz"),
}


def stylegan(labels: object) -> dict[str, bytes]:
    files = {f"{number // 2:05d}/img{number:08d}.png": image_file(number) for number in range(4)}
    return files | {"dataset.json": json.dumps({"labels": labels}).encode()}


def test_headers_of_fractions_of_a_second_unpack_an_archive_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `tarfile.add` writes them. A step backwards would unpack a compressed file from its beginning again."""
    real = lzma.LZMAFile.seek

    def seek(file: lzma.LZMAFile, position: int) -> int:
        assert position >= file.tell() - 1, "tarfile reads the last byte before a header again"
        return real(file, position)

    monkeypatch.setattr(lzma.LZMAFile, "seek", seek)
    files = {f"a/{number}.png": image_file(number) for number in range(40)}
    with tarfile.open(tmp_path / "a.tar.xz", "w:xz", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), 1.5
            archive.addfile(member, io.BytesIO(data))
    found = each_file(tmp_path / "a.tar.xz", "a.tar.xz", lambda _: True, 2**20)
    assert {name: data for name, _, data in found} == files


@pytest.mark.parametrize("form", FORMS)
def test_stylegans_data_set(tmp_path: Path, form: str) -> None:
    table = [[name, number % 3] for number, name in enumerate(sorted(stylegan(None))[:4])]
    FORMS[form](tmp_path / form, stylegan(table))
    source = FolderSource(str(tmp_path / form))
    assert source.classes == ["0", "1", "2"]
    assert [source[number][1] for number in range(4)] == [0, 1, 2, 0]
    assert [int(source[number][0][0, 0, 0]) for number in range(4)] == [0, 1, 2, 3]
    assert source.left_out == {}
    (tmp_path / "none").mkdir()
    FORMS[form](tmp_path / "none" / form, stylegan(None))
    unlabeled = pickle.loads(pickle.dumps(FolderSource(str(tmp_path / "none" / form))))
    assert (unlabeled.classes, unlabeled.label(3)) == ([], -1)


def test_a_zip_in_a_bucket(tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = stylegan([[name, number] for number, name in enumerate(sorted(stylegan(None))[:4])])
    as_zip(tmp_path / "a.zip", files)
    Storage.open(bucket).upload(tmp_path / "a.zip", "a.zip")
    pack_here(FolderSource(str(tmp_path / "a.zip")), tmp_path / "disk")
    pack_here(FolderSource(f"{bucket}/a.zip"), tmp_path / "copied")
    monkeypatch.setattr(file_bytes, "_MOST_COPIED_BYTES", 100)
    pack_here(FolderSource(f"{bucket}/a.zip"), tmp_path / "by-parts")
    assert contents(tmp_path / "disk") == contents(tmp_path / "copied") == contents(tmp_path / "by-parts")


@pytest.mark.parametrize("form", ["a.zip", "a.tar.gz"])
def test_class_folders_inside_a_folder(tmp_path: Path, form: str) -> None:
    files = {f"photos/{name}": image_file(1) for name in ("cat/a.png", "cat/._a.png", "dog/b.PNG")}
    FORMS[form](tmp_path / form, {**files, "photos/notes.txt": b"x", "__MACOSX/photos/a.png": b"x"})
    source = FolderSource(str(tmp_path / form))
    assert source.classes == ["cat", "dog"]
    assert source.left_out == {".txt": 1, "hidden or system": 2}
    assert source.name(1) == f"{tmp_path}/{form}: photos/dog/b.PNG"
    assert FolderSource(str(tmp_path / form), "^.").classes == ["a", "b"]


def tar_bytes(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


NOISE = np.random.default_rng(0).bytes(3000)
WHOLE = tar_bytes({"a.png": NOISE, "b.png": NOISE, "c.png": NOISE})
MEMBER = 512 + 3072  # where the second header begins
BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a whole tar file: empty file"),
    "text": (b"hello", "not a whole tar file"),
    "a zeroed header": (WHOLE[:MEMBER] + bytes(512) + WHOLE[MEMBER + 512 :], "is no end mark, or more follows it"),
    "a flipped header": (WHOLE[: MEMBER + 3] + b"\xff" + WHOLE[MEMBER + 4 :], "is no end mark, or more follows it"),
    "cut at a member": (WHOLE[:MEMBER], "is no end mark"),
    "cut in the data": (WHOLE[: MEMBER + 900], "not a whole tar file: "),
    "cut gzip": (gzip.compress(WHOLE)[:-2000], "not a whole tar file: "),
    "two archives": (WHOLE + WHOLE, "or more follows it"),
    "a bomb": (gzip.compress(tar_bytes({"a.png": bytes(2**26 + 2**22)})), "bytes would unpack to"),
    "labels": (tar_bytes({"a.png": NOISE, "a.cls": b"1"}), "whose labels are .cls files; use --format webdataset"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_tar_file_that_is_refused(tmp_path: Path, name: str) -> None:
    data, message = BROKEN[name]
    (tmp_path / "a.tar.gz").write_bytes(data)
    with pytest.raises(UserError, match=rf"^{tmp_path}/a\.tar\.gz: .*{message}"):
        FolderSource(str(tmp_path / "a.tar.gz"))


def test_names_that_lead_elsewhere_are_only_names(tmp_path: Path) -> None:
    for form in ("a.zip", "a.tar"):
        FORMS[form](tmp_path / form, {"../../up.png": image_file(7), "/etc/x.png": image_file(8)})
        source = FolderSource(str(tmp_path / form))
        assert [int(source[number][0][0, 0, 0]) for number in range(len(source))] == [8]
        assert source.left_out == {"hidden or system": 1}
    assert not (tmp_path.parent.parent / "up.png").exists()
