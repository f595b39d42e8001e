"""Random and mutated input: whatever comes, the outcome is success or the user's one line."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import json
import pickle
import tarfile
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import distgan
from distgan.config.load import dump_config, flatten, load_config, preset_names
from distgan.config.schema import Config
from distgan.data.blocks import BlockReader
from distgan.data.images import decode_image, encode_image
from distgan.data.index import INDEX_NAME, TABLE_NAME, Index
from distgan.data.order import Order
from distgan.data.shard_index import index_shards
from distgan.data.sources.celeba import CelebaSource, read_attributes
from distgan.data.sources.cifar import FORMS as CIFAR
from distgan.data.sources.folder import FolderSource
from distgan.data.sources.idx import IdxSource
from distgan.data.sources.npz import NpzSource
from distgan.data.verify import verify
from distgan.inference.sampling import sample_images
from distgan.storage.s3_server.server import status
from distgan.storage.storage import Storage
from distgan.training.checkpoints import CheckpointStore, checkpoint_name
from distgan.training.manifest import Manifest
from distgan.training.networks import build_networks
from distgan.training.progress import Progress, StepScores
from distgan.training.run_spec import RunSpec, plan_run
from distgan.training.starting_point import find_checkpoint
from fuzzing import fuzz, user_result
from miniatures import attribute_table, attribute_text, python2_pickle, python_batch, zip_faces
from runs import TINY
from toy_data import pack_numbered

pytestmark = [pytest.mark.timeout(60), pytest.mark.filterwarnings("ignore::UserWarning:PIL")]

T = TypeVar("T")
SIZE = 16


# What a file may have gone through.

NASTY = [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"-1", b"999999999999", b"\xff", b"\0"]


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """One of the seeds after a few changes."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        new = draw(st.one_of(st.sampled_from(NASTY), st.binary(min_size=1, max_size=4)))
        kind = draw(st.sampled_from(["replace", "replace", "replace", "insert", "delete", "cut"]))
        if kind == "cut":
            data = data[:place]
        elif kind == "delete":
            data = data[:place] + data[place + draw(st.integers(1, 600)) :]
        else:
            data = data[:place] + new + data[place + (len(new) if kind == "replace" else 0) :]
    return data


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([-1, 0, 2**63]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def changed_json(draw: st.DrawFn, tree: Any) -> bytes:
    """The tree with other values at one or two places, or with a place removed."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 2))):
        node = tree
        while True:
            keys = list(range(len(node))) if isinstance(node, list) else list(node)
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(node[key], dict | list) and node[key] and draw(st.booleans()):
                node = node[key]
                continue
            if draw(st.integers(0, 4)) == 0:
                del node[key]
            else:
                node[key] = draw(JSON)
            break
    return json.dumps(tree).encode()


# Data sets.


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images in two shards."""
    made = tmp_path_factory.mktemp("fuzz") / "data"
    pack_numbered(made, 12, size=SIZE, shard_kb=8)
    return made


def use(folder: Path) -> None:
    """Everything that reads a data set: its check, its order, its blocks, its images."""
    storage = Storage.open(str(folder))
    index = user_result(lambda: Index.load(storage))
    if index is None:
        return
    faults = user_result(lambda: verify(storage))
    order = user_result(lambda: Order(index, 0, 4, 2))
    if order is not None:
        numbers = np.concatenate([stream.samples(0, len(stream)) for stream in order.streams])
        assert sorted(numbers) == list(range(len(index)))
    blocks = user_result(lambda: BlockReader(storage, index).read(index.blocks))
    if faults == []:
        assert blocks is not None


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Damaged blocks are read again at once."""
    monkeypatch.setattr("distgan.data.blocks._FIRST_WAIT_S", 0.0)


@fuzz(150)
@given(st.data())
def test_an_index(packed: Path, patient: None, data: st.DataObject) -> None:
    kept = (packed / INDEX_NAME).read_bytes()
    try:
        content = data.draw(st.one_of(changed_json(json.loads(kept)), mutated([kept]), st.binary(max_size=40)))
        (packed / INDEX_NAME).write_bytes(content)
        use(packed)
    finally:
        (packed / INDEX_NAME).write_bytes(kept)


@fuzz(150)
@given(st.data(), st.booleans())
def test_a_table(packed: Path, patient: None, data: st.DataObject, header_agrees: bool) -> None:
    kept = {name: (packed / name).read_bytes() for name in (INDEX_NAME, TABLE_NAME)}
    try:
        content = data.draw(mutated([kept[TABLE_NAME]]))
        (packed / TABLE_NAME).write_bytes(content)
        if header_agrees:
            header = json.loads(kept[INDEX_NAME]) | {"table_sha256": hashlib.sha256(content).hexdigest()}
            (packed / INDEX_NAME).write_text(json.dumps(header))
        use(packed)
    finally:
        for name, old in kept.items():
            (packed / name).write_bytes(old)


# Images.


@lru_cache
def images() -> list[bytes]:
    """Small images of many kinds, as files."""
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    color = Image.fromarray(pixels)
    deep = Image.fromarray(np.arange(SIZE * SIZE, dtype=np.uint16).reshape(SIZE, SIZE) * 200)
    pictures = [color, deep, *(color.convert(mode) for mode in ("L", "P", "RGBA", "1", "LA"))]
    found = [_file(picture, "PNG") for picture in pictures]
    found += [_file(color, kind) for kind in ("JPEG", "WEBP", "GIF", "BMP", "TIFF")]
    return [*found, encode_image(pixels, "webp"), encode_image(pixels[:, :, :1], "jpg")]


def _file(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def with_right_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums that belong to them, so that what is in them is looked at."""
    if data[:4] != b"\x89PNG":
        return data
    made, place = data[:8], 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunk = data[place + 4 : place + 8 + length]
        made += data[place : place + 4] + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        place += 12 + length
    return made


@fuzz(500)
@given(st.deferred(lambda: mutated(images())), st.sampled_from([1, 3]), st.booleans())
def test_an_image(data: bytes, channels: int, mended: bool) -> None:
    try:
        pixels = decode_image(with_right_checksums(data) if mended else data, SIZE, channels)
    except ValueError:
        return
    assert pixels.shape == (channels, SIZE, SIZE)
    assert pixels.dtype == np.uint8


@fuzz(150)
@given(st.deferred(lambda: mutated(images())), st.booleans())
def test_a_photo(tmp_path: Path, data: bytes, mended: bool) -> None:
    (tmp_path / "a.png").write_bytes(with_right_checksums(data) if mended else data)
    user_result(lambda: FolderSource(str(tmp_path))[0])


# Shards of other software.


@lru_cache
def shards() -> list[bytes]:
    """One shard in each dialect of tar, with long names, labels and attributes."""
    made = []
    for dialect in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=dialect) as archive:
            for key, extension, content in [
                ("a", "png", images()[0]),
                ("a", "cls", b"1"),
                ("b" * 95, "jpg", images()[7]),
                ("b" * 95, "json", b'{"label": 3}'),
            ]:
                member = tarfile.TarInfo(f"é/{key}.{extension}")
                member.size, member.mtime = len(content), 1.5
                member.pax_headers = {"comment": "x", "size": str(len(content))} if len(key) > 1 else {}
                archive.addfile(member, io.BytesIO(content))
        made.append(buffer.getvalue())
    return made


