"""`distgan data`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from distgan.cli.data_output import (
    print_classes,
    print_empty,
    print_few_images,
    print_if_sorted,
    print_index,
    print_kept,
    print_left_out,
    print_made,
    print_recovered,
    print_stretched,
    print_unread,
    sheet_line,
)
from distgan.cli.options import Address, Extractor, NoRay, WorkerCount
from distgan.text import plural
from distgan.tracking.progress_bars import feature_bars, progress_bar

if TYPE_CHECKING:
    from distgan.config.schema import Resize
    from distgan.data.encode import Encoder
    from distgan.data.pack import PackOptions
    from distgan.data.sources.base import Source


app = typer.Typer(help="Make, inspect and check data sets.", no_args_is_help=True)

render = typer.Typer(help="Render data sets.", no_args_is_help=True)

app.add_typer(render, name="render")


class Encoding(StrEnum):
    png = "png"
    jpg = "jpg"
    webp = "webp"


class PackEncoding(StrEnum):
    png = "png"
    jpg = "jpg"
    webp = "webp"
    keep = "keep"


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
    gray = "1"
    color = "3"


Out = Annotated[str, typer.Option("--out", metavar="URL", help="Folder or URL (s3://bucket/…) for the shards.")]

Size = Annotated[int, typer.Option(min=8, max=4096, help="Pixels a side.")]

ShardMb = Annotated[int, typer.Option(min=1, help="Megabytes after which a shard is closed.")]

Stored = Annotated[Encoding, typer.Option(help="png and webp are lossless; jpg decodes fastest.")]

Seed = Annotated[int, typer.Option(min=0, help="Seed of the order of the samples (and, in render, of the scenes).")]

Url = Annotated[str, typer.Argument(metavar="URL", help="Folder or URL that holds index.json.")]


@render.command()
def bricks(
    out: Out,
    samples: Annotated[int, typer.Option(min=1, max=10_000_000, help="How many images.")] = 40_000,
    size: Size = 64,
    channels: Annotated[Channels, typer.Option(help="1 for gray, 3 for RGB.")] = Channels.gray,
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
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Folder, archive, file or URL; see above.")],
    out: Out,
    format: Annotated[  # noqa: A002 - the option's name
        str,
        typer.Option(
            metavar="NAME",
            help="folder, csv, parquet, webdataset, celeba, cifar, idx, npz, or a class of yours: module:Class.",
        ),
    ],
    size: Size = 64,
    channels: Annotated[Channels, typer.Option(help="1 for gray, 3 for RGB.")] = Channels.color,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="celeba: an attribute such as Blond_Hair; repeatable. cifar: fine or coarse."
        ),
    ] = None,
    label_pattern: Annotated[
        str | None, typer.Option(metavar="REGEX", help="folder: finds the class in a file's name, in its first group.")
    ] = None,
    image_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="csv: the column of paths. parquet: that of images. webdataset: seg, where KEY.seg.png is the image.",
        ),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="csv, parquet: the column of labels. webdataset: KEY.NAME, or NAME in KEY.json."
        ),
    ] = None,
    split: Annotated[Split | None, typer.Option(help="cifar, parquet: which images; by default train.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="module:Class: an argument of its constructor; repeatable."),
    ] = None,
    fit: Annotated[
        Fit,
        typer.Option(help="Images that are not square: stretch them, crop their centered square, or pad them."),
    ] = Fit.stretch,
    crop: Annotated[
        int | None,
        typer.Option(min=1, max=65_536, metavar="PIXELS", help="First crop the centered square of this side."),
    ] = None,
    background: Annotated[
        str,
        typer.Option(metavar="COLOR", help="Color behind transparency and of padding: white, black or '#rrggbb'."),
    ] = "white",
    bad: Annotated[
        Bad, typer.Option(help="Images that cannot be read, or are smaller than --crop: fail, or skip them.")
    ] = Bad.error,
    seed: Seed = 0,
    encoding: Annotated[
        PackEncoding,
        typer.Option(
            help="png and webp are lossless; jpg decodes fastest. keep stores files that need no change as they are."
        ),
    ] = PackEncoding.png,
    shard_mb: ShardMb = 64,
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster whose processors encode, as HOST:PORT. By default RAY_ADDRESS, or this machine."
        ),
    ] = None,
) -> None:
    """Pack images into WebDataset shards, resized to SIZE x SIZE and shuffled by seed, with an index.

    SOURCE is local or at a URL of any kind: s3://…, https://…, hf://datasets/USER/NAME/…

    SOURCE by --format:

    - folder: a folder of images, or a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz of one. Classes are its sub-folders,
    what --label-pattern finds in file names, or the labels of StyleGAN's dataset.json

    - csv: a CSV file with a column of paths or URLs (path, file, filename, file_name or image) and, if there are
    labels, one of labels (label or class)

    - parquet: a Parquet file, a folder of them or a pattern in quotes ('data/train-*.parquet')

    - webdataset: WebDataset shards, .tar or compressed: a folder, one, or several ('a-{000..099}.tar.gz'). `distgan
    data index` takes .tar files without copying them

    - celeba: the folder with img_align_celeba (or img_align_celeba.zip) and list_attr_celeba.txt or .csv, or Kaggle's
    zip file. Without --label there are no labels. One attribute gives the classes "not" (0) and "has" (1); several
    give their product, the first one counting most

    - cifar: CIFAR-10 or CIFAR-100, Python or binary batches, folder or .tar.gz; 32 pixels a side

    - idx: an IDX file (MNIST), or a folder of them

    - npz: a .npz file with images and labels

    - module:Class: whatever your subclass of distgan.data.sources.base.Source reads

    The same source and options give the same bytes, on any number of processors. The same command continues a pack
    that was interrupted or killed.

    Example: `distgan data pack celeba --format celeba --label Blond_Hair --size 64 --out s3://faces`
    """
    from distgan.config.plugins import custom_sources, is_custom
    from distgan.data.images import parse_color
    from distgan.data.pack import PackOptions
    from distgan.data.sources.base import open_source, parse_options
    from distgan.errors import UserError
    from distgan.launch.local import cluster_address
    from distgan.storage.storage import Storage

    flags = {
        "label": label or None, "label_pattern": label_pattern, "image_column": image_column,
        "label_column": label_column, "split": split and split.value,
    }  # fmt: skip
    given = parse_options(option or []) | {name: value for name, value in flags.items() if value is not None}
    try:
        color = parse_color(background)
    except ValueError as error:
        raise UserError(f"--background {error}") from None
    cluster = cluster_address(address)
    if cluster is not None and not is_custom(format) and "://" not in source:
        source = Storage.open(source).root  # nodes have other working folders
    with progress_bar() as progress:
        progress.add_task("reading", total=None)
        opened = open_source(format, source, given)
    options = PackOptions(
        size, int(channels.value), encoding.value, seed, shard_mb * 2**20,
        fit=fit.value, crop=crop, background=color, bad=bad.value,
    )  # fmt: skip
    _pack(opened, out, options, cluster, custom_sources([format]))


@app.command()
def index(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="Folder or URL with .tar files, also in sub-folders, or some: URL/a-{000..099}.tar.",
        ),
    ],
    folder: Annotated[
        str | None,
        typer.Option("--index", metavar="FOLDER", help="Where the index goes, if not beside the shards: the data.url."),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="FILE|NAMES", help="Names of the classes in order: a line each, or cat,dog,cow."),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The image of a KEY that has several: seg is KEY.seg.png or KEY.seg.jpg."),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Where labels are: KEY.NAME, or NAME in KEY.json; by default cls and label."),
    ] = None,
    bad: Annotated[
        Bad, typer.Option(help="Samples whose image or label cannot be read: fail, or leave them out of the index.")
    ] = Bad.error,
) -> None:
    """Make the index of WebDataset shards that other software wrote (KEY.png|jpg|webp|gif|bmp and KEY.cls or KEY.json).

    Labels are numbers or words; words become classes. Only the header of each image is read. `distgan data verify`
    finds images that are damaged after it; in training data.bad_samples decides about them.

    With --index the shards are only read, as a public data set's: for training, evaluations and `distgan data`, FOLDER
    is the data set.

    Example: `distgan data index 'https://host/train-{000..099}.tar' --index birds`
    """
    from distgan.data.labels import read_class_names
    from distgan.data.scan import Chosen
    from distgan.data.shard_index import index_shards
    from distgan.data.shard_source import ShardSource
    from distgan.storage.storage import Storage

    shards, skipped, empty, unread = ShardSource.parse(url), list[str](), list[str](), list[Counter[str]]()
    names = None if classes is None else read_class_names(classes)
    with progress_bar() as progress:
        task = progress.add_task("reading shards", total=None)
        made = index_shards(
            shards,
            bad.value,
            skipped.append,
            to=None if folder is None else Storage.open(folder),
            chosen=Chosen(image, label),
            classes=names,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total),
            on_unread=unread.append,
            on_empty=empty.append,
        )
    print_made(folder or (url if shards.pattern is None else shards.folder.url), made, skipped)
    print_empty(empty)
    print_unread(url, folder, unread)
    print_if_sorted(made)


@app.command()
def info(url: Url) -> None:
    """Print what a data set holds, and warn if it is small for a run of the default configuration."""
    from distgan.data.shard_checks import open_index
    from distgan.storage.storage import Storage

    opened = open_index(Storage.open(url))
    print_index(url, opened)
    print_classes(opened)
    print_left_out(opened.header.left_out)
    print_if_sorted(opened)
    print_few_images(len(opened))


@app.command()
def show(
    url: Url,
    out: Annotated[str, typer.Option(metavar="FILE.png", help="The picture.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the choice of images.")] = 0,
) -> None:
    """Draw some images of a data set, a row for each class, and print its classes with their numbers of images.

    The same seed shows the same images.
    """
    from distgan.inference.data_sheet import write_contact_sheet
    from distgan.text import printable

    made = write_contact_sheet(url, out, seed)
    print_index(url, made.index)
    print_classes(made.index)
    print(printable(sheet_line(made, out, seed)))


@app.command()
def verify(url: Url) -> None:
    """Check every byte and every image of a data set against its index; exit code 2 if there are faults."""
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
    print(f"{printable(url)}: {plural(total, 'sample')}, all as the index says")


@app.command()
def stats(
    url: Url,
    size: Annotated[
        int | None, typer.Option(min=8, max=4096, help="image_size of the runs; by default the data's.")
    ] = None,
    resize: Annotated[
        Filter | None, typer.Option(help="data.resize of the runs; by default bilinear for images of another size.")
    ] = None,
    extractor: Extractor = None,
    real_samples: Annotated[
        int | None, typer.Option(min=4, help="evaluation.real_samples of the runs; by default all images.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=2, help="evaluation.samples of the runs, which the floor depends on.")
    ] = None,
    workers: WorkerCount = 1,
    out: Annotated[
        str | None,
        typer.Option(metavar="FILE.npz", help="Also write a copy, whose mu and sigma other tools read."),
    ] = None,
    address: Address = None,
    no_ray: NoRay = False,
) -> None:
    """Compute the reference statistics that runs and `distgan evaluate` use, and store them where these look.

    They are stored beside the data, or in this machine's cache folder if the data is read-only. Runs use the ones of
    their image_size, data.resize, evaluation.extractor and evaluation.real_samples.
    """
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
    places = Workers(workers, address, no_ray, "auto", job.custom_sources)
    with feature_bars({"real images": job.images}) as (on_progress, log):
        found = run_task("data stats", compute_statistics, job, places, on_progress, log)
    if found is None:
        return
    if out is not None:
        write_statistics(found, out)
    print("\n".join(statistics_lines(job, found, out)))


def _pack(
    source: Source, out: str, options: PackOptions, cluster: str | None = None, modules: Sequence[str] = ()
) -> None:
    """Packs on this machine, or by the processors of a Ray cluster, whose nodes get the modules."""
    from distgan.data.encode import encoded_samples
    from distgan.data.pack import pack as pack_source
    from distgan.storage.storage import Storage

    skipped: list[str] = []
    recovered: list[int] = []
    stretched: list[int] = []
    kept: list[int] = []

    def log(text: str) -> None:
        progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    with ExitStack() as stack:
        progress = stack.enter_context(progress_bar())
        task = progress.add_task("packing", total=len(source))
        encoder: Encoder = encoded_samples
        if cluster is not None:
            from distgan.launch.pack_on_ray import ray_encoder  # Ray takes seconds to import

            encoder = stack.enter_context(ray_encoder(cluster, modules, log))
        packed = pack_source(
            source,
            Storage.open(out),
            options,
            on_progress=lambda done: progress.update(task, completed=done),
            on_skip=skipped.append,
            on_recovered=recovered.append,
            on_stretched=stretched.append,
            on_kept=kept.append,
            encoder=encoder,
        )
    print_made(out, packed, skipped)
    print_recovered(sum(recovered))
    print_stretched(sum(stretched))
    if options.encoding == "keep":
        print_kept(sum(kept), len(packed))
