"""`distgan data`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from distgan.cli.data_output import (
    print_few_images,
    print_if_sorted,
    print_index,
    print_left_out,
    print_made,
    print_recovered,
    progress_bar,
)
from distgan.cli.options import Address, Extractor, NoRay, WorkerCount

if TYPE_CHECKING:
    from distgan.config.schema import Resize
    from distgan.data.pack import PackOptions
    from distgan.data.sources.base import Source


app = typer.Typer(help="Make, look at and check data sets.", no_args_is_help=True)

render = typer.Typer(help="Render data sets.", no_args_is_help=True)

app.add_typer(render, name="render")


class Encoding(StrEnum):
    png = "png"
    jpg = "jpg"
    webp = "webp"


class Format(StrEnum):
    folder = "folder"
    celeba = "celeba"
    cifar = "cifar"
    idx = "idx"
    npz = "npz"


class Split(StrEnum):
    train = "train"
    test = "test"
    all = "all"


class Fit(StrEnum):
    stretch = "stretch"
    crop = "crop"
    pad = "pad"


class Bad(StrEnum):
    error = "error"
    skip = "skip"


class Filter(StrEnum):
    none = "none"
    bilinear = "bilinear"
    bicubic = "bicubic"
    lanczos = "lanczos"


class Channels(StrEnum):
    grey = "1"
    colour = "3"


Out = Annotated[str, typer.Option("--out", metavar="URL", help="Folder or URL (s3://bucket/…) for the shards.")]

Size = Annotated[int, typer.Option(min=8, max=4096, help="Pixels a side.")]

ShardMb = Annotated[int, typer.Option(min=1, help="Megabytes after which a shard is closed.")]

Stored = Annotated[Encoding, typer.Option(help="png and webp lose nothing; jpg decodes fastest.")]

Seed = Annotated[int, typer.Option(min=0, help="Draws the order of the samples (and, in render, the scenes).")]

Url = Annotated[str, typer.Argument(metavar="URL", help="Folder or URL that holds index.json.")]


@render.command()
def bricks(
    out: Out,
    samples: Annotated[int, typer.Option(min=1, max=10_000_000, help="How many images.")] = 40_000,
    size: Size = 64,
    channels: Annotated[Channels, typer.Option(help="1 for grey, 3 for RGB.")] = Channels.grey,
    seed: Seed = 0,
    encoding: Stored = Encoding.png,
    shard_mb: ShardMb = 64,
) -> None:
    """Render toy bricks of 50 kinds at any angle; the same seed gives the same pixels."""
    from distgan.data.bricks.render import BrickSource
    from distgan.data.pack import PackOptions

    source = BrickSource(seed, samples, size, int(channels.value))
    _pack(source, out, PackOptions(size, int(channels.value), encoding.value, seed, shard_mb * 2**20))


@app.command()
def pack(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Folder, archive or file, as said above.")],
    out: Out,
    format: Annotated[Format, typer.Option(help="What the source is.")],  # noqa: A002 - the option's name
    size: Size = 64,
    channels: Annotated[Channels, typer.Option(help="1 for grey, 3 for RGB.")] = Channels.colour,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="celeba: an attribute, as Blond_Hair; may be repeated. cifar: fine or coarse."
        ),
    ] = None,
    label_pattern: Annotated[
        str | None, typer.Option(metavar="REGEX", help="folder: finds the class in a file's name, in its first group.")
    ] = None,
    split: Annotated[Split | None, typer.Option(help="cifar: which images; by default train.")] = None,
    fit: Annotated[
        Fit,
        typer.Option(help="An image that is not square: stretched, cut to its centred square, or padded to one."),
    ] = Fit.stretch,
    crop: Annotated[
        int | None,
        typer.Option(min=1, max=65_536, metavar="PIXELS", help="First take the centred square of so many pixels."),
    ] = None,
    background: Annotated[
        str,
        typer.Option(metavar="COLOUR", help="What transparency lies on and padding has: white, black or '#rrggbb'."),
    ] = "white",
    bad: Annotated[
        Bad, typer.Option(help="An image that cannot be read, or is smaller than --crop: end, or leave it out.")
    ] = Bad.error,
    seed: Seed = 0,
    encoding: Stored = Encoding.png,
    shard_mb: ShardMb = 64,
) -> None:
    """Pack images into WebDataset shards, resized to SIZE x SIZE and shuffled by seed, with an index.

    What SOURCE is, by --format:

    - folder: a folder of images; its sub-folders are the classes, or --label-pattern finds them in the files' names,
    or StyleGAN's dataset.json in it says the labels

    - celeba: the folder with img_align_celeba (or img_align_celeba.zip) and list_attr_celeba.txt or .csv, or Kaggle's
    zip file. No labels without --label; of one attribute 0 is "not", 1 "has"; of several their product, the first
    counting most

    - cifar: CIFAR-10 or CIFAR-100, Python or binary batches, folder or .tar.gz; 32 pixels a side

    - idx: an IDX file (MNIST), or a folder of them; npz: a .npz file with images and labels

    Example: `distgan data pack celeba --format celeba --label Blond_Hair --size 64 --out s3://faces`
    """
    from distgan.data.images import parse_colour
    from distgan.data.pack import PackOptions
    from distgan.data.sources.base import open_source
    from distgan.errors import UserError

    asked = {"label": label or None, "label_pattern": label_pattern, "split": split and split.value}
    given = {name: value for name, value in asked.items() if value is not None}
    try:
        ground = parse_colour(background)
    except ValueError as error:
        raise UserError(f"--background {error}") from None
    opened = open_source(format.value, source, given)
    options = PackOptions(
        size, int(channels.value), encoding.value, seed, shard_mb * 2**20,
        fit=fit.value, crop=crop, background=ground, bad=bad.value,
    )  # fmt: skip
    _pack(opened, out, options)


@app.command()
def index(
    url: Annotated[str, typer.Argument(metavar="URL", help="Folder or URL with .tar files.")],
    bad: Annotated[
        Bad, typer.Option(help="A sample whose image or label cannot be read: end, or leave it out of the index.")
    ] = Bad.error,
) -> None:
    """Make the index of WebDataset shards that other software wrote (KEY.png|jpg|webp|gif|bmp and KEY.cls or KEY.json).

    Of each image the header is read. One that is damaged behind it is found by `distgan data verify`, and is
    data.bad_samples' to judge in training.
    """
    from distgan.data.scan import index_shards
    from distgan.storage.storage import Storage

    skipped: list[str] = []
    made = index_shards(Storage.open(url), bad.value, skipped.append)
    print_made(url, made, skipped)
    print_if_sorted(made)


@app.command()
def info(url: Url) -> None:
    """Print what a data set holds, and whether it is small for a run of the default configuration."""
    from distgan.data.index import Index
    from distgan.storage.storage import Storage

    opened = Index.load(Storage.open(url))
    print_index(url, opened)
    print_left_out(opened.header.left_out)
    print_if_sorted(opened)
    print_few_images(len(opened))


@app.command()
def verify(url: Url) -> None:
    """Check every byte and every image of a data set against its index; exit code 2 where one is wrong."""
    from distgan.data.index import Index
    from distgan.data.verify import verify as verify_data
    from distgan.errors import UserError
    from distgan.storage.storage import Storage
    from distgan.text import printable

    storage = Storage.open(url)
    total = len(Index.load(storage))
    with progress_bar() as progress:
        task = progress.add_task("verifying", total=total)
        recovered: list[int] = []
        faults = verify_data(storage, lambda done: progress.update(task, completed=done), recovered.append)
    print_recovered(sum(recovered))
    for fault in faults:
        print(printable(fault))
    if faults:
        raise UserError(f"{url}: faults found: {len(faults)}; upload or pack those shards again")
    print(f"{printable(url)}: {total:,} samples, all as the index says")


@app.command()
def stats(
    url: Url,
    size: Annotated[
        int | None, typer.Option(min=8, max=4096, help="Pixels a side, the image_size of runs; by default the data's.")
    ] = None,
    resize: Annotated[
        Filter | None, typer.Option(help="As data.resize of the runs; by default bilinear for images of another size.")
    ] = None,
    extractor: Extractor = None,
    real_samples: Annotated[
        int | None, typer.Option(min=4, help="As evaluation.real_samples of the runs; by default all images.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=2, help="As evaluation.samples of the runs, which the floor depends on.")
    ] = None,
    workers: WorkerCount = 1,
    out: Annotated[
        str | None,
        typer.Option(metavar="FILE.npz", help="Also write a copy, whose mu and sigma other tools read."),
    ] = None,
    address: Address = None,
    no_ray: NoRay = False,
) -> None:
    """Compute the statistics that runs and `distgan evaluate` compare with, and keep them where they look.

    They are kept beside the data, or in this machine's cache folder where the data cannot be written. Runs look for
    those of their image_size, data.resize, evaluation.extractor and evaluation.real_samples.
    """
    from distgan.cli.measuring import measuring_bars
    from distgan.inference.data_statistics import (
        check_out,
        compute_statistics,
        plan_statistics,
        statistics_lines,
        write_statistics,
    )
    from distgan.launch.evaluate import run_task
    from distgan.launch.local import Workers

    if out is not None:
        check_out(out)
    fitting: Resize | None = None if resize is None else resize.value
    job = plan_statistics(
        url, size=size, resize=fitting, extractor=extractor, real_samples=real_samples, samples=samples
    )
    places = Workers(workers, address, no_ray, "auto", job.own_sources)
    with measuring_bars({"real images": job.images}) as (told, say):
        found = run_task("data stats", compute_statistics, job, places, told, say)
    if found is None:
        return
    if out is not None:
        write_statistics(found, out)
    print("\n".join(statistics_lines(job, found, out)))


def _pack(source: Source, out: str, options: PackOptions) -> None:
    from distgan.data.pack import pack as pack_source
    from distgan.storage.storage import Storage

    skipped: list[str] = []
    recovered: list[int] = []
    with progress_bar() as progress:
        task = progress.add_task("packing", total=len(source))
        packed = pack_source(
            source,
            Storage.open(out),
            options,
            lambda done: progress.update(task, completed=done),
            skipped.append,
            recovered.append,
        )
    print_made(out, packed, skipped)
    print_recovered(sum(recovered))
