"""CIFAR-10 and CIFAR-100 in miniature, in all their forms."""

from __future__ import annotations

import gc
import gzip
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distgan.data.pack import PackOptions, pack
from distgan.data.sources.cifar import CifarSource
from distgan.data.sources.plain_pickle import load_plain_dict
from distgan.errors import UserError
from distgan.storage.storage import Storage
from miniatures import (
    CLASSES,
    COARSE,
    FINE,
    FORMS,
    PER_BATCH,
    TEST,
    TRAIN,
    Form,
    cifar_archive,
    cifar_files,
    cifar_folder,
    cifar_image,
    class_of,
    coarse_of,
    fine_of,
    python2_pickle,
    python_batch,
)

pytestmark = pytest.mark.timeout(60)


def check(source: CifarSource, numbers: range, label_of: Callable[[int], int]) -> None:
    assert len(source) == len(numbers)
    for place, number in enumerate(numbers):
        pixels, label = source[place]
        assert np.array_equal(pixels, cifar_image(number))
        assert label == label_of(number)


@pytest.mark.parametrize("packed", ["folder", "its parent", "archive"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form(tmp_path: Path, form: Form, packed: str) -> None:
    path = tmp_path / "cifar.tar.gz"
    if packed == "archive":
        cifar_archive(path, form)
    else:
        path = cifar_folder(tmp_path, form)
        path = path.parent if packed == "its parent" else path
    hundred = "100" in form
    train = CifarSource(str(path))
    assert train.classes == (FINE if hundred else CLASSES)
    check(train, range(TRAIN), fine_of if hundred else class_of)
    check(CifarSource(str(path), split="test"), range(TRAIN, TRAIN + TEST), fine_of if hundred else class_of)
    check(CifarSource(str(path), split="all"), range(TRAIN + TEST), fine_of if hundred else class_of)
    if hundred:
        coarse = CifarSource(str(path), ["coarse"])
        assert coarse.classes == COARSE
        check(coarse, range(TRAIN), coarse_of)
        assert CifarSource(str(path), ["fine"]).classes == FINE


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_batches_that_python_3_saved_again(tmp_path: Path, protocol: int, order: Any) -> None:
    folder = cifar_folder(tmp_path)
    batch = python_batch(range(PER_BATCH), "again", hundred=False)
    batch["data"] = np.asarray(batch["data"], order=order)
    (folder / "data_batch_1").write_bytes(pickle.dumps(batch, protocol))
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [name.encode() for name in CLASSES]}, protocol))
    check(CifarSource(str(folder)), range(TRAIN), class_of)


def test_shards_do_not_depend_on_the_form_or_the_processes(tmp_path: Path) -> None:
    cifar_archive(tmp_path / "py.tar.gz", "cifar-10-batches-py")
    cifar_folder(tmp_path, "cifar-10-batches-bin")
    made = []
    for name, processes in (("py.tar.gz", 1), ("cifar-10-batches-bin", 2)):
        source = CifarSource(str(tmp_path / name), split="all")
        out = Storage.open(str(tmp_path / f"{name}-shards"))
        made.append(pack(source, out, PackOptions(32, 3, processes=processes)))
    assert made[0].hash == made[1].hash
    assert made[0].header.classes == CLASSES


def test_images_are_in_a_file_that_goes_with_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    cifar_archive(tmp_path / "a.tar.gz")
    source = CifarSource(str(tmp_path / "a.tar.gz"))
    (folder,) = (tmp_path / "temporary").iterdir()
    assert [(file.name, file.stat().st_size) for file in folder.iterdir()] == [("images", TRAIN * 3072)]
    traveled = pickle.dumps(source)
    assert len(traveled) < 1000 + 8 * TRAIN
    check(pickle.loads(traveled), range(TRAIN), class_of)
    gc.collect()
    assert folder.exists(), "a copy does not remove it"
    del source
    gc.collect()
    assert not folder.exists()


# What is wrong with a file.


def python_with(**changes: object) -> bytes:
    return python2_pickle({**python_batch(range(PER_BATCH), "x", hundred=False), **changes})


