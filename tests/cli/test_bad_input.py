"""What a user may get wrong, and what the world may do: always one line, exit code 2, never a traceback.

A case is a line of `CASES`: its name, the command line, a pattern that the message must match, and what makes the
circumstance (`circumstances.py`). In command lines and patterns `{data}` is a good data set of 100 gray images of
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
    message: str
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
    Case("preset", "train quikstart", r"unknown preset 'quikstart'; did you mean 'quickstart'\?"),
    Case("preset shown", "presets show quick-start", "unknown preset 'quick-start'; did you mean 'quickstart'"),
    Case("no file", "train gone.yaml", r"cannot read the configuration gone\.yaml: .*No such file"),
    Case("folder as file", "train a.yaml", r"cannot read the configuration a\.yaml: .*directory", folder("a.yaml")),
    Case("not UTF-8", "train a.yaml", "cannot read the configuration a.yaml: .*utf-8", files(a_yaml=b"seed: \xff")),
    Case("a list", "train a.yaml", "a.yaml: a configuration is a mapping of keys", files(a_yaml=b"- seed\n- 1\n")),
    Case("no YAML", "train a.yaml", "a.yaml: not valid YAML in line 2: ", files(a_yaml=b"data:\n\turl: x\n")),
    Case("impossible tag", "train a.yaml", "a.yaml: not valid YAML: ", files(a_yaml=b"seed: !!bool 7\n")),
    Case("code", "train a.yaml", "a.yaml: not valid YAML", files(a_yaml=b"seed: !!python/object/apply:os.getpid []\n")),
    Case(
        "key in file", "train a.yaml", r"a.yaml: data.ulr: unknown key; .*'data\.url'", files(a_yaml=b"data: {ulr: x}")
    ),
    Case("type in file", "train a.yaml", "a.yaml: channels='one'", files(a_yaml=b"channels: one")),
    Case(
        "list for a number",
        "train a.yaml",
        r"a.yaml: seed=\[1\]: allowed: integer, 0 to",
        files(a_yaml=b"seed: [1]"),
    ),
    Case("key", "train quickstart sed=1", r"preset quickstart: sed: unknown key; did you mean 'seed'"),
    Case("nested key", "train quickstart training.batchsize=1", r"training\.batchsize: unknown key; .*\.batch_size'"),
    Case("no value", "train quickstart seed", "override 'seed': write KEY=VALUE"),
    Case("not offered", "train quickstart image_size=48", "image_size=48: allowed: 16, 32, 64 or 128"),
    Case(
        "no number",
        "train quickstart optimizer.generator.lr=nan",
        r"optimizer\.generator\.lr='nan': allowed: number",
    ),
    Case(
        "budget without end",
        "train quickstart training.kimg=1e306",
        r"kimg=.*: allowed: number above 0, at most 1e9",
    ),
    Case(
        "no measure",
        "train quickstart evaluation.monitor=kid",
        "evaluation.monitor: unknown metric 'kid'; there are: coverage, density, frechet, inception_score, kernel",
    ),
    Case("threads", "train quickstart scale.threads=1000000", r"scale\.threads=1000000: allowed: integer, 1 to 1024"),
    Case("objective", "train quickstart objective.name=lsgan", "unknown objective 'lsgan'; did you mean 'wgan'"),
    Case("workers", "train quickstart --workers 5", r"scale\.workers=5 is more than scale\.groups=2"),
    Case("no workers", "train quickstart --workers 0", r"scale\.workers=0: allowed: integer, 1 to 4096"),
    Case("batch", "train quickstart training.batch_size=100", "must be a multiple of data.streams=16"),
    Case(
        "huge batch",
        "train quickstart training.batch_size=160000000000",
        "batch_size=.*: allowed: integer, 2 to 10",
    ),
    Case("groups", "train quickstart scale.groups=3", r"data\.streams=16 must be a multiple of scale\.groups=3"),
    Case(
        "widths", "train quickstart generator.widths=[1,2] --dry-run", "widths has 2 entries, the network has 3 stages"
    ),
    Case(
        "strides",
        "train quickstart generator.strides=[3,3] --dry-run",
        r"generator: strides \[3, 3\] lead from 4 to 36, not to 32",
    ),
    Case(
        "combination",
        "train wgan-gp-faces discriminator.network=dcgan --dry-run",
        r"discriminator\.network=dcgan normalizes over the batch, which objective\.name=wgan_gp forbids",
    ),
    Case(
        "penalty on batch statistics",
        "train quickstart objective.r1_weight=1 --dry-run",
        r"normalizes over the batch, which objective\.name=bce forbids.*or objective\.r1_weight=0",
    ),
    Case(
        "penalty and simultaneous",
        "train quickstart objective.r1_weight=1 discriminator.network=wgan_gp --dry-run",
        r"objective\.updates=simultaneous does not go with objective\.name=bce.*sequential or objective\.r1_weight=0",
    ),
    Case(
        "budget beyond decay",
        "train quickstart 'optimizer.lr_factor={from: 1, to: 0, until_kimg: 100}'",
        r"training\.kimg=240 is beyond optimizer\.lr_factor\.until_kimg=100",
    ),
    Case("name with a slash", "train quickstart --name a/b", "--name 'a/b': use letters, digits"),
    Case("name above", "train quickstart --name ..", r"--name '\.\.': use letters, digits"),
    Case("no data", "train quickstart", r"data\.url is not set: add data\.url=URL"),
    Case(
        "workers, no Ray",
        "train quickstart --no-ray --workers 2",
        "--no-ray works in this process alone, not on 2 workers: start `torchrun --nproc-per-node 2 ",
    ),
    Case("no data, no Ray", "train quickstart --no-ray", r"data\.url is not set: add data\.url=URL"),
    Case(
        "extractor",
        "train quickstart data.url={data} evaluation.extractor=fd_light0",
        r"unknown feature extractor .*fd_lite0",
    ),
    Case(
        "no FID weights",
        "train quickstart data.url={data} evaluation.extractor=fid",
        r"evaluation\.extractor=fid needs published weights, which are not set; download pt_inception",
    ),
    Case(
        "missing FID weights",
        "train quickstart data.url={data} evaluation.extractor=fid evaluation.weights=nowhere.pth --no-ray",
        r"nowhere\.pth: no weights of evaluation\.extractor=fid",
    ),
    Case(
        "other FID weights",
        "train quickstart data.url={data} evaluation.extractor=fid evaluation.weights={data}/index.json --no-ray",
        r"index\.json: not the published weights: its SHA-256 begins with .*; download pt_inception",
    ),
    Case(
        "measure",
        "train quickstart data.url={data} evaluation.metrics=[kid]",
        r"evaluation\.metrics: unknown metric 'kid'; there are: .*kernel",
    ),
    Case(
        "image size",
        "train quickstart data.url={data} image_size=64",
        r"but the images at .* have 32: set image_size=32",
    ),
    Case("channels", "train quickstart data.url={data} channels=3", r"but the images at .* have 1: set channels=1"),
    Case(
        "streams",
        "train quickstart data.url={data} data.streams=128 training.batch_size=128",
        r"data\.streams=128 is more than the data set's 100 samples",
    ),
]

LABELED = "train quickstart generator.network=conditional:Generator discriminator.network=conditional:Critic"
LABELS = [
    Case(
        "no number of classes",
        "train quickstart num_classes=few",
        "num_classes='few': allowed: integer, 2 to 4096",
    ),
    Case("one class", "train quickstart num_classes=1", "num_classes=1: allowed: integer, 2 to 4096, or null"),
    Case(
        "networks without labels",
        "train quickstart num_classes=3 --dry-run",
        r"generator\.network=dcgan takes no labels, and num_classes=3 asks for a conditional network",
    ),
    Case(
        "one network without labels",
        f"{LABELED} num_classes=3 discriminator.network=dcgan --dry-run",
        r"discriminator\.network=dcgan takes no labels, and num_classes=3",
    ),
    Case(
        "conditional networks, no classes",
        f"{LABELED} --dry-run",
        "generator.network=conditional:Generator is a conditional network; set num_classes",
    ),
    Case(
        "other number of classes",
        f"{LABELED} num_classes=4 data.url={{data}}",
        "num_classes=4, but the images at {data} have 3 classes: set num_classes=3",
    ),
    Case(
        "data of no classes",
        f"{LABELED} num_classes=3 data.url={{mine}}",
        r"num_classes=3, but the images at .* have 0 classes: train unconditional networks",
        header(classes=[]),
    ),
    Case(
        "some without labels",
        f"{LABELED} num_classes=3 data.url={{mine}}",
        "num_classes=3, but 1 of the 100 images at {mine} have no label: pack them with labels",
        columns(labels=put(3, -1)),
    ),
    Case(
        "labels beyond the classes",
        f"{LABELED} num_classes=3 data.url={{mine}}",
        "{mine}: damaged: it has the label 3 and 3 classes; rebuild the index",
        columns(labels=put(3, 3)),
    ),
    Case("label of none", "sample {run} --label 0", "--label 0: the generator of step-.* takes no labels"),
    Case(
        "all labels of none",
        "sample {run} --label all",
        "--label all: the generator of step-.* takes no labels; leave --label out",
    ),
    Case("no own module", "train quickstart generator.network=gone:Net", "gone:Net: there is no module 'gone'; go to"),
    Case(
        "no own objective",
        "train quickstart objective.name=conditional:Loss",
        "objective.name: conditional:Loss: module 'conditional' has no class 'Loss'; there are: Critic, Generator",
    ),
    Case(
        "own code in a checkpoint",
        "sample {mine}",
        r"step-000000002: its configuration runs code of modules outside distgan \(generator\.network=os:system\)",
        manifest(config={"generator": {"network": "os:system"}}),
    ),
    Case(
        "own code in a run",
        RESUME,
        r"generator\.network was os:system and is dcgan; set them back",
        manifest(config={"generator": {"network": "os:system"}}),
    ),
    Case("weights gone", "train {yaml} --name new --init-from {tmp}/gone", "gone: no checkpoints there; give a run's"),
    Case(
        "weights of no tensors",
        "train {yaml} --name new --init-from {mine}",
        r"damaged or unfinished \(.*step-000000002: damaged: its tensors are not those of its networks: generator is",
        state(lambda _: saved({})),
    ),
    Case(
        "weights for a run that exists",
        f"{RESUME} --init-from {{run}}",
        "mine already exists, and began from random weights",
        manifest(),
    ),
    Case("nothing to continue", f"{CONTINUE} {{tmp}}/gone", "gone: no checkpoints there; give a run's"),
    Case("weights and state", f"{CONTINUE} {{run}} --init-from {{run}}", "--init-from and --continue-from: give one"),
    Case(
        "state for a run that exists",
        f"{RESUME} --continue-from {{run}}",
        "--continue-from .*mine already exists, and began from random weights; leave --continue-from out",
        manifest(),
    ),
    Case(
        "state of other networks",
        f"{CONTINUE} {{run}} generator.width=8 optimizer.generator.lr=0.1",
        r"another configuration: generator\.width was 4 and is 8; set them back \(of what .* only .*--init-from",
    ),
    Case(
        "state of other data",
        f"{CONTINUE} {{run}} data.url={{other}}",
        r"trained on other data .*set data\.url to them",
    ),
    Case("state of the whole budget", f"{CONTINUE} {{run}}", r"training\.kimg=.* includes them; set"),
    Case(
        "state of own code",
        f"{CONTINUE} {{mine}}",
        r"generator\.network was os:system and is dcgan",
        manifest(config={"generator": {"network": "os:system"}}),
    ),
    Case(
        "state of no tensors",
        f"{CONTINUE} {{mine}} training.kimg=9 --no-ray",
        r"step-000000002: damaged: its tensors are not those of its networks: generator is missing",
        state(lambda _: saved({})),
    ),
]

URLS = [
    Case("empty URL", "train quickstart data.url=", "is not a URL"),
    Case("unknown scheme", "train quickstart data.url=ftp-ish://x/y", "unknown protocol ftp-ish://"),
    Case("near scheme", "data info s4://x/y", r"unknown protocol s4://; did you mean s3://\?"),
    Case("pipe as storage", "train quickstart --dry-run --storage pipe:ls", "not a URL of a folder"),
    Case("pipe as data", "data info pipe:ls", "pipe:ls: not a URL of a folder"),
    Case("pipe as output", "data render bricks --samples 2 --out pipe:cat", "not a URL of a folder"),
    Case("one slash", "data info s3:/bricks", "write s3://bucket/folder"),
    Case("no bucket", "data info s3://", "a name has parts"),
    Case("home of nobody", "data info ~nobody-here/x", "there is no such user; write ./~nobody-here/x"),
    Case("bytes as a folder", "data render bricks --samples 2 --out caf\udce9", "not UTF-8; rename it"),
    Case("chain", "data info simplecache::s3://bricks", "chained URLs"),
    Case("password", "data render bricks --out s3://user:secret@bucket/x --samples 2", "s3://…: no passwords in a URL"),
    Case("relative file", "data info file://x/y", "needs an absolute path; write file:///folder"),
    Case("missing package", "data info gs://x/y", r"needs a package that is not installed; install gcsfs"),
    Case(
        "scheme that needs more",
        "data info github://x/y",
        "github:// needs more than a URL; use a local path, s3://",
    ),
    Case("a slash in a password", "data info s3://me:se/cret@bricks/x", "^s3://…: no passwords in a URL"),
    Case("token as a user", "data info https://TOKEN@host/x", "^https://…: no passwords in a URL"),
    Case("signature", "data info https://host/x?sig=secret", "^https://…: no passwords in a URL"),
    Case("scheme without sense", "data info dir://x/y", "dir:// needs more than a URL"),
    Case("web page as data", "data info http://127.0.0.1:{port}", "server cannot be reached; check the URL", no_server),
    Case(
        "web page as output",
        "data render bricks --samples 2 --out http://127.0.0.1:{port}",
        "server cannot be reached",
        no_server,
    ),
]

INDEX = [
    Case("no index", "data info {tmp}", r"/index\.json: no index; name the folder"),
    Case("index is a pipe", "data info {mine}", r"/index\.json: is no regular file", pipe_in_data("index.json")),
    Case("table is a pipe", "data info {mine}", r"/index\.table: is no regular file", pipe_in_data("index.table")),
    Case("shard is a pipe", TRAIN_MINE, r"/shard-00000\.tar: is no regular file", pipe_in_data("shard-00000.tar")),
    Case("index of depth", "data info {mine}", "nested too deeply", index_text(b"[" * 10_000)),
    Case("index of no number", "data info {mine}", "NaN is no number", index_text(b'{"samples": NaN}')),
    Case("index of long number", "data info {mine}", "too large", index_text(b'{"samples": 1' + b"0" * 400 + b"}")),
    Case("no folder", "data verify {tmp}/gone", r"gone/index\.json: no index; name the folder"),
    Case("no index to train on", "train quickstart data.url={tmp}", r"/index\.json: no index; name the folder"),
    Case(
        "no folder to train on", "train quickstart data.url={tmp}/gone", r"gone/index\.json: no index; name the folder"
    ),
    Case("a file, no folder", "data info {data}/index.json", "index.json"),
    Case("no JSON", "data info {mine}", "index.json: damaged, or not an index of distgan", index_text(b"<html>")),
    Case("deep JSON", "data info {mine}", "damaged, or not an index", index_text(b"[" * 100_000)),
    Case("other format", "data info {mine}", "damaged.*: format: .*data index", header(format="distgan-index-9")),
    Case("word for a number", "data info {mine}", "damaged.*: samples: .*integer", header(samples="many")),
    Case("negative samples", "data verify {mine}", "damaged.*: samples: .*greater than", header(samples=-100)),
    Case("other sum", "data verify {mine}", "damaged: the shards' samples do not add up to 99", header(samples=99)),
    Case("class of no name", "data info {mine}", r"damaged.*: classes\.0: .*string", header(classes=[1, 2])),
    Case("path as shard", "data info {mine}", r"damaged.*: shards\.0: ", header(shards=["../../etc/passwd"])),
    Case("cut table", "train {yaml} data.url={mine}", r"index\.table: does not belong", table(lambda data: data[:-4])),
    Case("flipped table", "data verify {mine}", r"index\.table: does not belong to index\.json", table(flipped(30))),
    Case("image of no bytes", "data info {mine}", "damaged: sample 5 does not lie", columns(lengths=put(5, 0))),
    Case("images that overlap", "data info {mine}", "damaged: sample 4 does not lie", columns(lengths=put(4, 99_999))),
    Case(
        "image outside", "data info {mine}", r"damaged: sample 99 does not lie", columns(offsets=put(99, 512 * 10**6))
    ),
    Case("images in disorder", "data info {mine}", "damaged: sample 6 does not lie", columns(offsets=put(7, 512))),
]

SHARDS = [
    Case("shard gone", "data verify {mine}", "{mine}: faults found: 1; upload or pack those", shard(None)),
    Case(
        "shard cut", "data verify {mine}", "{mine}: faults found: 2; upload or pack", shard(lambda data: data[:40_000])
    ),
    Case("shard flipped", "data verify {mine}", "faults found: 2", shard(flipped(9_000))),
    Case("block's checksum", "data verify {mine}", "faults found: 1", columns(checksums=put(0, 1))),
    Case("no image", "data verify {mine}", "faults found: 1", image(b"GIF89a")),
    Case("no palette", "data verify {mine}", "faults found: 1", image(NO_PALETTE)),
    Case("small image", "data verify {mine}", "faults found: 1", image(SMALL)),
    Case("label above", "data verify {mine}", "faults found: 1", columns(labels=put(3, 3))),
    Case("label below", "data verify {mine}", "faults found: 1", columns(labels=put(3, -2))),
    Case("train, shard gone", TRAIN_MINE, r"mine/shard-00000\.tar: not found", shard(None)),
    Case("train, shard cut", TRAIN_MINE, r"00000\.tar: bytes .* do not match", shard(lambda data: data[:40_000])),
    Case("train, shard flipped", TRAIN_MINE, r"00000\.tar: bytes .* data verify", shard(flipped(9_000))),
    Case("train, no image", TRAIN_MINE, r"sample 0 .*not a whole PNG, JPEG, WebP", image(b"GIF89a")),
    Case("train, small image", TRAIN_MINE, r"sample 0 .*it has 8x8 pixels, not 32x32", image(SMALL)),
    Case("no shards to index", "data index {tmp}", r"no \.tar files there"),
    Case("deep attributes", "data index foreign", r"a\.json: not valid JSON", foreign(("a.json", b"[" * 100_000))),
    Case("sparse image", "data index foreign", "a.png: stored as a sparse file", foreign(("a.png", GRAY), sparse=True)),
    Case("label of words", "data index foreign", "the label 'cat' is not", foreign(("a.png", GRAY), ("a.cls", b"cat"))),
    Case(
        "no good sample to index",
        "data index foreign --bad skip",
        "a.tar: none of its 1 samples can be used; take this shard away",
        foreign(("a.jpg", b"x")),
    ),
    Case("no image to index", "data index foreign", r"a\.jpg: not a readable image", foreign(("a.jpg", b"\xff\xd8"))),
]

SOURCES = [
    Case("photos gone", PACK_PHOTOS, "photos: no such folder of images"),
    Case("photos empty", PACK_PHOTOS, "no image files below it", folder("photos")),
    Case("no photos", "data pack {data} --format folder --out new", "no image files below it"),
    Case("text as photo", PACK_PHOTOS, r"photos/a\.png: not a readable image", photos(b"hello")),
    Case(
        "PostScript as photo",
        PACK_PHOTOS,
        r"a\.png: not a readable image",
        photos(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"),
    ),
    Case("cut photo", PACK_PHOTOS, r"photos/a\.png: not a readable image", photos(GRAY[:60])),
    Case("class without a name", PACK_PHOTOS, "has a name that is not UTF-8; rename it", class_folder(b"caf\xe9")),
    Case("no IDX files", "data pack {data} --format idx --out new", r"no \*-images-idx3-ubyte files"),
    Case("IDX gone", PACK_IDX, "a-images-idx3-ubyte: cannot be read: .*No such file"),
    Case(
        "IDX garbage", PACK_IDX, "not an IDX file of unsigned bytes", files(**{"a-images-idx3-ubyte": b"hello there"})
    ),
    Case(
        "IDX cut",
        PACK_IDX,
        "has 9 bytes .* announces 32",
        files(**{"a-images-idx3-ubyte": idx(2, 4, 4, body=b"x" * 9)}),
    ),
    Case("IDX of 100 dimensions", PACK_IDX, "has 100 dimensions", files(**{"a-images-idx3-ubyte": idx(*[1] * 100)})),
    Case("IDX of nothing", PACK_IDX, "holds no images", files(**{"a-images-idx3-ubyte": idx(0, 2**31, 2**31)})),
    Case(
        "IDX labels",
        PACK_IDX,
        r"a-labels-idx1-ubyte: has shape \(3,\) beside 2 images",
        files(**{"a-images-idx3-ubyte": idx(2, 4, 4), "a-labels-idx1-ubyte": idx(3)}),
    ),
    Case(
        "IDX in half a gzip",
        PACK_IDX,
        "cannot be read: ",
        files(**{"a-images-idx3-ubyte": gzip.compress(idx(2, 4, 4))[:-9]}),
    ),
    Case("text as npz", PACK_NPZ, r"a\.npz: not a readable \.npz archive of numbers; write one", files(a_npz=b"hello")),
    Case("npz without images", PACK_NPZ, r"a\.npz: has pictures, but none of images", files(a_npz=npz(pictures=[1]))),
    Case("npz of floats", PACK_NPZ, "images are float64 .*must be uint8", files(a_npz=npz(images=np.zeros((2, 4, 4))))),
    Case(
        "npz of objects",
        PACK_NPZ,
        "not a readable .npz archive of numbers; write one",
        files(a_npz=npz(images=np.array([{}, []], object))),
    ),
    Case(
        "npz with too few labels",
        PACK_NPZ,
        "labels must be 2 integers, one an image",
        files(a_npz=npz(images=np.zeros((2, 4, 4), np.uint8), labels=[1])),
    ),
    Case(
        "npz with a negative label",
        PACK_NPZ,
        "labels start at 0; there is a -1",
        files(a_npz=npz(images=np.zeros((2, 4, 4), np.uint8), labels=[0, -1])),
    ),
    Case("no celeba", PACK_FACES, "^celeba: no such file or folder; give CelebA's folder or img_align_celeba.zip"),
    Case("celeba empty", PACK_FACES, "^celeba: no images in img_align_celeba; give", folder("celeba")),
    Case("celeba no zip", PACK_FACES, "^celeba: not a readable zip file: .*; get it again", files(celeba=b"PK")),
    Case(
        "zip of other things",
        PACK_FACES,
        "^celeba: no images in img_align_celeba; give",
        lambda place: zip_faces(place.tmp / "celeba", "faces/"),
    ),
    Case(
        "zip cut",
        PACK_ZIP,
        "^img_align_celeba.zip: not a readable zip file: ",
        lambda place: (
            zip_faces(place.tmp / "whole"),
            (place.tmp / "img_align_celeba.zip").write_bytes((place.tmp / "whole").read_bytes()[:4000]),
        ),
    ),
    Case(
        "attribute",
        f"{PACK_FACES} --label Blonde_Hair",
        "^--label Blonde_Hair: no such attribute in celeba/list_attr_celeba.txt; did you mean 'Blond_Hair'",
        faces(),
    ),
    Case("attribute twice", f"{PACK_FACES} --label Male --label Male", "^--label Male is given twice", faces()),
    Case(
        "attributes without end",
        f"{PACK_FACES} {' '.join(f'--label {name}' for name in ATTRIBUTES)}",
        "^--label is given 40 times; more than 12",
        faces(),
    ),
    Case(
        "no list",
        f"{PACK_FACES} --label Male",
        "^celeba: no list_attr_celeba.txt or list_attr_celeba.csv there or beside it",
        faces(lambda place: (place / "list_attr_celeba.txt").unlink()),
    ),
    Case(
        "list no text",
        f"{PACK_FACES} --label Male",
        "celeba/list_attr_celeba.txt: not UTF-8 text",
        faces(lambda place: (place / "list_attr_celeba.txt").write_bytes(b"8\n\xff")),
    ),
    Case(
        "list of other things",
        f"{PACK_FACES} --label Male",
        "list_attr_celeba.txt: not CelebA's list of attributes",
        faces(attribute_list(lambda text: "<html>Quota exceeded</html>")),
    ),
    Case(
        "row cut",
        f"{PACK_FACES} --label Male",
        "list_attr_celeba.txt: line 10: 000008.jpg has 39 values for 40 attributes; get it again",
        faces(attribute_list(lambda text: text[:-4])),
    ),
    Case(
        "row with a word",
        f"{PACK_FACES} --label Young",
        "list_attr_celeba.txt: line 10: 000008.jpg: Young is x, not 1 or -1",
        faces(attribute_list(lambda text: f"{text[:-3]}x\n")),
    ),
    Case(
        "image not in the list",
        f"{PACK_FACES} --label Male",
        "list_attr_celeba.txt: has no 000009.jpg, which celeba/img_align_celeba has .1 such in all.; get the list",
        faces(lambda place: (place / "img_align_celeba" / "000009.jpg").write_bytes(b"")),
    ),
    Case(
        "image in the list only",
        f"{PACK_FACES} --label Male",
        "celeba/img_align_celeba: has no 000002.jpg, which celeba/list_attr_celeba.txt has .1 such in all.; unpack",
        faces(lambda place: (place / "img_align_celeba" / "000002.jpg").unlink()),
    ),
    Case(
        "no face",
        PACK_FACES,
        "celeba/img_align_celeba/000002.jpg: not a readable image",
        faces(lambda place: (place / "img_align_celeba" / "000002.jpg").write_bytes(b"\xff\xd8")),
    ),
    Case("no cifar", PACK_CIFAR, "^cifar: not found; check the name"),
    Case("cifar no archive", PACK_CIFAR, "^cifar: not a whole tar file: .*give the folder or", files(cifar=b"hello")),
    Case(
        "cifar archive cut",
        PACK_CIFAR,
        "^cifar: not a whole tar file: .*give the folder or the .tar.gz",
        lambda place: (
            cifar_archive(place.tmp / "whole"),
            (place.tmp / "cifar").write_bytes((place.tmp / "whole").read_bytes()[:50_000]),
        ),
    ),
    Case("no CIFAR in it", PACK_CIFAR, "^cifar: has none of batches.meta, ", folder("cifar")),
    Case("cifar batch cut", PACK_CIFAR, "^cifar: data_batch_2: not a whole pickle", cifar("data_batch_2", b"\x80\2}")),
    Case(
        "cifar batch that runs code",
        PACK_CIFAR,
        "^cifar: data_batch_5: it names os.system, .*refused, since it could run code",
        cifar("data_batch_5", b"cos\nsystem\n(S'touch new/index.json'\ntR."),
    ),
    Case(
        "cifar records cut",
        PACK_CIFAR,
        "^cifar: data_batch_1.bin: its 3,072 bytes are not whole records of 3,073",
        cifar("data_batch_1.bin", bytes(3072), "cifar-10-batches-bin"),
    ),
    Case(
        "cifar label",
        PACK_CIFAR,
        "^cifar: train.bin has the label 200, but fine_label_names.txt names 100 classes",
        cifar("train.bin", bytes([3, 200, *bytes(3072)]), "cifar-100-binary"),
    ),
    Case(
        "kind of label",
        f"{PACK_CIFAR} --label corse",
        "^--label corse: no such labels in CIFAR-100; did you mean 'coarse'",
        cifar("train.bin", bytes(3074), "cifar-100-binary"),
    ),
    Case(
        "two kinds of label",
        f"{PACK_CIFAR} --label fine --label coarse",
        "^--label is given 2 times",
        cifar("train.bin", bytes(3074), "cifar-100-binary"),
    ),
    Case(
        "label of CIFAR-10",
        f"{PACK_CIFAR} --label coarse",
        "^--label coarse: CIFAR-10 has labels of one kind; leave --label out",
        cifar("readme.html", b""),
    ),
    Case(
        "slow pattern",
        f"{PACK_PHOTOS} --label-pattern (a+)+$",
        r"photos/a+b\.png: --label-pattern '\(a\+\)\+\$' takes more than a second for its name",
        all_of(folder("photos"), lambda place: (place.tmp / "photos" / f"{'a' * 40}b.png").write_bytes(GRAY)),
    ),
    Case("pattern of depth", f"{PACK_LEGO} {'(' * 5000}{')' * 5000}", "not a regular expression", lego),
    Case("pipe as idx", PACK_IDX, "is no regular file", pipe("a-images-idx3-ubyte")),
    Case("pipe as npz", PACK_NPZ, "is no regular file", pipe("a.npz")),
    Case("pipe as cifar", PACK_CIFAR, "is no regular file", pipe("cifar")),
    Case("npz that unpacks to much", PACK_NPZ, "would unpack to 2,000,000,000", unpacking_to("a.npz", "x", 2 * 10**9)),
    Case(
        "idx that unpacks to much",
        PACK_IDX,
        "has more bytes of data where its header announces 256",
        files(**{"a-images-idx3-ubyte": gzip.compress(idx(1, 16, 16) + bytes(10**7))}),
    ),
    Case(
        "idx that announces much",
        PACK_IDX,
        "would unpack to 3,000,000,000",
        files(**{"a-images-idx3-ubyte": gzip.compress(idx(3000, 1000, 1000, body=b""))}),
    ),
    Case(
        "name that steers the terminal",
        PACK_PHOTOS,
        r"photos/a\\x1b\[31m\\u202eb\.png: not a readable image",
        all_of(folder("photos"), lambda place: (place.tmp / "photos" / "a\x1b[31m\u202eb.png").write_bytes(b"no")),
    ),
    Case("pattern", f"{PACK_LEGO} (.+", r"^--label-pattern '\(\.\+': not a regular expression: ", lego),
    Case(
        "pattern that finds nothing",
        f"{PACK_LEGO} ^[0-9]+_",
        r"dataset/14719 flat tile corner 2x2 000L.png: --label-pattern .* finds no class in its name '14719 ",
        lego,
    ),
    Case("empty pattern", f"{PACK_LEGO} x*", "--label-pattern 'x.' finds no class in its name", lego),
    Case("background", f"{PACK_PHOTOS} --background red", "^--background 'red' is not white, black or #rrggbb$"),
    Case(
        "crop larger than the image",
        f"{PACK_PHOTOS} --crop 40",
        "^photos/a.png: it has 32x32 pixels, fewer than --crop 40; --bad skip leaves such images out$",
        photos(GRAY),
    ),
    Case(
        "no good photo",
        f"{PACK_PHOTOS} --bad skip",
        "/new: nothing to pack: none of the 1 images can be used",
        photos(b"hello"),
    ),
    Case("format", "data pack x --out y --format zip", "^unknown data source 'zip'; did you mean|there are: celeba, "),
    Case("label of npz", f"{PACK_NPZ} --label a", "^--label is not for --format npz, but for celeba and cifar; leave"),
    Case("pattern of celeba", f"{PACK_FACES} --label-pattern a", "^--label-pattern is not for --format celeba, but"),
    Case("split of photos", f"{PACK_PHOTOS} --split test", "^--split is not for --format folder, but for cifar; leave"),
    Case(
        "brick size",
        "data render bricks --out new --samples 2 --size 12",
        "--size 12: bricks are rendered at 16 to 256",
    ),
    Case(
        "big bricks",
        "data render bricks --out new --samples 2 --size 512",
        "--size 512: bricks are rendered at 16 to 256",
    ),
    Case(
        "output taken", "data render bricks --out {data} --samples 2", "holds a data set already; choose another place"
    ),
]

DISKS = [
    Case(
        "output is a file", "data render bricks --out {data}/index.json --samples 2", "a file is where a folder should"
    ),
    Case(
        "output below a file",
        "data render bricks --out {data}/index.json/x --samples 2",
        "a part of the path is a file",
    ),
    Case("output where nothing can be", "data render bricks --out /proc/x --samples 2", "^/proc/x: "),
    Case("output on a full disk", "data render bricks --out {full} --samples 40 --size 64", "no space left", full_disk),
    Case(
        "no temporary folder",
        "data render bricks --out new --samples 2",
        "no temporary folder can be made .*; set TMPDIR",
        no_temporary_folder,
    ),
    Case("dry run in a file", "train quickstart --dry-run --storage {data}/index.json", "index.json"),
    Case(
        "logits before any worker",
        "train {yaml} data.url={data} image_size=32 --name new --workers 2 evaluation.metrics=[inception_score]",
        "inception_score needs an extractor with logits",
    ),
    Case("run in a file", "train {yaml} --storage {data}/index.json", "a file is where a folder should be"),
    Case("run below a file", "train {yaml} --storage {data}/index.json/x", "a part of the path is a file"),
    Case("run in a device", "train {yaml} --storage /dev/full", "^/dev/full: a file is where a folder should be"),
    Case("run where nothing can be", "train {yaml} --storage /proc/x", "^/proc/x: "),
    Case(
        "half of torchrun's variables",
        "train {yaml} --no-ray --storage {tmp} --name x",
        "^WORLD_SIZE=2 is set, and MASTER_ADDR is not; start the workers with torchrun",
        environment(WORLD_SIZE="2", RANK="0"),
    ),
    Case(
        "no number of workers",
        "train {yaml} --no-ray --storage {tmp} --name x",
        "^WORLD_SIZE=two is not a whole number; start the workers with torchrun",
        environment(WORLD_SIZE="two"),
    ),
    Case(
        "a world of nobody",
        "train {yaml} --no-ray --storage {tmp} --name x",
        "^RANK=0 with WORLD_SIZE=0: ",
        environment(WORLD_SIZE="0"),
    ),
    Case(
        "a rank beyond its world",
        "data stats {data} --no-ray",
        "^RANK=5 with WORLD_SIZE=2: ",
        environment(WORLD_SIZE="2", RANK="5", MASTER_ADDR="localhost", MASTER_PORT="1234"),
    ),
    Case(
        "a rank of no world",
        "train {yaml} --no-ray --storage {tmp} --name x",
        "^RANK=1 with WORLD_SIZE=1: ",
        environment(RANK="1"),
    ),
    Case(
        "a local rank beyond its machine",
        "train {yaml} --no-ray --storage {tmp} --name x",
        "^LOCAL_RANK=2 with LOCAL_WORLD_SIZE=2: ",
        environment(LOCAL_RANK="2", LOCAL_WORLD_SIZE="2"),
    ),
    Case(
        "a master that is nowhere",
        "train {yaml} --no-ray --storage {tmp} --name x",
        "^MASTER_ADDR=no.such.host.invalid: ",
        environment(WORLD_SIZE="2", RANK="0", MASTER_ADDR="no.such.host.invalid", MASTER_PORT="1234"),
    ),
    Case(
        "a master without a port",
        "train {yaml} --no-ray --storage {tmp} --name x",
        "^MASTER_PORT=99999 is not a port",
        environment(WORLD_SIZE="2", RANK="0", MASTER_ADDR="localhost", MASTER_PORT="99999"),
    ),
    Case("run on a full disk", "train {yaml} --no-ray --storage {full} --name x", "no space left", full_disk),
    Case("grid below a file", "sample {run} --out {yaml}/x.png", "--out .*x.png: cannot be written"),
    Case(
        "array on a full disk",
        "sample {run} --count 9000 --out {full}/x.npy",
        "x.npy: cannot be .*: No space",
        full_disk,
    ),
    Case(
        "archive on a full disk",
        "sample {run} --count 9000 --out {full}/x.npz",
        "x.npz: cannot be .*: No space",
        full_disk,
    ),
    Case(
        "images on a full disk",
        "sample {run} --count 900 --out {full}/x/",
        "x/: cannot be written: No space",
        full_disk,
    ),
    Case(
        "grid on a full disk",
        "sample {run} --out a.png",
        "a.png: cannot be written: No space",
        link_to_full_device("a.png"),
    ),
]

CHECKPOINTS = [
    Case("no run", "sample {tmp}/gone", "gone: no checkpoints there; give a run's folder"),
    Case("a data set", "sample {data}", "no checkpoints there; give a run's folder"),
    Case("a file, no run", "sample {yaml}", "run.yaml"),
    Case(
        "samples of another kind",
        "sample {tmp}/gone --out grid.jpg",
        r"--out grid\.jpg: .* in \.png \(a grid\), \.npy",
    ),
    Case("samples in a bucket", "sample {tmp}/gone --out s3://runs/x/", "--out s3://runs/x/: .*this machine's disk"),
    Case("samples among others", "sample {run} --out {data}", "the folder is not empty; give the name of a new one"),
    Case("samples nowhere", "sample {run} --count 1 --out {yaml}/", "--out .*: cannot be written: File exists"),
    Case("too large a grid", "sample {tmp}/gone --count 65537", "--count 65537: a grid has at most 65536 images"),
    Case("checkpoint gone", "sample {run}/checkpoints/step-000000009", "no complete checkpoint there"),
    Case(
        "checkpoints without manifests", "sample {mine}", "no checkpoints there", checkpoint_file("manifest.json", None)
    ),
    Case(
        "one without its manifest",
        "sample {mine}/checkpoints/step-000000002",
        "no complete checkpoint there",
        checkpoint_file("manifest.json", None),
    ),
    Case("cut state", "sample {mine}", "damaged or unfinished", checkpoint_file("state.pt", lambda data: data[:-1])),
    Case("flipped state", "sample {mine}", "damaged or unfinished", checkpoint_file("state.pt", flipped(3000))),
    Case("state gone", "sample {mine}", "damaged or unfinished", checkpoint_file("state.pt", None)),
    Case(
        "manifest garbage",
        "sample {mine}",
        r"damaged or unfinished \(.*manifest\.json is no JSON",
        checkpoint_file("manifest.json", lambda _: b"\xff{"),
    ),
    Case(
        "deep manifest",
        "sample {mine}",
        r"damaged or unfinished \(.*manifest\.json is no JSON",
        checkpoint_file("manifest.json", lambda _: b"[" * 100_000),
    ),
    Case(
        "manifest of other software",
        "sample {mine}",
        r"damaged or unfinished \(.*its manifest\.json: format: missing",
        checkpoint_file("manifest.json", lambda _: b"[1]"),
    ),
    Case(
        "newer format",
        "sample {mine}",
        r"can read \(written by version 9\.0: distgan-checkpoint-9\)",
        manifest(format="distgan-checkpoint-9", distgan="9.0"),
    ),
    Case(
        "progress of words",
        "sample {mine}/checkpoints/step-000000002",
        r"no complete checkpoint there: its manifest\.json: progress",
        manifest(progress={"images": "many"}),
    ),
    Case(
        "progress of more",
        "sample {mine}/checkpoints/step-000000002",
        r"no complete checkpoint there: its manifest\.json: progress",
        manifest(progress={"epoch": 3}),
    ),
    Case(
        "evaluations of words",
        "sample {mine}/checkpoints/step-000000002",
        r"no complete checkpoint there: its manifest\.json: progress",
        manifest(progress={"evaluations": [{"step": 1, "images": 16, "distance": "good"}]}),
    ),
    Case(
        "checkpoint of no run",
        "sample {run} --checkpoint ../x",
        r"--checkpoint \.\./x: .*give best, last, or .* step-",
    ),
    Case(
        "checkpoint of a checkpoint",
        "sample {run}/checkpoints/step-000000002 --checkpoint last",
        "--checkpoint last: .* is a checkpoint itself; give the run's folder",
    ),
    Case(
        "other networks",
        "sample {mine}/checkpoints/step-000000002",
        r"no complete checkpoint there: its tensors are not those of its networks: generator\.",
        manifest(config={"latent_dim": 9}),
    ),
    Case(
        "no tensors",
        "sample {mine}",
        "step-000000002: damaged: its state.pt: it is no complete",
        state(lambda _: b"hello"),
    ),
    Case(
        "too few tensors",
        "sample {mine}",
        "its tensors are not those .*: generator is missing",
        state(lambda _: saved({})),
    ),
    Case(
        "code as tensors",
        "sample {mine}",
        r"step-000000002: damaged: its state\.pt: it (names pathlib|holds more than)",
        state(lambda _: saved({"ema": Path()})),
    ),
    Case(
        "resume other networks",
        RESUME,
        "step-000000002: damaged: its tensors are not those .*there is no older one to resume from",
        state(lambda _: saved({"generator": {}})),
    ),
    Case(
        "resume another recipe",
        f"{RESUME} generator.width=8",
        r"generator\.width was 4 and is 8; .*another --name",
        manifest(),
    ),
    Case("resume on other data", f"{RESUME} data.url={{other}}", r"trained on other data .*set data\.url", manifest()),
]

S3 = [
    Case("bucket gone, info", "data info s3://not-there/x", "s3://not-there: the bucket does not exist; create it", s3),
    Case(
        "bucket gone, render", "data render bricks --samples 2 --out s3://not-there/x", "the bucket does not exist", s3
    ),
    Case("bucket gone, train", "train quickstart data.url=s3://not-there/x", "the bucket does not exist", s3),
    Case("bucket gone, runs", "train quickstart --dry-run --storage s3://not-there/x", "the bucket does not exist", s3),
    Case("bucket gone, sample", "sample s3://not-there/x", "the bucket does not exist", s3),
    Case("no bucket's name", "data render bricks --samples 2 --out s3://A_b!/x", "not a valid bucket name", s3),
    Case("empty bucket, info", "data info {bucket}", "index.json: no index; name the folder", bucket),
    Case("empty bucket, index", "data index {bucket}", r"no \.tar files there", bucket),
    Case("empty bucket, train", "train quickstart data.url={bucket}", "index.json: no index; name the folder", bucket),
    Case("empty bucket, sample", "sample {bucket}/run", "no checkpoints there", bucket),
    Case(
        "flipped in a bucket",
        "data verify {bucket}/data",
        "{bucket}/data: faults found: 2",
        data_in_bucket(flipped(9_000)),
    ),
    Case(
        "wrong secret",
        "data info {bucket}",
        "the secret key is wrong; check AWS_SECRET_ACCESS_KEY",
        all_of(bucket, environment(AWS_SECRET_ACCESS_KEY="wrong")),
    ),
    Case(
        "wrong secret, runs",
        "train quickstart --dry-run --storage {bucket}",
        "the secret key is wrong",
        all_of(bucket, environment(AWS_SECRET_ACCESS_KEY="wrong")),
    ),
    Case(
        "wrong key",
        "data info {bucket}",
        "the access key is not known; check AWS_ACCESS_KEY_ID",
        all_of(bucket, environment(AWS_ACCESS_KEY_ID="nobody")),
    ),
    Case(
        "no profile", "data info {bucket}", "no usable credentials", all_of(bucket, environment(AWS_PROFILE="nobody"))
    ),
    Case(
        "region",
        "data info s3://b/x",
        "AWS_DEFAULT_REGION is not a region",
        all_of(s3, environment(AWS_DEFAULT_REGION="not a region")),
    ),
    Case(
        "damaged profile",
        "data info s3://b/x",
        "configuration or credentials file is damaged",
        all_of(s3, files(aws_config=b"[[[\n"), environment(AWS_CONFIG_FILE="aws.config")),
    ),
    Case(
        "endpoint without scheme",
        "data info s3://b/x",
        "AWS_ENDPOINT_URL is not a URL",
        all_of(s3, environment(AWS_ENDPOINT_URL="localhost:8333")),
    ),
    Case(
        "endpoint of half brackets",
        "data info s3://b/x",
        "AWS_ENDPOINT_URL is not a URL",
        all_of(s3, environment(AWS_ENDPOINT_URL="http://[::1")),
    ),
    Case(
        "endpoint of no port",
        "data info s3://b/x",
        "AWS_ENDPOINT_URL is not a URL",
        all_of(s3, environment(AWS_ENDPOINT_URL="http://h:99999")),
    ),
    Case(
        "nobody listens",
        "data info s3://b/x",
        "the server cannot be reached; check AWS_ENDPOINT_URL",
        all_of(s3, no_server),
    ),
    Case("silence, info", "data info s3://b/x", "the server did not answer in time", all_of(s3, silent_server)),
    Case(
        "silence, render",
        "data render bricks --samples 2 --out s3://b/x",
        "did not answer in time",
        all_of(s3, silent_server),
    ),
    Case("a web server, info", "data info s3://b/x", "damaged, or not an index of distgan", all_of(s3, web_server)),
    Case(
        "a web server, render",
        "data render bricks --samples 2 --out s3://b/x",
        "is not an S3 server; check",
        all_of(s3, web_server),
    ),
]

RAY = [
    Case("no port", "train {yaml} --address head", "--address head: write HOST:PORT"),
    Case("superscript port", "train {yaml} --address head:²", "--address head:²: write HOST:PORT"),
    Case("client address", "train {yaml} --address ray://head:10001", "--address ray://head:10001: give HOST:PORT"),
    Case("host of dots", "train {yaml} --address a..b:6379", r"Ray at a\.\.b:6379: nothing answers there"),
    Case(
        "address from outside",
        "train {yaml}",
        "Ray at 127.0.0.1:1: nothing answers",
        environment(RAY_ADDRESS="127.0.0.1:1"),
    ),
    Case(
        "silent head",
        "train {yaml} --address 127.0.0.1:{port}",
        "does not answer as the head of a Ray cluster does",
        all_of(silent_server, impatient_ray),
    ),
    Case(
        "other service",
        "train {yaml} --address 127.0.0.1:{port}",
        "does not answer as the head .*UNIMPLEMENTED",
        other_grpc_server,
    ),
    Case(
        "other version",
        "train {yaml} --address 127.0.0.1:{port}",
        r"the cluster runs Ray 1\.2\.3, and here is ",
        ray_of_another_version,
    ),
]

STORE = [
    Case(
        "port in use",
        "store up --dir store --port {port}",
        "port {port} on 127.0.0.1 cannot be used .*; choose",
        port_in_use,
    ),
    Case("no port number", "store up --dir store --port 70000", "port 70000 is not a port number"),
    Case("store in a file", "store up --dir {data}/index.json", "index.json.*cannot hold a store"),
    Case("store where nothing can be", "store up --dir /proc/x", "/proc/x: cannot hold a store"),
    Case("store with a file inside", "store up --dir store", "cannot hold a store", folder("store/weed.log")),
    Case("runs already", "store up --dir {store} --port 1", "the store runs at .*; stop it to change the port", s3),
    Case(
        "bucket's name", "store up --dir {store} --bucket Not_Allowed!", "the buckets Not_Allowed! cannot be made", s3
    ),
    Case(
        "damaged state", "store status --dir {tmp}", r"state\.json: cannot be read as a store's", files(state_json=b"{")
    ),
    Case(
        "state of others",
        "store down --dir {tmp}",
        r"state\.json: cannot be read as a store's",
        files(state_json=b"[1]"),
    ),
    Case(
        "state of wrong types",
        "store up --dir {tmp}",
        r"state\.json: cannot be read as a store's state; restore or remove it",
        files(state_json=b'{"access_key": "a", "secret_key": "b", "ports": [1], "pid": "x"}'),
    ),
    Case(
        "state of impossible numbers",
        "store down --dir {tmp}",
        r"state\.json: cannot be read as a store's",
        files(state_json=b'{"access_key": "a", "secret_key": "b", "ports": {}, "pid": 99999999999999999999}'),
    ),
]

FOLDER = "evaluate {tmp}/images --data {data}"
TWO = images((32, 32), (32, 32))
WITH_STATISTICS = "evaluate {run} --statistics {tmp}/given.npz"

EVALUATION = [
    Case("nothing to compare with", "evaluate {tmp}/images", "--data is missing: the URL of the data set", TWO),
    Case(
        "folder without images", FOLDER, "images: no images in it .png, jpg, jpeg, .*; those in sub-folders", images()
    ),
    Case(
        "mixed sizes",
        FOLDER,
        "1.png: is 16x16 pixels, gray, and 0.png is 32x32 pixels, gray; all must have one size",
        images((32, 32), (16, 16)),
    ),
    Case("mixed channels", FOLDER, "1.png: is 32x32 pixels, RGB, and 0.png is ", images((32, 32), (32, 32, 3))),
    Case(
        "other channels than the data",
        FOLDER,
        "images: its images are RGB, and those at {data} are gray; convert",
        images((32, 32, 3), (32, 32, 3)),
    ),
    Case(
        "other size than the data",
        FOLDER,
        "images: its images have 16 pixels a side, and those at {data} have 32; compare with data that were packed",
        images((16, 16), (16, 16)),
    ),
    Case("oblong images", FOLDER, "images: its images are 32x16 pixels, gray; only square", images((16, 32), (16, 32))),
    Case("one image", FOLDER, "images: a distance needs at least 2 images", images((32, 32))),
    Case("too few images", f"{FOLDER} --samples 3", "--samples 3: .*images holds 2 images; make more of them", TWO),
    Case("image of no image", FOLDER, "0.png: not a readable image: unknown format; write it again", images(b"text")),
    Case(
        "half an image",
        FOLDER,
        "1.png: cannot be used: not a whole PNG.*; write it again, or leave it out",
        images((32, 32), GRAY[:60]),
    ),
    Case("npz of no zip", "evaluate {tmp}/x.npz --data {data}", "not a whole .npz file of images", files(x_npz=b"no")),
    Case("no array there", "evaluate {tmp}/x.npy --data {data}", "x.npy: not found; check the name"),
    Case(
        "npz without arr_0",
        "evaluate {tmp}/x.npz --data {data}",
        r"x.npz: not a whole .npz file of images \(it has no arr_0\); write it again",
        files(x_npz=npz(images=np.zeros((2, 32, 32), np.uint8))),
    ),
    Case(
        "array of floats",
        "evaluate {tmp}/x.npz --data {data}",
        r"x.npz: holds float64 \(2, 32, 32\); images must be uint8",
        files(x_npz=npz(arr_0=np.zeros((2, 32, 32)))),
    ),
    Case(
        "array of nothing",
        "evaluate {tmp}/x.npz --data {data}",
        "x.npz: holds no images",
        files(x_npz=npz(arr_0=np.zeros((0, 32, 32), np.uint8))),
    ),
    Case(
        "array cut",
        "evaluate {tmp}/x.npy --data {data}",
        "x.npy: not a whole .npy file of images; write it again",
        files(x_npy=npy(np.zeros((4, 32, 32), np.uint8))[:-100]),
    ),
    Case("nothing to evaluate", "evaluate {tmp}/gone --data {data}", "gone: no checkpoints there; give a run's folder"),
    Case("no data there", "evaluate {run} --data {tmp}/gone", "no index; name the folder that"),
    Case("run of another size", "evaluate {run} --data {data}", "its images have 16 pixels a side, .* {data} have 32;"),
    Case("no such metric", "evaluate {run} --metrics fdi", "--metrics: unknown metric 'fdi'; did you mean 'fid'"),
    Case("no metric", "evaluate {run} --metrics kid,,pr", "--metrics: unknown metric ''; there are: coverage, "),
    Case("two extractors", "evaluate {run} --metrics fid,fd_lite0", "fid and fd_lite0 are distances by different"),
    Case(
        "metric of another extractor",
        "evaluate {run} --metrics fid --extractor fd_lite0",
        "--extractor fd_lite0: --metrics fid asks for fid; name one",
    ),
    Case(
        "no such extractor", "evaluate {run} --extractor fd_lite", "unknown feature extractor 'fd_lite'; did you mean"
    ),
    Case("no weights", "evaluate {run} --metrics fid", "needs published weights, which are not set; download"),
    Case(
        "weights of another hash",
        "evaluate {run} --metrics fid",
        "weights.pth: not the published weights: its SHA-256 begins with",
        all_of(files(weights_pth=b"other"), environment(DISTGAN_FID_WEIGHTS="weights.pth")),
    ),
    Case("score without logits", "evaluate {run} --metrics is", "inception_score needs an extractor with logits"),
    Case("too few for recall", "evaluate {run} --metrics pr --samples 5", "needs at least 6 images on either side"),
    Case(
        "statistics of another extractor",
        WITH_STATISTICS,
        "given.npz: statistics of the extractor fid, and images are evaluated with fd_lite0; use fid",
        statistics(320, "fid", 16),
    ),
    Case(
        "statistics of another size",
        WITH_STATISTICS,
        "given.npz: statistics of images of 64 pixels, and the images to evaluate have 16; give",
        statistics(320, "fd_lite0", 64),
    ),
    Case(
        "statistics of another dimension",
        WITH_STATISTICS,
        "given.npz: statistics of 2048 features, and the extractor fd_lite0 makes 320; use the extractor",
        statistics(2048),
    ),
    Case("no statistics there", WITH_STATISTICS, "given.npz: no such file of statistics; `distgan data stats --out`"),
    Case(
        "statistics that unpack to much",
        WITH_STATISTICS,
        r"given\.npz: unpacks to 2,000,000,000 bytes, more than the 536,870,912",
        unpacking_to("given.npz", "mu", 2 * 10**9, "<f8"),
    ),
    Case("statistics of none", WITH_STATISTICS, "given.npz is no file of feature stat", files(given_npz=b"no")),
    Case(
        "kernel distance of statistics",
        f"{WITH_STATISTICS} --metrics kid",
        "evaluation: a file of statistics has no features of real images, which kernel needs",
        statistics(320),
    ),
    Case(
        "to train against statistics of another size",
        "train {yaml} --name new evaluation.statistics={tmp}/given.npz",
        "given.npz: statistics of images of 64 pixels, and the images to evaluate have 16",
        statistics(320, "fd_lite0", 64),
    ),
    Case(
        "statistics to watch recall by",
        "train {yaml} --name new evaluation.statistics={tmp}/given.npz evaluation.monitor=recall",
        "evaluation: a file of statistics has no features of real images, which recall needs",
    ),
    Case(
        "classes of statistics", f"{WITH_STATISTICS} --per-class", "--per-class is of real images, and a file of stat"
    ),
    Case(
        "classes of none", "evaluate {run} --per-class", "--per-class: .*step-.* is of a generator that takes no label"
    ),
    Case("classes of a folder", f"{FOLDER} --per-class", "--per-class is for runs and checkpoints", TWO),
    Case("checkpoint of a folder", f"{FOLDER} --checkpoint last", "--checkpoint last is for runs and checkp", TWO),
    Case(
        "more nearest than samples",
        "evaluate {run} --samples 8 --nearest 9",
        "--nearest 9: only 8 samples are evaluated;",
    ),
    Case(
        "nearest of statistics",
        "evaluate {run} --statistics {tmp}/given.npz --nearest 4",
        "--nearest is of real images, and a file of statistics has none",
    ),
    Case(
        "picture of no kind",
        "evaluate {run} --nearest 4 --picture x.jpg",
        "--picture x.jpg: give the name of a .png file on this machine",
    ),
    Case("folder as JSON", "evaluate {run} --json {tmp}", "--json .*: give the name of a file on this machine, or -"),
    Case(
        "JSON elsewhere", "evaluate {run} --json s3://a/b", "--json s3://a/b: give the name of a file on this machine"
    ),
    Case(
        "own code to evaluate",
        "evaluate {mine}",
        r"step-000000002: its configuration runs code of modules outside distgan \(generator\.network=os:system\)",
        manifest(config={"generator": {"network": "os:system"}}),
    ),
    Case("two workers, one process", "evaluate {run} --no-ray --workers 2", "-m distgan evaluate ...`, or leave out"),
    Case("nothing to take statistics of", "data stats {tmp}", r"/index\.json: no index; name the folder"),
    Case(
        "statistics of several sizes",
        "data stats {mine}",
        "its images have several sizes; choose one with",
        header(image_size=None),
    ),
    Case(
        "statistics elsewhere",
        "data stats {data} --out s3://a/b.npz",
        "--out s3://a/b.npz: give the name of an .npz file",
    ),
    Case(
        "statistics under no name",
        "data stats {data} --out {tmp}/stats",
        "--out .*stats: give the name of an .npz file",
    ),
    Case("statistics of no size", "data stats {data} --size 16 --resize none", "do not have 16 pixels; name a filter"),
]

TUNE = "tune quickstart data.url={data} --storage {tmp}/runs"
G = "optimizer.generator.lr"
PBT = f"{TUNE} --scheduler pbt"
GOING_ON = "tune quickstart data.url={data} --storage {tmp} --name begun"
SEARCH = [
    Case("nothing to search", "tune --storage {tmp}/runs", "PRESET_OR_FILE: name a preset or a file, or --results"),
    Case("search of no preset", "tune quikstart", r"unknown preset 'quikstart'; did you mean 'quickstart'\?"),
    Case("search without data", "tune quickstart --storage {tmp}/runs", r"data\.url is not set: add data\.url=URL"),
    Case(
        "a file's space",
        "tune {yaml} --storage {tmp}/runs",
        r"run\.yaml: no space of its own: it has no section `search`; give one with --space: ",
    ),
    Case("key of a space", f"{TUNE} --space optimizer.generator.lrr=uniform(0,1)", "lrr: unknown key; .*generator.lr'"),
    Case("key not searched", f"{TUNE} --space seed=randint(0,9)", "seed: cannot be searched: .* luckiest draw; set it"),
    Case("empty range", f"{TUNE} --space {G}=loguniform(1e-3,1e-5)", f"{G}: .*the range is empty: 0.001 is not below"),
    Case(
        "choice of an invalid value",
        f"{TUNE} --space objective.name=choice(bce,lsgan)",
        r"objective\.name: `choice\(bce, lsgan\)`: a trial: .*unknown objective 'lsgan'; did you mean 'wgan'",
    ),
    Case("no such space", f"{TUNE} --space rates.yaml", "rates.yaml: no such file; name a YAML file, or write KEY=D"),
    Case(
        "pbt of a key of the start",
        f"{PBT} --space generator.width=choice(8,16)",
        r"generator\.width: .*cannot change during training, as population-based training requires: leave it out, or "
        r"give it one value; .*optimizer\.generator\.lr.* can$",
    ),
    Case(
        "pb2 of a choice",
        f"{TUNE} --scheduler pb2 --space {G}=choice(1e-4,1e-3)",
        f"{G}: `choice.*`: PB2 models .* only: write loguniform",
    ),
    Case("metric of none", f"{TUNE} --metric fidd", "--metric: unknown metric 'fidd'; did you mean 'fid'"),
    Case("two metrics", f"{TUNE} --metric pr", r"--metric pr: a search follows one metric, and these are 2 \(precis"),
    Case("metric of two extractors", f"{TUNE} --metric fid,fd_lite0", "--metric fid,fd_lite0: fid and fd_lite0 are di"),
    Case("metric that is not measured", f"{TUNE} --metric is", "inception_score needs an extractor with logits, such"),
    Case(
        "metric of too few",
        f"{TUNE} --metric recall evaluation.samples=4",
        r"evaluation\.metrics=recall needs at least 6 images on either side, but there are evaluation\.samples=4 and ",
    ),
    Case(
        "fid without weights",
        f"{TUNE} --metric fid",
        "evaluation.extractor=fid needs published weights, which are not set; download pt_inception",
    ),
    Case("scheduler of none", f"{TUNE} --scheduler ahsa", r"--scheduler 'ahsa': .*; did you mean 'asha'\?"),
    Case("search of none", f"{TUNE} --search tpee", r"--search 'tpee': there is no such one; did you mean 'tpe'\?"),
    Case("tpe with pbt", f"{PBT} --search tpe", "--search tpe: with --scheduler pbt members change their values by th"),
    Case("seeds with pbt", f"{PBT} --seeds 2", "--seeds 2: the values of a member change during training, .*leave it"),
    Case("population of one", f"{PBT} --trials 1", "--trials 1: a population has at least 2 members"),
    Case("warm start at random", f"{TUNE} --warm-start x", "--warm-start: only draws that learn from results can use"),
    Case(
        "warm start of nothing",
        f"{TUNE} --search tpe --warm-start {{tmp}}/gone",
        r"/gone: no search there: it has no search\.json; give the folder or URL of one \(storage/name\)",
    ),
    Case(
        "warm start by another metric",
        f"{TUNE} --search bayes --warm-start {{tmp}}/begun evaluation.samples=64",
        "--warm-start .*begun: it was measured by fd_lite0_2k, and this search is by fd_lite0_64; ask for the same",
        search_begun(),
    ),
    Case(
        "warm start elsewhere",
        f"{TUNE} --search tpe --warm-start {{tmp}}/begun",
        "--warm-start .*begun: none of its 0 trials is in this space; leave it out, or widen the ranges",
        search_begun(),
    ),
    Case(
        "grace above all",
        f"{TUNE} --grace-kimg 999",
        r"--grace-kimg 999: a trial has 240 kimg \(training\.kimg\); give",
    ),
    *(
        Case(f"{option} {value}", f"{TUNE} {option} {value}", f"^{option} {value}: give a number")
        for option, values in {
            "--target": ("nan", "inf"),
            "--budget-kimg": ("nan", "inf", "-5", "0"),
            "--budget-hours": ("nan", "0"),
            "--interval-kimg": ("nan", "-inf", "0"),
            "--grace-kimg": ("nan", "0", "-1"),
        }.items()
        for value in values
    ),
    *(
        Case(f"reduction {value}", f"{TUNE} --reduction-factor {value}", f"^--reduction-factor {value}: one of so many")
        for value in ("nan", "inf", "1", "-3")
    ),
    Case(
        "interval of all",
        f"{PBT} --space {G}=uniform(0.1,1) --interval-kimg 240",
        "--interval-kimg 240: a member has 240 kimg .*less",
    ),
    Case(
        "endless grid",
        f"{TUNE} --search grid --grid-points 500",
        "the grid has 1,000,000 combinations, 10,000 are the most: take fewer points or entries",
    ),
    Case("search with a slash", f"{TUNE} --name a/b", "--name 'a/b': use letters, digits"),
    Case(
        "search called as a run",
        f"{TUNE} --storage {{run}}/.. --name run",
        "/run: this run was trained with another conf",
    ),
    Case(
        "search with another space",
        f"{GOING_ON} --space {G}=loguniform(1e-4,1e-3)",
        "/begun: this search was started with other settings: .*space.*; set them back to resume it, or start a new",
        search_begun(),
    ),
    Case(
        "search of another configuration",
        f"{GOING_ON} training.batch_size=48",
        r"/begun: this search was started with other settings: config\.training\.batch_size was 32 and is 48; set them",
        search_begun(),
    ),
    Case(
        "search by another scheduler",
        f"{GOING_ON} --scheduler median --seed 3",
        r"started with other settings: scheduler was asha and is median; seed was 0 and is 3; set them back",
        search_begun(),
    ),
    Case(
        "damaged search",
        GOING_ON,
        r"/begun/search\.json: not a search that distgan .* can read \(.*\); use the version that wrote it, or start",
        search_begun(lambda content: content[:-50]),
    ),
    Case(
        "search that is binary",
        GOING_ON,
        r"/begun/search\.json: not a search that distgan",
        search_begun(lambda content: b"\xff\0" + content),
    ),
    Case(
        "search of no number",
        GOING_ON,
        r"/begun/search\.json: not a search that distgan .* can read \(Infinity is no number\)",
        search_begun(lambda content: content.replace(b'"trials": []', b'"trials": [Infinity]')),
    ),
    Case(
        "trial without its parent",
        "tune --results {tmp}/begun",
        r"/begun/search\.json: not a search that .* \(.*trial 0 is at the wrong place\)",
        search_begun(
            lambda content: content.replace(
                b'"trials": []', b'"trials": [{"number": 0, "draw": {}, "overrides": {}, "seed": 0, "parent": 7}]'
            )
        ),
    ),
    Case(
        "trial of no state",
        "tune --results {tmp}/begun",
        r"/begun/search\.json: not a search that .* \(trials\.0\.state",
        search_begun(
            lambda content: content.replace(
                b'"trials": []', b'"trials": [{"number": 0, "draw": {}, "overrides": {}, "seed": 0, "state": "?"}]'
            )
        ),
    ),
    Case(
        "results of nothing",
        "tune --results {tmp}/gone",
        r"/gone: no search there: it has no search\.json; give the",
    ),
    Case("results of a run", "tune --results {run}", r"/run: no search there: it has no search\.json; give the folder"),
    Case("fraction above one", f"{TUNE} --cpus-per-worker 1.5", "placement.cpus_per_worker: 1.5: .*ask for 1 or 2"),
    Case("no number of CPUs", f"{TUNE} --cpus-per-worker inf", "placement.cpus_per_worker='inf': allowed: number"),
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
    case: Case, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    place = Place(tmp_path, request, monkeypatch)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("distgan.data.blocks._FIRST_WAIT_S", 0.0)
    case.make(place)
    words = Words(place)
    arguments = [part.format_map(words) for part in case.line.split()]
    if case in SEARCH:
        monkeypatch.setattr("distgan.search.ray.tuner.ray_cluster", None)
    before = set(tmp_path.rglob("*"))
    started = time.monotonic()
    message = one_line(cli(*arguments))
    assert re.search(case.message.format_map(words) if "{" in case.message else case.message, message), message
    assert time.monotonic() - started < 45
    assert not (tmp_path / "new" / "index.json").exists()
    if case in SEARCH:
        assert set(tmp_path.rglob("*")) == before


class Words(dict[str, str]):
    """What the words of a command line stand for; a data set or a run is made when it is asked for."""

    def __init__(self, place: Place) -> None:
        super().__init__(place.words, tmp=str(place.tmp))
        self._fixture = place.request.getfixturevalue

    def __missing__(self, word: str) -> str:
        if word == "data":
            return str(self._fixture("data"))
        made = self._fixture("run_folder")
        return {
            "run": f"{made}/run",
            "yaml": f"{made}/run.yaml",
            "other": f"{made}/other",
        }[word]


USAGE = [
    ("train", "name a preset or a file, or --from-trial SEARCH; see `distgan train --help`"),
    ("trian quickstart", "no such command 'trian'.*did you mean 'train'"),
    ("presets lists", "no such command 'lists'.*see `distgan presets --help`"),
    (
        "train quickstart --wrokers 2",
        "no such option: '--wrokers'; did you mean '--workers'? see `distgan train --help`",
    ),
    ("train quickstart --zzz", "no such option: '--zzz'; there are: --address, --continue-from, "),
    ("train quickstart -w 2", "no such option: '-w'"),
    ("--verison", "no such option: '--verison'; did you mean '--version'? see `distgan --help`"),
    ("train quickstart --workers", "'--workers' requires an argument"),
    ("train quickstart --workers two", "valid integer"),
    ("presets show a b", "got unexpected extra argument"),
    ("data pack x --out y", "missing option '--format'"),
    ("data pack x --out y --format npz --channels 2", "'1', '3'"),
    ("data pack x --out y --format cifar --split half", "'train', 'test', 'all'"),
    ("data render bricks --out y --size 4", "greater than or equal to 8"),
    ("data render bricks --out y --samples 0", "greater than or equal to 1"),
    ("data render bricks --out y --samples 1000000000000000000000", "less than or equal to"),
    ("data render bricks --out y --seed -1", "greater than or equal to 0"),
    ("data render bricks --out y --shard-mb 0", "greater than or equal to 1"),
    ("evaluate", "missing argument 'SOURCE'; see `distgan evaluate --help`"),
    ("evaluate x --samples 1", "greater than or equal to 2"),
    ("evaluate x --metric fid", "no such option: '--metric'; did you mean '--metrics'?"),
    ("data stats x --real-samples 3", "greater than or equal to 4"),
    ("sample x --count 0", "greater than or equal to 1"),
    ("sample x --seed 99999999999999999999", "less than or equal to"),
    ("store up --port high", "valid integer"),
    ("tune", "name a preset or a file, or --results SEARCH; see `distgan tune --help`"),
    ("tune x --trials 0", "'--trials': it should be greater than or equal to 1"),
    ("tune x --workers-per-trial 0", "greater than or equal to 1"),
    ("tune x --cpus-per-worker 0", "greater than or equal to 0.01"),
    ("tune x --gpus-per-worker -1", "greater than or equal to 0"),
    ("tune x --concurrent 0", "greater than or equal to 1"),
    ("tune x --seeds 0", "greater than or equal to 1"),
    ("tune x --grid-points 0", "greater than or equal to 1"),
    ("tune x --target low", "valid number"),
    ("tune x --searcher tpe", "no such option: '--searcher'; did you mean '--search'? see"),
]


@pytest.mark.parametrize(("line", "message"), USAGE, ids=[line for line, _ in USAGE])
def test_a_wrong_usage_is_one_line(cli: Cli, line: str, message: str) -> None:
    result = cli(*line.split())
    told = one_line(result)
    assert re.search(message.replace("?", r"\?"), told), told
    assert re.search("; see `distgan .*--help`$|[?] see `distgan .*--help`$", told), told
    assert len(told) < 250
    assert result.out == ""