def with_right_headers(data: bytes) -> bytes:
    """A tar whose members' headers have the checksums that belong to them."""
    made = bytearray(data)
    for start in range(0, len(made) - 511, tarfile.BLOCKSIZE):
        block = made[start : start + tarfile.BLOCKSIZE]
        if block[257:262] == b"ustar":
            total = 256 + sum(block[:148]) + sum(block[156:])
            made[start + 148 : start + 156] = b"%06o\0 " % total
    return bytes(made)


@fuzz(300)
@given(st.deferred(lambda: mutated(shards())), st.booleans())
def test_a_shard(tmp_path: Path, patient: None, data: bytes, mended: bool) -> None:
    (tmp_path / INDEX_NAME).unlink(missing_ok=True)
    (tmp_path / "a.tar").write_bytes(with_right_headers(data) if mended else data)
    index = user_result(lambda: index_shards(Storage.open(str(tmp_path))))
    if index is not None:
        assert Index.load(Storage.open(str(tmp_path))).hash == index.hash
        use(tmp_path)


# Arrays.


@lru_cache
def archives() -> list[bytes]:
    made = []
    for arrays in (
        {"images": np.zeros((3, 4, 4), np.uint8), "labels": np.arange(3)},
        {"x": np.zeros((2, 4, 4, 3), np.uint8), "y": np.zeros((2, 1), np.int8)},
    ):
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        made.append(buffer.getvalue())
    return made


