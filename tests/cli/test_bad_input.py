"""What a user may get wrong, and what the world may do: always one line, exit code 2, never a traceback.

A case is a line of `CASES`: its name, the command line, the kind of the mistake (`messages.py`), and what makes the
circumstance (`circumstances.py`). In command lines and messages `{data}` is a good data set of 100 gray images of
32x32 pixels, `{run}` a finished run, `{yaml}` its configuration, `{tmp}` an empty folder; circumstances add words.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from circumstances import (
    Make,
    Place,
    all_of,
    bucket,
    checkpoint_file,
    columns,
    data_in_bucket,
    environment,
    files,
    flipped,
    foreign,
    full_disk,
    header,
    image,
    impatient_ray,
    index_text,
    link_to_full_device,
    manifest,
    no_server,
    nothing,
    other_grpc_server,
    port_in_use,
    put,
    ray_of_another_version,
    s3,
    search_begun,
    shard,
    silent_server,
    state,
    table,
    web_server,
)
from command_line import Cli, one_line
from distgan.config.load import dump_config
from distgan.data.images import encode_image
from distgan.evaluation.feature_statistics import GaussianStatistics
from distgan.evaluation.reference_files import RealStatistics
from messages import (
    DAMAGED,
    DIFFERS,
    MISSING,
    NAMED,
    NO_ANSWER,
    NO_CODE,
    NO_FILE,
    NOT_A_URL,
    NOT_ALLOWED,
    NOT_SET,
    NOT_TOGETHER,
    NOT_WRITTEN,
    NOT_YAML,
    OPTION,
    SECRET,
    SERVER,
    TORCHRUN,
    UNKNOWN_KEY,
    UNKNOWN_NAME,
)
from miniatures import (
    ATTRIBUTES,
    Form,
    attribute_text,
    celeba_folder,
    cifar_archive,
    cifar_folder,
    lego_folder,
    zip_faces,
)
from runs import pack_bricks, run, tiny_config
from toy_data import pack_numbered

pytestmark = [
    pytest.mark.timeout(60),
    # A thread's traceback on the terminal is a traceback too.
    pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning"),
]


class Case(NamedTuple):
    name: str
    line: str
    kind: str = NAMED
    make: Make = nothing


def idx(*shape: int, kind: int = 8, body: bytes | None = None) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in shape)
    return bytes([0, 0, kind, len(shape)]) + sizes + (bytes(int(np.prod(shape))) if body is None else body)


def npz(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def photos(content: bytes) -> Make:
    """The folder `photos` with one file, `a.png`."""

    def make(place: Place) -> None:
        (place.tmp / "photos").mkdir()
        (place.tmp / "photos" / "a.png").write_bytes(content)

    return make


def images(*contents: tuple[int, ...] | bytes) -> Make:
    """The folder `images` with black images of these shapes, or files of these bytes: `0.png` and on."""

    def make(place: Place) -> None:
        (place.tmp / "images").mkdir()
        for number, content in enumerate(contents):
            if not isinstance(content, bytes):
                content = encode_image(np.zeros((*content, 1)[:3], np.uint8), "png")
            (place.tmp / "images" / f"{number}.png").write_bytes(content)

    return make


def statistics(features: int, extractor: str | None = None, image_size: int | None = None) -> Make:
    """The file `given.npz`, by default as a foreign tool writes it."""
    mean, covariance = torch.zeros(features).double(), torch.eye(features).double()
    given = RealStatistics(GaussianStatistics(mean, covariance, 0), None, extractor, image_size)
    return files(given_npz=given.to_bytes())


def class_folder(name: bytes) -> Make:
    def make(place: Place) -> None:
        folder = Path(str(place.tmp / "photos")) / name.decode(errors="surrogateescape")
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(GRAY)

    return make


def faces(*changes: Callable[[Path], object]) -> Make:
    """CelebA in miniature as the folder `celeba`, then changes."""

    def make(place: Place) -> None:
        celeba_folder(place.tmp / "celeba")
        for change in changes:
            change(place.tmp / "celeba")

    return make


def cifar(name: str, content: bytes, form: Form = "cifar-10-batches-py") -> Make:
    """CIFAR in miniature in the folder `cifar`, one of its files another."""
    return lambda place: (cifar_folder(place.tmp / "cifar", form) / name).write_bytes(content)


def attribute_list(change: Callable[[str], str]) -> Callable[[Path], object]:
    return lambda place: (place / "list_attr_celeba.txt").write_text(change(attribute_text()))


def lego(place: Place) -> None:
    lego_folder(place.tmp / "lego")


def folder(name: str) -> Make:
    return lambda place: (place.tmp / name).mkdir(parents=True)


def pipe(name: str) -> Make:
    return lambda place: os.mkfifo(place.tmp / name)


def pipe_in_data(name: str) -> Make:
    """A pipe in the place of a file of the data set `{mine}`."""

    def make(place: Place) -> None:
        path = place.copy("data") / name
        path.unlink()
        os.mkfifo(path)

    return make


def unpacking_to(name: str, member: str, size: int, dtype: str = "|u1") -> Make:
    """A zip file of one array, whose few kilobytes unpack to `size` zeros, or say so."""

    def make(place: Place) -> None:
        head = io.BytesIO()
        shape = (size // 10**6, 1000, 1000 // np.dtype(dtype).itemsize)
        np.lib.format.write_array_header_1_0(head, {"descr": dtype, "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(place.tmp / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{member}.npy", head.getvalue() + bytes(1000))
        content = bytearray((place.tmp / name).read_bytes())
        entry = content.rindex(b"PK\x01\x02")
        content[entry + 24 : entry + 28] = size.to_bytes(4, "little")
        (place.tmp / name).write_bytes(content)

    return make


def no_temporary_folder(place: Place) -> None:
    place.patch.setattr("tempfile.tempdir", "/proc/none")


GRAY = encode_image(np.full((32, 32, 1), 7, np.uint8), "png")
SMALL = encode_image(np.full((8, 8, 1), 7, np.uint8), "png")
# Colors by number, one of them transparent, and no palette that says which they are.
NO_PALETTE = GRAY[:8] + chunk(b"IHDR", b"\0\0\0\x20\0\0\0\x20\x08\x03\0\0\0") + chunk(b"tRNS", b"\0") + GRAY[33:]
PACK_NPZ = "data pack a.npz --format npz --out new"
PACK_IDX = "data pack a-images-idx3-ubyte --format idx --out new"
PACK_PHOTOS = "data pack photos --format folder --out new"
PACK_FACES = "data pack celeba --format celeba --out new"
PACK_ZIP = "data pack img_align_celeba.zip --format celeba --out new"
PACK_CIFAR = "data pack cifar --format cifar --out new --size 32"
PACK_LEGO = "data pack lego/dataset --format folder --out new --label-pattern"
TRAIN_MINE = "train {yaml} --no-ray --storage {tmp} --name new data.url={mine} image_size=32"
CONTINUE = "train {yaml} --storage {tmp} --name new --continue-from"
RESUME = "train {yaml} --no-ray --storage {tmp} --name mine"

CONFIGURATION = [
    Case("preset", "train quikstart", UNKNOWN_NAME),
    Case("preset shown", "presets show quick-start", UNKNOWN_NAME),
    Case("no file", "train gone.yaml"),
    Case("folder as file", "train a.yaml", make=folder("a.yaml")),
    Case("not UTF-8", "train a.yaml", make=files(a_yaml=b"seed: \xff")),
    Case("a list", "train a.yaml", make=files(a_yaml=b"- seed\n- 1\n")),
    Case("no YAML", "train a.yaml", NOT_YAML, files(a_yaml=b"data:\n\turl: x\n")),
    Case("impossible tag", "train a.yaml", NOT_YAML, files(a_yaml=b"seed: !!bool 7\n")),
    Case("code", "train a.yaml", NOT_YAML, files(a_yaml=b"seed: !!python/object/apply:os.getpid []\n")),
    Case("key in file", "train a.yaml", UNKNOWN_KEY, files(a_yaml=b"data: {ulr: x}")),
    Case("type in file", "train a.yaml", NOT_ALLOWED, files(a_yaml=b"channels: one")),
    Case("list for a number", "train a.yaml", NOT_ALLOWED, files(a_yaml=b"seed: [1]")),
    Case("key", "train quickstart sed=1", UNKNOWN_KEY),
    Case("nested key", "train quickstart training.batchsize=1", UNKNOWN_KEY),
    Case("no value", "train quickstart seed"),
    Case("not offered", "train quickstart image_size=48", NOT_ALLOWED),
    Case("no number", "train quickstart optimizer.generator.lr=nan", NOT_ALLOWED),
    Case("budget without end", "train quickstart training.kimg=1e306", NOT_ALLOWED),
    Case("no measure", "train quickstart evaluation.monitor=kid", UNKNOWN_NAME),
    Case("threads", "train quickstart scale.threads=1000000", NOT_ALLOWED),
    Case("objective", "train quickstart objective.name=lsgan", UNKNOWN_NAME),
    Case("workers", "train quickstart --workers 5", NOT_TOGETHER),
    Case("no workers", "train quickstart --workers 0", NOT_ALLOWED),
    Case("elastic, too few groups", "train quickstart --workers 1:8", NOT_TOGETHER),
    Case("elastic, reversed", "train quickstart scale.min_workers=2 --dry-run", NOT_TOGETHER),
    Case(
        "elastic on one node",
        "train quickstart --workers 1:2 placement.strategy=strict_pack",
        NOT_TOGETHER,
    ),
    Case("elastic, asynchronous", "train quickstart --workers 1:2 evaluation.asynchronous=true", NOT_TOGETHER),
    Case("elastic, no Ray", "train quickstart --workers 1:2 --no-ray", OPTION),
    Case("batch", "train quickstart training.batch_size=100", NOT_TOGETHER),
    Case("huge batch", "train quickstart training.batch_size=160000000000", NOT_ALLOWED),
    Case("groups", "train quickstart scale.groups=3", NOT_TOGETHER),
    Case("widths", "train quickstart generator.widths=[1,2] --dry-run"),
    Case("strides", "train quickstart generator.strides=[3,3] --dry-run"),
    Case("combination", "train wgan-gp-faces discriminator.network=dcgan --dry-run", NOT_TOGETHER),
    Case("penalty on batch statistics", "train quickstart objective.r1_weight=1 --dry-run", NOT_TOGETHER),
    Case(
        "penalty and simultaneous",
        "train quickstart objective.r1_weight=1 discriminator.network=wgan_gp --dry-run",
        NOT_TOGETHER,
    ),
    Case(
        "budget beyond decay", 'train quickstart optimizer.lr_factor={{"from":1,"to":0,"until_kimg":100}}', NOT_TOGETHER
    ),
    Case("name with a slash", "train quickstart --name a/b", OPTION),
    Case("name above", "train quickstart --name ..", OPTION),
    Case("no data", "train quickstart", NOT_SET),
    Case("workers, no Ray", "train quickstart --no-ray --workers 2", OPTION),
    Case("no data, no Ray", "train quickstart --no-ray", NOT_SET),
    Case("extractor", "train quickstart data.url={data} evaluation.extractor=fd_light0", UNKNOWN_NAME),
    Case("no FID weights", "train quickstart data.url={data} evaluation.extractor=fid", NOT_SET),
    Case(
        "missing FID weights",
        "train quickstart data.url={data} evaluation.extractor=fid evaluation.weights=nowhere.pth --no-ray",
    ),
    Case(
        "other FID weights",
        "train quickstart data.url={data} evaluation.extractor=fid evaluation.weights={data}/index.json --no-ray",
    ),
    Case("measure", "train quickstart data.url={data} evaluation.metrics=[kid]", UNKNOWN_NAME),
    Case("image size", "train quickstart data.url={data} image_size=64"),
    Case("channels", "train quickstart data.url={data} channels=3"),
    Case("streams", "train quickstart data.url={data} data.streams=128 training.batch_size=128"),
    Case("target without augmentations", "train quickstart training.augment_target=0.6", NOT_TOGETHER),
    Case(
        "target without a meaning of signs",
        "train wgan-gp-faces training.augment=[ada] training.augment_target=0.6 --dry-run",
        NOT_TOGETHER,
    ),
    Case("held-out images that are trained on", "train quickstart data.url={data} data.held_out={data} image_size=32"),
    Case("no held-out images", "train quickstart data.url={data} data.held_out=nowhere image_size=32"),
]

LABELED = "train quickstart generator.network=conditional:Generator discriminator.network=conditional:Critic"
LABELS = [
    Case("no number of classes", "train quickstart num_classes=few", NOT_ALLOWED),
    Case("one class", "train quickstart num_classes=1", NOT_ALLOWED),
    Case("networks without labels", "train quickstart num_classes=3 --dry-run", NOT_TOGETHER),
    Case("one network without labels", f"{LABELED} num_classes=3 discriminator.network=dcgan --dry-run", NOT_TOGETHER),
    Case("conditional networks, no classes", f"{LABELED} --dry-run"),
    Case("other number of classes", f"{LABELED} num_classes=4 data.url={{data}}"),
    Case("data of no classes", f"{LABELED} num_classes=3 data.url={{mine}}", make=header(classes=[])),
    Case("some without labels", f"{LABELED} num_classes=3 data.url={{mine}}", make=columns(labels=put(3, -1))),
    Case("labels beyond the classes", f"{LABELED} num_classes=3 data.url={{mine}}", DAMAGED, columns(labels=put(3, 3))),
    Case("label of none", "sample {run} --label 0", OPTION),
    Case("all labels of none", "sample {run} --label all", OPTION),
    Case("no own module", "train quickstart generator.network=gone:Net"),
    Case("no own objective", "train quickstart objective.name=conditional:Loss", UNKNOWN_NAME),
    Case(
        "own code in a checkpoint", "sample {mine}", NO_CODE, manifest(config={"generator": {"network": "os:system"}})
    ),
    Case("own code in a run", RESUME, DIFFERS, manifest(config={"generator": {"network": "os:system"}})),
    Case("weights gone", "train {yaml} --name new --init-from {tmp}/gone", MISSING),
    Case("weights of no tensors", "train {yaml} --name new --init-from {mine}", DAMAGED, state(lambda _: saved({}))),
    Case("weights for a run that exists", f"{RESUME} --init-from {{run}}", DIFFERS, manifest()),
    Case("nothing to continue", f"{CONTINUE} {{tmp}}/gone", MISSING),
    Case("weights and state", f"{CONTINUE} {{run}} --init-from {{run}}"),
    Case("state for a run that exists", f"{RESUME} --continue-from {{run}}", DIFFERS, manifest()),
    Case("state of other networks", f"{CONTINUE} {{run}} generator.width=8 optimizer.generator.lr=0.1", DIFFERS),
    Case("state of other data", f"{CONTINUE} {{run}} data.url={{other}}", DIFFERS),
    Case("state of the whole budget", f"{CONTINUE} {{run}}", OPTION),
    Case(
        "state of own code", f"{CONTINUE} {{mine}}", DIFFERS, manifest(config={"generator": {"network": "os:system"}})
    ),
    Case("state of no tensors", f"{CONTINUE} {{mine}} training.kimg=9 --no-ray", DAMAGED, state(lambda _: saved({}))),
]

URLS = [
    Case("empty URL", "train quickstart data.url=", NOT_A_URL),
    Case("unknown scheme", "train quickstart data.url=ftp-ish://x/y", NOT_A_URL),
    Case("near scheme", "data info s4://x/y", NOT_A_URL),
    Case("pipe as storage", "train quickstart --dry-run --storage pipe:ls", NOT_A_URL),
    Case("pipe as data", "data info pipe:ls", NOT_A_URL),
    Case("pipe as output", "data render bricks --samples 2 --out pipe:cat", NOT_A_URL),
    Case("one slash", "data info s3:/bricks", NOT_A_URL),
    Case("no bucket", "data info s3://", NOT_A_URL),
    Case("home of nobody", "data info ~nobody-here/x"),
    Case("bytes as a folder", "data render bricks --samples 2 --out caf\udce9"),
    Case("chain", "data info simplecache::s3://bricks", NOT_A_URL),
    Case("password", "data render bricks --out s3://user:secret@bucket/x --samples 2", SECRET),
    Case("relative file", "data info file://x/y", NOT_A_URL),
    Case("missing package", "data info gs://x/y"),
    Case("scheme that needs more", "data info github://x/y", NOT_A_URL),
    Case("a slash in a password", "data info s3://me:se/cret@bricks/x", SECRET),
    Case("token as a user", "data info https://TOKEN@host/x", SECRET),
    Case("signature", "data info https://host/x?sig=secret", SECRET),
    Case("scheme without sense", "data info dir://x/y", NOT_A_URL),
    Case("web page as data", "data info http://127.0.0.1:{port}", NO_ANSWER, no_server),
    Case("web page as output", "data render bricks --samples 2 --out http://127.0.0.1:{port}", NO_ANSWER, no_server),
]

INDEX = [
    Case("no index", "data info {tmp}", MISSING),
    Case("index is a pipe", "data info {mine}", NO_FILE, pipe_in_data("index.json")),
    Case("table is a pipe", "data info {mine}", NO_FILE, pipe_in_data("index.table")),
    Case("shard is a pipe", TRAIN_MINE, NO_FILE, pipe_in_data("shard-00000.tar")),
    Case("index of depth", "data info {mine}", DAMAGED, index_text(b"[" * 10_000)),
    Case("index of no number", "data info {mine}", DAMAGED, index_text(b'{"samples": NaN}')),
    Case("index of long number", "data info {mine}", DAMAGED, index_text(b'{"samples": 1' + b"0" * 400 + b"}")),
    Case("no folder", "data verify {tmp}/gone", MISSING),
    Case("no index to train on", "train quickstart data.url={tmp}", MISSING),
    Case("no folder to train on", "train quickstart data.url={tmp}/gone", MISSING),
    Case("a file, no folder", "data info {data}/index.json"),
    Case("photos to train on", "train quickstart data.url=photos", make=photos(GRAY)),
    Case("Parquet files to train on", "train quickstart data.url=birds", make=files(**{"birds/data/a.parquet": b""})),
    Case("CSV file to train on", "train quickstart data.url=a.csv", make=files(a_csv=b"path\na.png")),
    Case("shards to train on", "train quickstart data.url=shards", make=files(**{"shards/a.tar": b""})),
    Case("shard of a data set to train on", "train quickstart data.url={data}/shard-00000.tar"),
    Case("shard to train on", "train quickstart data.url=shards/a.tar", make=files(**{"shards/a.tar": b""})),
    Case("no JSON", "data info {mine}", DAMAGED, index_text(b"<html>")),
    Case("deep JSON", "data info {mine}", DAMAGED, index_text(b"[" * 100_000)),
    Case("other format", "data info {mine}", DAMAGED, header(format="distgan-index-9")),
    Case("word for a number", "data info {mine}", DAMAGED, header(samples="many")),
    Case("negative samples", "data verify {mine}", DAMAGED, header(samples=-100)),
    Case("other sum", "data verify {mine}", DAMAGED, header(samples=99)),
    Case("class of no name", "data info {mine}", DAMAGED, header(classes=[1, 2])),
    Case("path as shard", "data info {mine}", DAMAGED, header(shards=["../../etc/passwd"])),
    Case("cut table", "train {yaml} data.url={mine}", make=table(lambda data: data[:-4])),
    Case("flipped table", "data verify {mine}", make=table(flipped(30))),
    Case("image of no bytes", "data info {mine}", DAMAGED, columns(lengths=put(5, 0))),
    Case("images that overlap", "data info {mine}", DAMAGED, columns(lengths=put(4, 99_999))),
    Case("image outside", "data info {mine}", DAMAGED, columns(offsets=put(99, 512 * 10**6))),
    Case("images in disorder", "data info {mine}", DAMAGED, columns(offsets=put(7, 512))),
]

SHARDS = [
    Case("shard gone", "data verify {mine}", DAMAGED, shard(None)),
    Case("shard cut", "data verify {mine}", DAMAGED, shard(lambda data: data[:40_000])),
    Case("shard flipped", "data verify {mine}", DAMAGED, shard(flipped(9_000))),
    Case("block's checksum", "data verify {mine}", DAMAGED, columns(checksums=put(0, 1))),
    Case("no image", "data verify {mine}", DAMAGED, image(b"GIF89a")),
    Case("no palette", "data verify {mine}", DAMAGED, image(NO_PALETTE)),
    Case("small image", "data verify {mine}", DAMAGED, image(SMALL)),
    Case("label above", "data verify {mine}", DAMAGED, columns(labels=put(3, 3))),
    Case("label below", "data verify {mine}", DAMAGED, columns(labels=put(3, -2))),
    Case("train, shard gone", TRAIN_MINE, MISSING, shard(None)),
    Case("train, shard cut", TRAIN_MINE, make=shard(lambda data: data[:40_000])),
    Case("train, shard flipped", TRAIN_MINE, make=shard(flipped(9_000))),
    Case("train, no image", TRAIN_MINE, DAMAGED, image(b"GIF89a")),
    Case("train, small image", TRAIN_MINE, DAMAGED, image(SMALL)),
    Case("no shards to index", "data index {tmp}"),
    Case("deep attributes", "data index foreign", make=foreign(("a.json", b"[" * 100_000))),
    Case("sparse image", "data index foreign", make=foreign(("a.png", GRAY), sparse=True)),
    Case("label of signs", "data index foreign", DAMAGED, foreign(("a.png", GRAY), ("a.cls", b"+-"))),
    Case("no such class", "data index foreign --classes dog,cow", make=foreign(("a.png", GRAY), ("a.cls", b"cat"))),
    Case("no file of classes", "data index foreign --classes none.txt", OPTION, foreign(("a.png", GRAY))),
    Case("two images of a key", "data index foreign", make=foreign(("a.in.png", GRAY), ("a.out.png", GRAY))),
    Case("sheet elsewhere", "data show data --out s3://bucket/sheet.png", OPTION),
    Case("no good sample to index", "data index foreign --bad skip", make=foreign(("a.jpg", b"x"))),
    Case("no image to index", "data index foreign", DAMAGED, foreign(("a.jpg", b"\xff\xd8"))),
]

SOURCES = [
    Case("photos gone", PACK_PHOTOS, MISSING),
    Case("photos empty", PACK_PHOTOS, make=folder("photos")),
    Case("no photos", "data pack {data} --format folder --out new"),
    Case("CSV file as photos", "data pack a.csv --format folder --out new", make=files(a_csv=b"path\na.png")),
    Case("photos as CSV file", "data pack photos --format csv --out new", make=photos(GRAY)),
    Case("shards as photos", "data pack shards --format folder --out new", make=files(**{"shards/a.tar": b""})),
    Case("shard as photos", "data pack shards/a.tar --format folder --out new", make=files(**{"shards/a.tar": b""})),
    Case("Parquet files as photos", PACK_PHOTOS, make=files(**{"photos/data/a.parquet": b""})),
    Case("photos as Parquet files", "data pack photos --format parquet --out new", make=photos(GRAY)),
    Case("text as Parquet file", "data pack a.parquet --format parquet --out new", DAMAGED, files(a_parquet=b"hello")),
    Case("Parquet file gone", "data pack a.parquet --format parquet --out new", MISSING),
    Case("CSV file gone", "data pack a.csv --format csv --out new", MISSING),
    Case("CSV file of other columns", "data pack a.csv --format csv --out new", make=files(a_csv=b"name\na.png")),
    Case("faces away", "data pack http://127.0.0.1:{port}/a.zip --format celeba --out new", NO_ANSWER, no_server),
    Case("text as photo", PACK_PHOTOS, DAMAGED, photos(b"hello")),
    Case("PostScript as photo", PACK_PHOTOS, DAMAGED, photos(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")),
    Case("cut photo", PACK_PHOTOS, DAMAGED, photos(GRAY[:60])),
    Case("class without a name", PACK_PHOTOS, make=class_folder(b"caf\xe9")),
    Case("no IDX files", "data pack {data} --format idx --out new"),
    Case("IDX gone", PACK_IDX, MISSING),
    Case("IDX garbage", PACK_IDX, DAMAGED, files(**{"a-images-idx3-ubyte": b"hello there"})),
    Case("IDX cut", PACK_IDX, make=files(**{"a-images-idx3-ubyte": idx(2, 4, 4, body=b"x" * 9)})),
    Case("IDX of 100 dimensions", PACK_IDX, make=files(**{"a-images-idx3-ubyte": idx(*[1] * 100)})),
    Case("IDX of nothing", PACK_IDX, make=files(**{"a-images-idx3-ubyte": idx(0, 2**31, 2**31)})),
    Case("IDX labels", PACK_IDX, make=files(**{"a-images-idx3-ubyte": idx(2, 4, 4), "a-labels-idx1-ubyte": idx(3)})),
    Case("IDX in half a gzip", PACK_IDX, DAMAGED, files(**{"a-images-idx3-ubyte": gzip.compress(idx(2, 4, 4))[:-9]})),
    Case("text as npz", PACK_NPZ, DAMAGED, files(a_npz=b"hello")),
    Case("npz without images", PACK_NPZ, make=files(a_npz=npz(pictures=[1]))),
    Case("npz of floats", PACK_NPZ, make=files(a_npz=npz(images=np.zeros((2, 4, 4))))),
    Case("npz of objects", PACK_NPZ, DAMAGED, files(a_npz=npz(images=np.array([{}, []], object)))),
    Case("npz with too few labels", PACK_NPZ, make=files(a_npz=npz(images=np.zeros((2, 4, 4), np.uint8), labels=[1]))),
    Case(
        "npz with a negative label",
        PACK_NPZ,
        make=files(a_npz=npz(images=np.zeros((2, 4, 4), np.uint8), labels=[0, -1])),
    ),
    Case("no celeba", PACK_FACES, MISSING),
    Case("celeba empty", PACK_FACES, make=folder("celeba")),
    Case("celeba no zip", PACK_FACES, DAMAGED, files(celeba=b"PK")),
    Case("zip of other things", PACK_FACES, make=lambda place: zip_faces(place.tmp / "celeba", "faces/")),
    Case(
        "zip cut",
        PACK_ZIP,
        DAMAGED,
        lambda place: (
            zip_faces(place.tmp / "whole"),
            (place.tmp / "img_align_celeba.zip").write_bytes((place.tmp / "whole").read_bytes()[:4000]),
        ),
    ),
    Case("attribute", f"{PACK_FACES} --label Blonde_Hair", UNKNOWN_NAME, faces()),
    Case("attribute twice", f"{PACK_FACES} --label Male --label Male", OPTION, faces()),
    Case(
        "attributes without end", f"{PACK_FACES} {' '.join(f'--label {name}' for name in ATTRIBUTES)}", OPTION, faces()
    ),
    Case("no list", f"{PACK_FACES} --label Male", make=faces(lambda place: (place / "list_attr_celeba.txt").unlink())),
    Case(
        "list no text",
        f"{PACK_FACES} --label Male",
        make=faces(lambda place: (place / "list_attr_celeba.txt").write_bytes(b"8\n\xff")),
    ),
    Case(
        "list of other things",
        f"{PACK_FACES} --label Male",
        make=faces(attribute_list(lambda text: "<html>Quota exceeded</html>")),
    ),
    Case("row cut", f"{PACK_FACES} --label Male", make=faces(attribute_list(lambda text: text[:-4]))),
    Case("row with a word", f"{PACK_FACES} --label Young", make=faces(attribute_list(lambda text: f"{text[:-3]}x\n"))),
    Case(
        "image not in the list",
        f"{PACK_FACES} --label Male",
        make=faces(lambda place: (place / "img_align_celeba" / "000009.jpg").write_bytes(b"")),
    ),
    Case(
        "image in the list only",
        f"{PACK_FACES} --label Male",
        make=faces(lambda place: (place / "img_align_celeba" / "000002.jpg").unlink()),
    ),
    Case(
        "no face",
        PACK_FACES,
        DAMAGED,
        faces(lambda place: (place / "img_align_celeba" / "000002.jpg").write_bytes(b"\xff\xd8")),
    ),
    Case("no cifar", PACK_CIFAR, MISSING),
    Case("cifar no archive", PACK_CIFAR, DAMAGED, files(cifar=b"hello")),
    Case(
        "cifar archive cut",
        PACK_CIFAR,
        DAMAGED,
        lambda place: (
            cifar_archive(place.tmp / "whole"),
            (place.tmp / "cifar").write_bytes((place.tmp / "whole").read_bytes()[:50_000]),
        ),
    ),
    Case("no CIFAR in it", PACK_CIFAR, make=folder("cifar")),
    Case("cifar batch cut", PACK_CIFAR, DAMAGED, cifar("data_batch_2", b"\x80\2}")),
    Case(
        "cifar batch that runs code",
        PACK_CIFAR,
        make=cifar("data_batch_5", b"cos\nsystem\n(S'touch new/index.json'\ntR."),
    ),
    Case("cifar records cut", PACK_CIFAR, make=cifar("data_batch_1.bin", bytes(3072), "cifar-10-batches-bin")),
    Case("cifar label", PACK_CIFAR, make=cifar("train.bin", bytes([3, 200, *bytes(3072)]), "cifar-100-binary")),
    Case(
        "kind of label",
        f"{PACK_CIFAR} --label corse",
        UNKNOWN_NAME,
        cifar("train.bin", bytes(3074), "cifar-100-binary"),
    ),
    Case(
        "two kinds of label",
        f"{PACK_CIFAR} --label fine --label coarse",
        OPTION,
        cifar("train.bin", bytes(3074), "cifar-100-binary"),
    ),
    Case("label of CIFAR-10", f"{PACK_CIFAR} --label coarse", OPTION, cifar("readme.html", b"")),
    Case(
        "slow pattern",
        f"{PACK_PHOTOS} --label-pattern (a+)+$",
        make=all_of(folder("photos"), lambda place: (place.tmp / "photos" / f"{'a' * 40}b.png").write_bytes(GRAY)),
    ),
    Case("pattern of depth", f"{PACK_LEGO} {'(' * 5000}{')' * 5000}", OPTION, lego),
    Case("pipe as idx", PACK_IDX, NO_FILE, pipe("a-images-idx3-ubyte")),
    Case("pipe as npz", PACK_NPZ, NO_FILE, pipe("a.npz")),
    Case("pipe as cifar", PACK_CIFAR, NO_FILE, pipe("cifar")),
    Case("npz that unpacks to much", PACK_NPZ, make=unpacking_to("a.npz", "x", 2 * 10**9)),
    Case(
        "idx that unpacks to much",
        PACK_IDX,
        make=files(**{"a-images-idx3-ubyte": gzip.compress(idx(1, 16, 16) + bytes(10**7))}),
    ),
    Case(
        "idx that announces much",
        PACK_IDX,
        make=files(**{"a-images-idx3-ubyte": gzip.compress(idx(3000, 1000, 1000, body=b""))}),
    ),
    Case(
        "name that steers the terminal",
        PACK_PHOTOS,
        DAMAGED,
        all_of(folder("photos"), lambda place: (place.tmp / "photos" / "a\x1b[31m\u202eb.png").write_bytes(b"no")),
    ),
    Case("pattern", f"{PACK_LEGO} (.+", OPTION, lego),
    Case("pattern that finds nothing", f"{PACK_LEGO} ^[0-9]+_", make=lego),
    Case("empty pattern", f"{PACK_LEGO} x*", make=lego),
    Case("background", f"{PACK_PHOTOS} --background red", OPTION),
    Case("crop larger than the image", f"{PACK_PHOTOS} --crop 40", make=photos(GRAY)),
    Case("no good photo", f"{PACK_PHOTOS} --bad skip", make=photos(b"hello")),
    Case("format", "data pack x --out y --format zip", UNKNOWN_NAME),
    Case("label of npz", f"{PACK_NPZ} --label a", OPTION),
    Case("pattern of celeba", f"{PACK_FACES} --label-pattern a", OPTION),
    Case("split of photos", f"{PACK_PHOTOS} --split test", OPTION),
    Case("brick size", "data render bricks --out new --samples 2 --size 12", OPTION),
    Case("big bricks", "data render bricks --out new --samples 2 --size 512", OPTION),
    Case("output taken", "data render bricks --out {data} --samples 2"),
]

DISKS = [
    Case("output is a file", "data render bricks --out {data}/index.json --samples 2", NOT_WRITTEN),
    Case("output below a file", "data render bricks --out {data}/index.json/x --samples 2", NOT_WRITTEN),
    Case("output where nothing can be", "data render bricks --out /proc/x --samples 2", MISSING),
    Case("output on a full disk", "data render bricks --out {full} --samples 40 --size 64", NOT_WRITTEN, full_disk),
    Case("no temporary folder", "data render bricks --out new --samples 2", make=no_temporary_folder),
    Case("dry run in a file", "train quickstart --dry-run --storage {data}/index.json", NOT_WRITTEN),
    Case(
        "logits before any worker",
        "train {yaml} data.url={data} image_size=32 --name new --workers 2 evaluation.metrics=[inception_score]",
    ),
    Case("run in a file", "train {yaml} --storage {data}/index.json", NOT_WRITTEN),
    Case("run below a file", "train {yaml} --storage {data}/index.json/x", NOT_WRITTEN),
    Case("run in a device", "train {yaml} --storage /dev/full", NOT_WRITTEN),
    Case("run where nothing can be", "train {yaml} --storage /proc/x", MISSING),
    Case(
        "half of torchrun's variables",
        "train {yaml} --no-ray --storage {tmp} --name x",
        TORCHRUN,
        environment(WORLD_SIZE="2", RANK="0"),
    ),
    Case(
        "no number of workers",
        "train {yaml} --no-ray --storage {tmp} --name x",
        TORCHRUN,
        environment(WORLD_SIZE="two"),
    ),
    Case(
        "a world of nobody", "train {yaml} --no-ray --storage {tmp} --name x", NOT_TOGETHER, environment(WORLD_SIZE="0")
    ),
    Case(
        "a rank beyond its world",
        "data stats {data} --no-ray",
        NOT_TOGETHER,
        environment(WORLD_SIZE="2", RANK="5", MASTER_ADDR="localhost", MASTER_PORT="1234"),
    ),
    Case("a rank of no world", "train {yaml} --no-ray --storage {tmp} --name x", NOT_TOGETHER, environment(RANK="1")),
    Case(
        "a local rank beyond its machine",
        "train {yaml} --no-ray --storage {tmp} --name x",
        NOT_TOGETHER,
        environment(LOCAL_RANK="2", LOCAL_WORLD_SIZE="2"),
    ),
    Case(
        "a master that is nowhere",
        "train {yaml} --no-ray --storage {tmp} --name x",
        TORCHRUN,
        environment(WORLD_SIZE="2", RANK="0", MASTER_ADDR="no.such.host.invalid", MASTER_PORT="1234"),
    ),
    Case(
        "a master without a port",
        "train {yaml} --no-ray --storage {tmp} --name x",
        TORCHRUN,
        environment(WORLD_SIZE="2", RANK="0", MASTER_ADDR="localhost", MASTER_PORT="99999"),
    ),
    Case("run on a full disk", "train {yaml} --no-ray --storage {full} --name x", NOT_WRITTEN, full_disk),
    Case("grid below a file", "sample {run} --out {yaml}/x.png", NOT_WRITTEN),
    Case("array on a full disk", "sample {run} --count 9000 --out {full}/x.npy", NOT_WRITTEN, full_disk),
    Case("archive on a full disk", "sample {run} --count 9000 --out {full}/x.npz", NOT_WRITTEN, full_disk),
    Case("images on a full disk", "sample {run} --count 900 --out {full}/x/", NOT_WRITTEN, full_disk),
    Case("grid on a full disk", "sample {run} --out a.png", NOT_WRITTEN, link_to_full_device("a.png")),
]

CHECKPOINTS = [
    Case("no run", "sample {tmp}/gone", MISSING),
    Case("a data set", "sample {data}", MISSING),
    Case("a file, no run", "sample {yaml}", NOT_WRITTEN),
    Case("samples of another kind", "sample {tmp}/gone --out grid.jpg", OPTION),
    Case("samples in a bucket", "sample {tmp}/gone --out s3://runs/x/", OPTION),
    Case("samples among others", "sample {run} --out {data}", OPTION),
    Case("samples nowhere", "sample {run} --count 1 --out {yaml}/", NOT_WRITTEN),
    Case("too large a grid", "sample {tmp}/gone --count 65537", OPTION),
    Case("checkpoint gone", "sample {run}/checkpoints/step-000000009", MISSING),
    Case("checkpoints without manifests", "sample {mine}", MISSING, checkpoint_file("manifest.json", None)),
    Case(
        "one without its manifest",
        "sample {mine}/checkpoints/step-000000002",
        MISSING,
        checkpoint_file("manifest.json", None),
    ),
    Case("cut state", "sample {mine}", DAMAGED, checkpoint_file("state.pt", lambda data: data[:-1])),
    Case("flipped state", "sample {mine}", DAMAGED, checkpoint_file("state.pt", flipped(3000))),
    Case("state gone", "sample {mine}", DAMAGED, checkpoint_file("state.pt", None)),
    Case("manifest garbage", "sample {mine}", DAMAGED, checkpoint_file("manifest.json", lambda _: b"\xff{")),
    Case("deep manifest", "sample {mine}", DAMAGED, checkpoint_file("manifest.json", lambda _: b"[" * 100_000)),
    Case("manifest of other software", "sample {mine}", DAMAGED, checkpoint_file("manifest.json", lambda _: b"[1]")),
    Case("newer format", "sample {mine}", make=manifest(format="distgan-checkpoint-9", distgan="9.0")),
    Case(
        "progress of words", "sample {mine}/checkpoints/step-000000002", MISSING, manifest(progress={"images": "many"})
    ),
    Case("progress of more", "sample {mine}/checkpoints/step-000000002", MISSING, manifest(progress={"epoch": 3})),
    Case(
        "evaluations of words",
        "sample {mine}/checkpoints/step-000000002",
        MISSING,
        manifest(progress={"evaluations": [{"step": 1, "images": 16, "distance": "good"}]}),
    ),
    Case("checkpoint of no run", "sample {run} --checkpoint ../x", OPTION),
    Case("checkpoint of a checkpoint", "sample {run}/checkpoints/step-000000002 --checkpoint last", OPTION),
    Case("other networks", "sample {mine}/checkpoints/step-000000002", MISSING, manifest(config={"latent_dim": 9})),
    Case("no tensors", "sample {mine}", DAMAGED, state(lambda _: b"hello")),
    Case("too few tensors", "sample {mine}", DAMAGED, state(lambda _: saved({}))),
    Case("code as tensors", "sample {mine}", DAMAGED, state(lambda _: saved({"ema": Path()}))),
    Case("resume other networks", RESUME, DAMAGED, state(lambda _: saved({"generator": {}}))),
    Case("resume another recipe", f"{RESUME} generator.width=8", DIFFERS, manifest()),
    Case("resume on other data", f"{RESUME} data.url={{other}}", DIFFERS, manifest()),
]

S3 = [
    Case("bucket gone, info", "data info s3://not-there/x", SERVER, s3),
    Case("bucket gone, render", "data render bricks --samples 2 --out s3://not-there/x", SERVER, s3),
    Case("bucket gone, train", "train quickstart data.url=s3://not-there/x", SERVER, s3),
    Case("bucket gone, runs", "train quickstart --dry-run --storage s3://not-there/x", SERVER, s3),
    Case("bucket gone, sample", "sample s3://not-there/x", SERVER, s3),
    Case("no bucket's name", "data render bricks --samples 2 --out s3://A_b!/x", SERVER, s3),
    Case("empty bucket, info", "data info {bucket}", MISSING, bucket),
    Case("empty bucket, index", "data index {bucket}", make=bucket),
    Case("empty bucket, train", "train quickstart data.url={bucket}", MISSING, bucket),
    Case("empty bucket, sample", "sample {bucket}/run", MISSING, bucket),
    Case("flipped in a bucket", "data verify {bucket}/data", DAMAGED, data_in_bucket(flipped(9_000))),
    Case("wrong secret", "data info {bucket}", SERVER, all_of(bucket, environment(AWS_SECRET_ACCESS_KEY="wrong"))),
    Case(
        "wrong secret, runs",
        "train quickstart --dry-run --storage {bucket}",
        SERVER,
        all_of(bucket, environment(AWS_SECRET_ACCESS_KEY="wrong")),
    ),
    Case("wrong key", "data info {bucket}", SERVER, all_of(bucket, environment(AWS_ACCESS_KEY_ID="nobody"))),
    Case("no profile", "data info {bucket}", SERVER, all_of(bucket, environment(AWS_PROFILE="nobody"))),
    Case("region", "data info s3://b/x", SERVER, all_of(s3, environment(AWS_DEFAULT_REGION="not a region"))),
    Case(
        "damaged profile",
        "data info s3://b/x",
        DAMAGED,
        all_of(s3, files(aws_config=b"[[[\n"), environment(AWS_CONFIG_FILE="aws.config")),
    ),
    Case(
        "endpoint without scheme",
        "data info s3://b/x",
        NOT_A_URL,
        all_of(s3, environment(AWS_ENDPOINT_URL="localhost:8333")),
    ),
    Case(
        "endpoint of half brackets",
        "data info s3://b/x",
        NOT_A_URL,
        all_of(s3, environment(AWS_ENDPOINT_URL="http://[::1")),
    ),
    Case(
        "endpoint of no port",
        "data info s3://b/x",
        NOT_A_URL,
        all_of(s3, environment(AWS_ENDPOINT_URL="http://h:99999")),
    ),
    Case("nobody listens", "data info s3://b/x", NO_ANSWER, all_of(s3, no_server)),
    Case("silence, info", "data info s3://b/x", NO_ANSWER, all_of(s3, silent_server)),
    Case("silence, render", "data render bricks --samples 2 --out s3://b/x", NO_ANSWER, all_of(s3, silent_server)),
    Case("a web server, info", "data info s3://b/x", DAMAGED, all_of(s3, web_server)),
    Case("a web server, render", "data render bricks --samples 2 --out s3://b/x", make=all_of(s3, web_server)),
]

RAY = [
    Case("no port", "train {yaml} --address head", OPTION),
    Case("superscript port", "train {yaml} --address head:²", OPTION),
    Case("client address", "train {yaml} --address ray://head:10001", OPTION),
    Case("host of dots", "train {yaml} --address a..b:6379", NO_ANSWER),
    Case("address from outside", "train {yaml}", NO_ANSWER, environment(RAY_ADDRESS="127.0.0.1:1")),
    Case("silent head", "train {yaml} --address 127.0.0.1:{port}", NO_ANSWER, all_of(silent_server, impatient_ray)),
    Case("other service", "train {yaml} --address 127.0.0.1:{port}", NO_ANSWER, other_grpc_server),
    Case("other version", "train {yaml} --address 127.0.0.1:{port}", make=ray_of_another_version),
]

STORE = [
    Case("port in use", "store up --dir store --port {port}", make=port_in_use),
    Case("no port number", "store up --dir store --port 70000"),
    Case("store in a file", "store up --dir {data}/index.json"),
    Case("store where nothing can be", "store up --dir /proc/x"),
    Case("store with a file inside", "store up --dir store", make=folder("store/weed.log")),
    Case("runs already", "store up --dir {store} --port 1", make=s3),
    Case("bucket's name", "store up --dir {store} --bucket Not_Allowed!", make=s3),
    Case("damaged state", "store status --dir {tmp}", DAMAGED, files(state_json=b"{")),
    Case("state of others", "store down --dir {tmp}", DAMAGED, files(state_json=b"[1]")),
    Case(
        "state of wrong types",
        "store up --dir {tmp}",
        DAMAGED,
        files(state_json=b'{"access_key": "a", "secret_key": "b", "ports": [1], "pid": "x"}'),
    ),
    Case(
        "state of impossible numbers",
        "store down --dir {tmp}",
        DAMAGED,
        files(state_json=b'{"access_key": "a", "secret_key": "b", "ports": {}, "pid": 99999999999999999999}'),
    ),
]

FOLDER = "evaluate {tmp}/images --data {data}"
TWO = images((32, 32), (32, 32))
WITH_STATISTICS = "evaluate {run} --statistics {tmp}/given.npz"

EVALUATION = [
    Case("nothing to compare with", "evaluate {tmp}/images", NOT_SET, TWO),
    Case("folder without images", FOLDER, make=images()),
    Case("mixed sizes", FOLDER, make=images((32, 32), (16, 16))),
    Case("mixed channels", FOLDER, make=images((32, 32), (32, 32, 3))),
    Case("other channels than the data", FOLDER, make=images((32, 32, 3), (32, 32, 3))),
    Case("other size than the data", FOLDER, make=images((16, 16), (16, 16))),
    Case("oblong images", FOLDER, make=images((16, 32), (16, 32))),
    Case("one image", FOLDER, make=images((32, 32))),
    Case("too few images", f"{FOLDER} --samples 3", OPTION, TWO),
    Case("image of no image", FOLDER, DAMAGED, images(b"text")),
    Case("half an image", FOLDER, DAMAGED, images((32, 32), GRAY[:60])),
    Case("npz of no zip", "evaluate {tmp}/x.npz --data {data}", DAMAGED, files(x_npz=b"no")),
    Case("no array there", "evaluate {tmp}/x.npy --data {data}", MISSING),
    Case(
        "npz without arr_0",
        "evaluate {tmp}/x.npz --data {data}",
        DAMAGED,
        files(x_npz=npz(images=np.zeros((2, 32, 32), np.uint8))),
    ),
    Case("array of floats", "evaluate {tmp}/x.npz --data {data}", make=files(x_npz=npz(arr_0=np.zeros((2, 32, 32))))),
    Case(
        "array of nothing",
        "evaluate {tmp}/x.npz --data {data}",
        make=files(x_npz=npz(arr_0=np.zeros((0, 32, 32), np.uint8))),
    ),
    Case(
        "array cut",
        "evaluate {tmp}/x.npy --data {data}",
        DAMAGED,
        files(x_npy=npy(np.zeros((4, 32, 32), np.uint8))[:-100]),
    ),
    Case("nothing to evaluate", "evaluate {tmp}/gone --data {data}", MISSING),
    Case("no data there", "evaluate {run} --data {tmp}/gone", MISSING),
    Case("run of another size", "evaluate {run} --data {data}"),
    Case("no such metric", "evaluate {run} --metrics fdi", UNKNOWN_NAME),
    Case("no metric", "evaluate {run} --metrics kid,,pr", UNKNOWN_NAME),
    Case("two extractors", "evaluate {run} --metrics fid,fd_lite0", OPTION),
    Case("metric of another extractor", "evaluate {run} --metrics fid --extractor fd_lite0", OPTION),
    Case("no such extractor", "evaluate {run} --extractor fd_lite", UNKNOWN_NAME),
    Case("no weights", "evaluate {run} --metrics fid", NOT_SET),
    Case(
        "weights of another hash",
        "evaluate {run} --metrics fid",
        make=all_of(files(weights_pth=b"other"), environment(DISTGAN_FID_WEIGHTS="weights.pth")),
    ),
    Case("score without logits", "evaluate {run} --metrics is"),
    Case("too few for recall", "evaluate {run} --metrics pr --samples 5", NOT_TOGETHER),
    Case("statistics of another extractor", WITH_STATISTICS, make=statistics(320, "fid", 16)),
    Case("statistics of another size", WITH_STATISTICS, make=statistics(320, "fd_lite0", 64)),
    Case("statistics of another dimension", WITH_STATISTICS, make=statistics(2048)),
    Case("no statistics there", WITH_STATISTICS, MISSING),
    Case("statistics that unpack to much", WITH_STATISTICS, make=unpacking_to("given.npz", "mu", 2 * 10**9, "<f8")),
    Case("statistics of none", WITH_STATISTICS, make=files(given_npz=b"no")),
    Case("kernel distance of statistics", f"{WITH_STATISTICS} --metrics kid", make=statistics(320)),
    Case(
        "to train against statistics of another size",
        "train {yaml} --name new evaluation.statistics={tmp}/given.npz",
        make=statistics(320, "fd_lite0", 64),
    ),
    Case(
        "statistics to watch recall by",
        "train {yaml} --name new evaluation.statistics={tmp}/given.npz evaluation.monitor=recall",
    ),
    Case("classes of statistics", f"{WITH_STATISTICS} --per-class", OPTION),
    Case("classes of none", "evaluate {run} --per-class", OPTION),
    Case("classes of a folder", f"{FOLDER} --per-class", OPTION, TWO),
    Case("checkpoint of a folder", f"{FOLDER} --checkpoint last", OPTION, TWO),
    Case("more nearest than samples", "evaluate {run} --samples 8 --nearest 9", OPTION),
    Case("nearest of statistics", "evaluate {run} --statistics {tmp}/given.npz --nearest 4", OPTION),
    Case("picture of no kind", "evaluate {run} --nearest 4 --picture x.jpg", OPTION),
    Case("folder as JSON", "evaluate {run} --json {tmp}", OPTION),
    Case("JSON elsewhere", "evaluate {run} --json s3://a/b", OPTION),
    Case("own code to evaluate", "evaluate {mine}", NO_CODE, manifest(config={"generator": {"network": "os:system"}})),
    Case("two workers, one process", "evaluate {run} --no-ray --workers 2", OPTION),
    Case("nothing to take statistics of", "data stats {tmp}", MISSING),
    Case("statistics of several sizes", "data stats {mine}", make=header(image_size=None)),
    Case("statistics elsewhere", "data stats {data} --out s3://a/b.npz", OPTION),
    Case("statistics under no name", "data stats {data} --out {tmp}/stats", OPTION),
    Case("statistics of no size", "data stats {data} --size 16 --resize none", OPTION),
]

TUNE = "tune quickstart data.url={data} --storage {tmp}/runs"
G = "optimizer.generator.lr"
PBT = f"{TUNE} --scheduler pbt"
GOING_ON = "tune quickstart data.url={data} --storage {tmp} --name begun"
SEARCH = [
    Case("nothing to search", "tune --storage {tmp}/runs"),
    Case("search of no preset", "tune quikstart", UNKNOWN_NAME),
    Case("elastic trials", f"{TUNE} scale.min_workers=1"),
    Case("search without data", "tune quickstart --storage {tmp}/runs", NOT_SET),
    Case("a file's space", "tune {yaml} --storage {tmp}/runs"),
    Case("key of a space", f"{TUNE} --space optimizer.generator.lrr=uniform(0,1)", UNKNOWN_KEY),
    Case("key not searched", f"{TUNE} --space seed=randint(0,9)"),
    Case("empty range", f"{TUNE} --space {G}=loguniform(1e-3,1e-5)"),
    Case("choice of an invalid value", f"{TUNE} --space objective.name=choice(bce,lsgan)", UNKNOWN_NAME),
    Case("no such space", f"{TUNE} --space rates.yaml", MISSING),
    Case("pbt of a key of the start", f"{PBT} --space generator.width=choice(8,16)"),
    Case("pb2 of a choice", f"{TUNE} --scheduler pb2 --space {G}=choice(1e-4,1e-3)"),
    Case("metric of none", f"{TUNE} --metric fidd", UNKNOWN_NAME),
    Case("two metrics", f"{TUNE} --metric pr", OPTION),
    Case("metric of two extractors", f"{TUNE} --metric fid,fd_lite0", OPTION),
    Case("metric that is not measured", f"{TUNE} --metric is"),
    Case("metric of too few", f"{TUNE} --metric recall evaluation.samples=4", NOT_TOGETHER),
    Case("fid without weights", f"{TUNE} --metric fid", NOT_SET),
    Case("scheduler of none", f"{TUNE} --scheduler ahsa", UNKNOWN_NAME),
    Case("search of none", f"{TUNE} --search tpee", UNKNOWN_NAME),
    Case("tpe with pbt", f"{PBT} --search tpe", OPTION),
    Case("seeds with pbt", f"{PBT} --seeds 2", OPTION),
    Case("population of one", f"{PBT} --trials 1", OPTION),
    Case("warm start at random", f"{TUNE} --warm-start x", OPTION),
    Case("warm start of nothing", f"{TUNE} --search tpe --warm-start {{tmp}}/gone", MISSING),
    Case(
        "warm start by another metric",
        f"{TUNE} --search bayes --warm-start {{tmp}}/begun evaluation.samples=64",
        OPTION,
        search_begun(),
    ),
    Case("warm start elsewhere", f"{TUNE} --search tpe --warm-start {{tmp}}/begun", OPTION, search_begun()),
    Case("grace above all", f"{TUNE} --grace-kimg 999", OPTION),
    *(
        Case(f"{option} {value}", f"{TUNE} {option} {value}", OPTION)
        for option, values in {
            "--target": ("nan", "inf"),
            "--budget-kimg": ("nan", "inf", "-5", "0"),
            "--budget-hours": ("nan", "0"),
            "--interval-kimg": ("nan", "-inf", "0"),
            "--grace-kimg": ("nan", "0", "-1"),
        }.items()
        for value in values
    ),
    *(Case(f"reduction {value}", f"{TUNE} --reduction-factor {value}", OPTION) for value in ("nan", "inf", "1", "-3")),
    Case("interval of all", f"{PBT} --space {G}=uniform(0.1,1) --interval-kimg 240", OPTION),
    Case("endless grid", f"{TUNE} --search grid --grid-points 500"),
    Case("search with a slash", f"{TUNE} --name a/b", OPTION),
    Case("search called as a run", f"{TUNE} --storage {{run}}/.. --name run", DIFFERS),
    Case("search with another space", f"{GOING_ON} --space {G}=loguniform(1e-4,1e-3)", DIFFERS, search_begun()),
    Case("search of another configuration", f"{GOING_ON} training.batch_size=48", DIFFERS, search_begun()),
    Case("search by another scheduler", f"{GOING_ON} --scheduler median --seed 3", DIFFERS, search_begun()),
    Case("damaged search", GOING_ON, DAMAGED, search_begun(lambda content: content[:-50])),
    Case("search that is binary", GOING_ON, DAMAGED, search_begun(lambda content: b"\xff\0" + content)),
    Case(
        "search of no number",
        GOING_ON,
        DAMAGED,
        search_begun(lambda content: content.replace(b'"trials": []', b'"trials": [Infinity]')),
    ),
    Case(
        "trial without its parent",
        "tune --results {tmp}/begun",
        DAMAGED,
        search_begun(
            lambda content: content.replace(
                b'"trials": []', b'"trials": [{"number": 0, "draw": {}, "overrides": {}, "seed": 0, "parent": 7}]'
            )
        ),
    ),
    Case(
        "trial of no state",
        "tune --results {tmp}/begun",
        DAMAGED,
        search_begun(
            lambda content: content.replace(
                b'"trials": []', b'"trials": [{"number": 0, "draw": {}, "overrides": {}, "seed": 0, "state": "?"}]'
            )
        ),
    ),
    Case("results of nothing", "tune --results {tmp}/gone", MISSING),
    Case("results of a run", "tune --results {run}", MISSING),
    Case("fraction above one", f"{TUNE} --cpus-per-worker 1.5"),
    Case("no number of CPUs", f"{TUNE} --cpus-per-worker inf", NOT_ALLOWED),
]

CASES = [
    *CONFIGURATION,
    *EVALUATION,
    *LABELS,
    *URLS,
    *INDEX,
    *SHARDS,
    *SOURCES,
    *DISKS,
    *CHECKPOINTS,
    *S3,
    *RAY,
    *SEARCH,
    *STORE,
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 gray images of 32x32 pixels in three shards."""
    made = tmp_path_factory.mktemp("data") / "numbered"
    pack_numbered(made, 100, size=32)
    return made


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a finished run of two steps, `run`, its configuration, `run.yaml`, and other data, `other`."""
    made = tmp_path_factory.mktemp("trained")
    threads = torch.get_num_threads()
    config = tiny_config("quickstart", pack_bricks(made / "data", samples=80), 2, "checkpoint.every_kimg=0.016")
    pack_bricks(made / "other", seed=1, samples=80)
    run(config, str(made))
    # The next run has no second in which to evaluate.
    (made / "run.yaml").write_text(dump_config(config))
    yield made
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", name="run")
def finished_run(run_folder: Path) -> Path:
    return run_folder / "run"


def test_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_one_line(
    case: Case,
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    same_words: Callable[..., None],
) -> None:
    place = Place(tmp_path, request, monkeypatch)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("distgan.data.blocks._FIRST_WAIT_S", 0.0)
    monkeypatch.setattr("distgan.training.run_spec.RunSpec.patience_s", 0.0)
    case.make(place)
    words = Words(place)
    arguments = [part.format_map(words) for part in case.line.split()]
    if case in SEARCH:
        monkeypatch.setattr("distgan.search.ray.tuner.ray_cluster", None)
    before = set(tmp_path.rglob("*"))
    started = time.monotonic()
    message = one_line(cli(*arguments))
    assert re.search(case.kind, message), message
    assert time.monotonic() - started < 45
    assert not (tmp_path / "new" / "index.json").exists()
    if case in SEARCH:
        assert set(tmp_path.rglob("*")) == before
    same_words(message, **(words | place.words))


class Words(dict[str, str]):
    """What the words of a command line stand for; a data set or a run is made when it is asked for."""

    def __init__(self, place: Place) -> None:
        super().__init__(place.words, tmp=str(place.tmp))
        self._fixture = place.request.getfixturevalue

    def __missing__(self, word: str) -> str:
        if word == "data":
            self["data"] = str(self._fixture("data"))
        else:
            made = self._fixture("run_folder")
            self.update(run=f"{made}/run", yaml=f"{made}/run.yaml", other=f"{made}/other")
        return self[word]


USAGE = [
    "train",
    "trian quickstart",
    "presets lists",
    "train quickstart --wrokers 2",
    "train quickstart --zzz",
    "train quickstart -w 2",
    "--verison",
    "train quickstart --workers",
    "train quickstart --workers two",
    "train quickstart --workers 8:1",
    "train quickstart --workers 0:2",
    "train quickstart --workers 1:",
    "presets show a b",
    "data pack x --out y",
    "data pack x --out y --format npz --channels 2",
    "data pack x --out y --format cifar --split half",
    "data render bricks --out y --size 4",
    "data render bricks --out y --samples 0",
    "data render bricks --out y --samples 1000000000000000000000",
    "data render bricks --out y --seed -1",
    "data render bricks --out y --shard-mb 0",
    "evaluate",
    "evaluate x --samples 1",
    "evaluate x --metric fid",
    "data stats x --real-samples 3",
    "sample x --count 0",
    "sample x --seed 99999999999999999999",
    "store up --port high",
    "tune",
    "tune x --trials 0",
    "tune x --workers-per-trial 0",
    "tune x --cpus-per-worker 0",
    "tune x --gpus-per-worker -1",
    "tune x --concurrent 0",
    "tune x --seeds 0",
    "tune x --grid-points 0",
    "tune x --target low",
    "tune x --searcher tpe",
]


@pytest.mark.parametrize("line", USAGE)
def test_a_wrong_usage_is_one_line(cli: Cli, line: str, same_words: Callable[..., None]) -> None:
    result = cli(*line.split())
    message = one_line(result)
    assert re.search("[;?] see `distgan .*--help`$", message), message
    assert len(message) < 250
    assert result.out == ""
    same_words(message)