PYTHON: dict[str, bytes] = {
    "empty": b"",
    "cut": python_with()[:-2000],
    "a web page": b"<html>",
    "a list": python2_pickle([1]),
    "no images": python_with(data=None),
    "a list of images": python_with(data=[1, 2]),
    "real numbers": python_with(data=np.zeros((PER_BATCH, 3072))),
    "signed": python_with(data=np.zeros((PER_BATCH, 3072), np.int8)),
    "objects": python_with(data=np.array([{}, []], object)),
    "other size": python_with(data=np.zeros((PER_BATCH, 3071), np.uint8)),
    "none at all": python_with(data=np.zeros((0, 3072), np.uint8), labels=[]),
    "no labels": python_with(labels=None),
    "too few labels": python_with(labels=[1] * 5),
    "labels of text": python_with(labels=["1"] * 6),
    "a negative label": python_with(labels=[-1] * 6),
    "a label too many": python_with(labels=[10] * 6),
}


@pytest.mark.parametrize("name", PYTHON)
def test_a_wrong_python_batch_is_named(tmp_path: Path, name: str, same_words: Callable[..., None]) -> None:
    folder = cifar_folder(tmp_path)
    (folder / "data_batch_3").write_bytes(PYTHON[name])
    with pytest.raises(UserError) as caught:
        CifarSource(str(folder))
    assert str(caught.value).startswith(f"{folder}: data_batch_3")
    same_words(str(caught.value), folder=folder)


OTHERS: dict[str, tuple[Form, str, bytes | None]] = {
    "batch missing": ("cifar-10-batches-py", "data_batch_4", None),
    "cut record": ("cifar-10-batches-bin", "data_batch_2.bin", bytes(3072)),
    "empty records": ("cifar-100-binary", "train.bin", b""),
    "records of CIFAR-10": ("cifar-100-binary", "train.bin", bytes(3073)),
    "label 10": ("cifar-10-batches-bin", "data_batch_5.bin", b"\x0a" + bytes(3072)),
    "no names": ("cifar-10-batches-bin", "batches.meta.txt", b"\n"),
    "names no text": ("cifar-10-batches-bin", "batches.meta.txt", b"\xff\xfe"),
    "names no list": ("cifar-10-batches-py", "batches.meta", python2_pickle({"label_names": 3})),
    "names of numbers": ("cifar-100-python", "meta", python2_pickle({"fine_label_names": [1]})),
    "no names file": ("cifar-100-python", "meta", None),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_a_wrong_file_is_named(tmp_path: Path, name: str, same_words: Callable[..., None]) -> None:
    form, file, content = OTHERS[name]
    folder = cifar_folder(tmp_path, form)
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(UserError) as caught:
        CifarSource(str(folder))
    assert str(caught.value).startswith(f"{folder}: ")
    same_words(str(caught.value), folder=folder)


def test_a_file_far_larger_than_any_of_cifar_is_not_read(tmp_path: Path) -> None:
    folder = cifar_folder(tmp_path)
    with (folder / "data_batch_1").open("wb") as file:
        os.truncate(file.fileno(), 2**28 + 1)
    with pytest.raises(UserError, match=r"data_batch_1: has 268,435,457 bytes, more than any file of CIFAR"):
        CifarSource(str(folder))


@pytest.mark.parametrize("packer", ["", "bz2", "xz"])
def test_archives_of_other_packers(tmp_path: Path, packer: Any) -> None:
    with tarfile.open(tmp_path / "a.tar", f"w:{packer}") as archive:
        archive.add(cifar_folder(tmp_path), "cifar-10-batches-py")
    check(CifarSource(str(tmp_path / "a.tar")), range(TRAIN), class_of)


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        (tarfile.XHDTYPE, b"1" * 2**19, "a header extension holds hundreds of digits in a row"),
        (tarfile.XHDTYPE, bytes(2**21), "a header extension has 2,097,152 bytes"),
        (tarfile.REGTYPE, bytes(2**21), r"unpacks to more than 1,048,576 bytes; give another archive"),
        (tarfile.GNUTYPE_SPARSE, b"\0\0\0\0\0\0\x01\x01" * 2**18, "unpacks to more than 1,048,576 bytes"),
    ],
)
def test_an_archive_that_would_take_memory_or_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: bytes, content: bytes, expected: str
) -> None:
    """Digits in a row (CVE-2024-6232), long headers, and what unpacks without end."""
    monkeypatch.setattr("distgan.data.sources.cifar._MOST_UNPACKED_BYTES", 2**20)
    member = tarfile.TarInfo("other")
    member.type, member.size = kind, len(content)
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    if kind == tarfile.GNUTYPE_SPARSE:
        header[482] = 1  # more of its map follows
        header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:]))
        content = (bytes(504) + b"\1" + bytes(7)) * 2**12
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(bytes(header) + content + bytes(1024)))
    with pytest.raises(UserError, match=expected):
        CifarSource(str(tmp_path / "a.tar.gz"))