@fuzz(250)
@given(st.deferred(lambda: mutated(archives())))
def test_an_npz(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(data)
    user_result(lambda: NpzSource(str(tmp_path / "a.npz"))[0])


IDX = [
    bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 4]) + bytes(range(32)),
    bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 6]),
]


@fuzz(250)
@given(st.one_of(mutated(IDX[:1]), st.just(IDX[0])), st.one_of(mutated(IDX[1:]), st.binary(max_size=9)))
def test_idx_files(tmp_path: Path, pictures: bytes, labels: bytes) -> None:
    (tmp_path / "a-images-idx3-ubyte").write_bytes(pictures)
    (tmp_path / "a-labels-idx1-ubyte").write_bytes(labels)
    user_result(lambda: IdxSource(str(tmp_path))[0])


# Downloads.


@lru_cache
def cifar_batches() -> list[bytes]:
    """Batches of two images, by Python 2 and 3."""
    batch = python_batch(range(2), "batch", hundred=False)
    return [python2_pickle(batch), *(pickle.dumps(batch, protocol) for protocol in (0, 2, 4))]


@fuzz(300)
@given(st.deferred(lambda: mutated(cifar_batches())))
def test_a_cifar_batch(data: bytes) -> None:
    batch = user_result(lambda: CIFAR[0].read_batch(io.BytesIO(data), "batch", "class"))
    if batch is not None:
        assert batch.images.shape == (len(batch.labels), 3072)


@fuzz(150)
@given(mutated([attribute_text(2).encode(), attribute_table(2).encode()]))
def test_a_list_of_attributes(data: bytes) -> None:
    text = data.decode(errors="replace")
    classes = user_result(lambda: read_attributes(io.StringIO(text), "list", ["Male", "Young"]))
    assert classes is None or set(classes.values()) <= set(range(4))


@lru_cache
def zips(folder: Path) -> list[bytes]:
    for name, method in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        zip_faces(folder / name, count=2, method=method, list_attr_celeba_dot_txt=attribute_text(2))
    return [(folder / name).read_bytes() for name in ("stored", "deflated")]


@fuzz(150)
@given(st.data())
def test_a_zip_of_faces(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, data: st.DataObject) -> None:
    seeds = zips(tmp_path_factory.getbasetemp() / "zips")
    (tmp_path / "a.zip").write_bytes(data.draw(mutated(seeds)))
    source = user_result(lambda: CelebaSource(str(tmp_path / "a.zip"), ["Male"]))
    if source is not None:
        user_result(lambda: [source[number] for number in range(len(source))])


# Configurations.

KEYS = sorted({*flatten(load_config("quickstart").model_dump()), "generator", "data", "objective", "x.y", "seed.z", ""})
VALUES = [
    "0", "1", "-1", "2", "1e308", "1e-320", "-1e400", "9" * 30, "9" * 5000, "null", "true", "''", "[]", "{}", "[1]",
    "dcgan", "wgan_gp", "!!binary aa", "!!bool 7", "!!set {a}", "!!omap [a: 1]", "!!int x", "2020-01-01", "0x10",
    ".inf", ".nan", "&a [*a]", "*a", "\ud800", "\u2028", "<<: 1", "? a", "|", "%", "@", "`", "{[1]: 2}", "1_0", "\x85",
]  # fmt: skip


def plan(config: Config) -> None:
    """What a dry run does with a configuration."""
    without = config.model_copy(update={"data": config.data.model_copy(update={"url": None})})
    found = user_result(lambda: plan_run(RunSpec(without, "run", "/proc/none"), dry_run=True))
    assert found is None or found.steps >= 0


OVERRIDES = st.builds("{}={}".format, st.sampled_from(KEYS), st.sampled_from(VALUES))


@fuzz(150)
@given(st.lists(st.one_of(OVERRIDES, OVERRIDES, st.text(max_size=12)), min_size=1, max_size=3))
def test_overrides(overrides: list[str]) -> None:
    config = user_result(lambda: load_config("quickstart", overrides))
    if config is not None:
        plan(config)


@fuzz(150)
@given(mutated([dump_config(load_config(name)).encode() for name in preset_names()]) | st.binary(max_size=30))
def test_a_configuration_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    config = user_result(lambda: load_config(str(tmp_path / "a.yaml")))
    if config is not None:
        plan(config)


@fuzz(300)
@given(st.text("s3file:/@[]*?.\0~ab%é\ud800", max_size=20) | st.text(max_size=20))
def test_a_url(url: str) -> None:
    storage = user_result(lambda: Storage.open(url))
    if storage is not None:
        assert Storage.open(storage.url) == storage


# Runs and stores.


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one checkpoint, of untrained networks."""
    config = load_config("quickstart", TINY)
    folder = tmp_path_factory.mktemp("fuzz") / "run"
    networks = build_networks(config, torch.device("cpu"))
    generator, discriminator = networks.generator.state_dict(), networks.discriminator.state_dict()
    empty = {"state": {}, "param_groups": []}
    tensors = {"generator": generator, "discriminator": discriminator, "ema": generator}
    tensors |= {"generator_optimizer": empty, "discriminator_optimizer": empty}
    progress = Progress(images=16, evaluations=[StepScores(1, 16, 2.5)])
    made = Manifest(
        distgan=distgan.__version__, name=checkpoint_name(1), step=1, kimg=0.016, config=config.model_dump(mode="json"),
        data_hash="0", workers=1, threads=1, progress=dataclasses.asdict(progress),
    )  # fmt: skip
    store = CheckpointStore(Storage.open(str(folder)))
    store.save(made, tensors, set(), [], 1, lambda: None)
    store.wait()
    assert sample_images(find_checkpoint(str(folder)), 1, 0).shape == (1, 1, SIZE, SIZE)
    return folder


@fuzz(150)
@given(st.data())
def test_a_manifest(checkpoint: Path, data: st.DataObject) -> None:
    path = checkpoint / "checkpoints" / checkpoint_name(1) / "manifest.json"
    kept = path.read_bytes()
    tree = json.loads(kept)
    del tree["manifest_sha256"]
    try:
        path.write_bytes(data.draw(st.one_of(changed_json(tree), mutated([kept, json.dumps(tree).encode()]))))
        found = user_result(lambda: find_checkpoint(str(checkpoint)))
        if found is not None:
            Progress.from_dict(found.manifest.progress)
            user_result(lambda: sample_images(found, 1, 0))
    finally:
        path.write_bytes(kept)


STATE = {"access_key": "a", "secret_key": "b", "ports": {"s3.port": 1, "s3.port.grpc": 2}, "pid": 3}


@fuzz(150)
@given(changed_json(STATE) | JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20))
def test_a_stores_state(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.json").write_bytes(content)
    assert user_result(lambda: status(tmp_path)) is None