def test_an_archive_of_other_things(tmp_path: Path) -> None:
    cifar_archive(tmp_path / "whole.tar.gz")
    whole = (tmp_path / "whole.tar.gz").read_bytes()
    for content in (b"", b"hello", whole[: len(whole) // 2], b"\x1f\x8b" + bytes(40)):
        (tmp_path / "a.tar.gz").write_bytes(content)
        with pytest.raises(UserError, match=r"a\.tar\.gz: (not a whole tar file|has none of)"):
            CifarSource(str(tmp_path / "a.tar.gz"))
    with tarfile.open(tmp_path / "links.tar.gz", "w:gz") as archive:
        for name, _ in cifar_files("cifar-10-batches-py"):
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
    with pytest.raises(UserError, match="has none of"):
        CifarSource(str(tmp_path / "links.tar.gz"))


def test_two_forms_beside_each_other(tmp_path: Path) -> None:
    cifar_folder(tmp_path, "cifar-10-batches-py")
    cifar_folder(tmp_path, "cifar-100-python")
    with pytest.raises(UserError, match="holds cifar-10-batches-py and cifar-100-python; give one of them"):
        CifarSource(str(tmp_path))


# Pickles that are programs.


class Call:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def programs(harm: Path) -> dict[str, bytes]:
    """Pickles that would make the file `harm`, or reach for what could."""
    command = f"touch {harm}"
    calls = {"system": Call(os.system, command), "eval": Call(eval, f"open({str(harm)!r}, 'w')")}
    made = {
        f"{name}, protocol {protocol}": pickle.dumps({"data": call, "labels": [0]}, protocol)
        for name, call in calls.items()
        for protocol in range(6)
    }
    made |= {
        "instance": f"(S{command!r}\nios\nsystem\n.".encode(),
        "object": f"(cos\nsystem\nS{command!r}\no.".encode(),
        "by a submodule": f"cnumpy\nf2py.os.system\n(S{command!r}\ntR.".encode(),
        "numpy's loader": b"cnumpy\nload\n(S'x.npy'\ntR.",
        "numpy's command": f"cnumpy.testing._private.utils\nrunstring\n(S{command!r}\n(dtR.".encode(),
        "attributes": b"cbuiltins\ngetattr\n(cnumpy\nndarray\nS'__class__'\ntR.",
        "an extension": b"\x82\x01.",
        "a persistent name": b"Pos.system\n.",
    }
    return made


def test_no_pickle_runs_a_program(tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    folder = cifar_folder(tmp_path)
    for name, program in programs(harm).items():
        for file in ("data_batch_2", "batches.meta"):
            whole = (folder / file).read_bytes()
            (folder / file).write_bytes(program)
            with pytest.raises(
                UserError, match=f"{file}: (it names .* refused, since it could run|not a whole pickle)"
            ):
                CifarSource(str(folder))
            (folder / file).write_bytes(whole)
            assert not harm.exists(), name


def test_a_pickle_cannot_ask_for_memory_or_deep_recursion(tmp_path: Path) -> None:
    deep = b")" + b"\x85" * 200_000  # a tuple in a tuple in a tuple…
    huge = {
        "a deep key": b"}" + deep + b"Ns.",
        "deep keys": b"}(" + deep + b"N" + deep + b"Nu.",
        "a deep key of old": b"(" + deep + b"Nd.",
        "a deep element": b"\x8f(" + deep + b"\x90.",
        "a deep frozen element": b"(" + deep + b"\x91.",
        "a deep whole": deep + b".",
        "a place in the memo": b"Nr\xff\xff\xff\x7f0N.",
        "bytes": b"\x8e" + (2**40).to_bytes(8, "little") + b".",
        "changeable bytes": b"\x96" + (2**40).to_bytes(8, "little") + b".",
        "a frame": b"\x95" + (2**40).to_bytes(8, "little") + b".",
        "an array": b"cnumpy\nndarray\n(\x8a\x06" + (2**40).to_bytes(6, "little") + b"tR.",
        "an array's shape": b"cnumpy\nndarray\n)R(K\x01(\x8a\x06" + (2**40).to_bytes(6, "little") + b"tNNNtb.",
    }
    for name, program in huge.items():
        (tmp_path / "a").write_bytes(program)
        with (tmp_path / "a").open("rb") as file, pytest.raises(UserError, match=r"^a: (not a whole|holds no table)"):
            load_plain_dict(file, "a")
        assert name
