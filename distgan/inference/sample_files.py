"""Samples as files: a grid, an animation, single images, an array, or shards."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distgan.data.encode import EncodedImage, PackOptions
from distgan.data.images import encode_image
from distgan.data.shard_writer import write_shards
from distgan.errors import UserError
from distgan.inference.exported import find_generator
from distgan.inference.latents import read_latents
from distgan.inference.sampling import SampleOptions, Samples, checkpoint_config, draw
from distgan.storage.local_files import replacing
from distgan.storage.storage import Storage
from distgan.tracking.grids import enlargement, image_grid, png_bytes, with_column_names

MOST_IN_A_GRID = 65_536

# Pillow holds all frames of an animation in memory.
_MOST_ANIMATED_BYTES = 2**30

_FRAME_MS = 80

_ANIMATIONS = (".gif", ".webp")

# Receives the number of images so far, and of all.
OnProgress = Callable[[int, int], None]


def write_samples(
    url: str,
    out: str,
    options: SampleOptions = SampleOptions(),  # noqa: B008 - it is immutable
    *,
    latents: str | None = None,
    webdataset: bool = False,
    which: str | None = None,
    trust_code: bool = False,
    on_progress: OnProgress = lambda done, total: None,
    log: Callable[[str], None] = lambda _: None,
) -> tuple[str, int]:
    """Writes images of a run or checkpoint to `out`; returns the checkpoint's name and their number.

    `out` is a folder (`images/`) for a PNG each, named by its number, or the name of a file: `.png` for all of them in
    one grid, `.npy` for an array uint8 (N, H, W, C), `.npz` for such an array as `arr_0` and, of a conditional
    generator, the labels as `arr_1`; `.gif` and `.webp` for an animation (`SampleOptions.loop`). For the label `all`,
    `count` is rounded down to whole rows with one image of each label, at least one row.

    Args:
        latents: an .npy or .npz file with latents; see `read_latents`.
        webdataset: `out` is a folder or URL for shards and an index as `distgan data pack` writes them, samples in
            their order.
        on_progress: is called with the number of images so far, and that of all.
        log: is called with warnings.

    Raises UserError for what cannot be found or written.
    """
    try:
        write = _shards_writer(out) if webdataset else _writer(out, options.count or 0)
        checkpoint = find_generator(url, which, trust_code=trust_code)
        for damaged in checkpoint.skipped:
            log(f"{damaged}; {checkpoint.manifest.name} is used")
        if latents is not None:
            dimension = checkpoint_config(checkpoint, trust_code=trust_code).latent_dim
            options = replace(options, latents=read_latents(latents, dimension))
        options = replace(options, loop=Path(out).suffix.lower() in _ANIMATIONS and not webdataset)
        samples = draw(checkpoint, options, trust_code=trust_code)
        if "://" not in out:
            Path(out).parent.mkdir(parents=True, exist_ok=True)
        write(samples, Path(out), on_progress)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror or error}") from None
    return checkpoint.manifest.name, samples.shape[0]


def _shards_writer(out: str) -> Callable[[Samples, Path, OnProgress], None]:
    """Writes a data set. Raises UserError where `out` names a file."""
    if Path(out).suffix.lower() in {".png", ".npy", ".npz", ".tar", *_ANIMATIONS}:
        raise UserError(f"--out {out}: --webdataset writes several files; give the name of a folder, or a URL")
    storage = Storage.open(out)

    def write(samples: Samples, _: Path, on_progress: OnProgress) -> None:
        labels = iter(() if samples.labels is None else samples.labels.tolist())
        encoded = (
            EncodedImage(encode_image(image.permute(1, 2, 0).numpy(), "png"), next(labels, -1), "png")
            for images in _counted(samples, on_progress)
            for image in images
        )
        write_shards(storage, encoded, PackOptions(samples.shape[2], samples.shape[1]), samples.classes)

    return write


def _writer(out: str, count: int) -> Callable[[Samples, Path, OnProgress], None]:
    """The function for the kind of file that `out` names. Raises UserError for an unknown kind or a wrong place."""
    if "://" in out:
        raise UserError(f"--out {out}: samples are written to this machine's disk; give a name there, or --webdataset")
    path = Path(out)
    if out.endswith("/") or path.is_dir() or not path.suffix:
        if path.is_dir() and any(path.iterdir()):
            raise UserError(f"--out {out}: the folder is not empty; give the name of a new one")
        return _write_images
    if path.suffix.lower() == ".png" and count > MOST_IN_A_GRID:
        raise UserError(
            f"--count {count}: a grid has at most {MOST_IN_A_GRID} images; for more give --out a folder/, .npy or .npz"
        )
    writers = {".png": _write_grid, ".npy": _write_npy, ".npz": _write_npz, **dict.fromkeys(_ANIMATIONS, _animate)}
    if path.suffix.lower() not in writers:
        raise UserError(
            f"--out {out}: give a name that ends in .png (a grid), .gif or .webp (an animation), .npy or .npz (an "
            "array), or / (a folder of images)"
        )
    return writers[path.suffix.lower()]


def _write_grid(samples: Samples, path: Path, on_progress: OnProgress) -> None:
    count = samples.shape[0]
    if count > MOST_IN_A_GRID:
        raise UserError(f"--out {path}: a grid has at most {MOST_IN_A_GRID:,} images, not {count:,}; give fewer")
    images = torch.cat(list(_counted(samples, on_progress)))
    path.write_bytes(png_bytes(_grid(images, samples)))


def _animate(samples: Samples, path: Path, on_progress: OnProgress) -> None:
    """Writes a GIF or WebP file that goes on forever."""
    count, channels, height, width = samples.shape
    if count * channels * height * width * enlargement(width) ** 2 > _MOST_ANIMATED_BYTES:
        raise UserError(
            f"--out {path}: {count:,} images of {width} pixels a side are too many for an animation; give a smaller "
            "--count or --steps"
        )
    first, *others = _frames(samples, on_progress)
    kind, options = ("GIF", {}) if path.suffix.lower() == ".gif" else ("WEBP", {"quality": 90, "method": 4})
    with replacing(path) as partial:
        first.save(partial, kind, save_all=True, append_images=others, duration=_FRAME_MS, loop=0, **options)


def _frames(samples: Samples, on_progress: OnProgress) -> Iterator[Image.Image]:
    waiting = torch.empty(0, *samples.shape[1:], dtype=torch.uint8)
    for images in _counted(samples, on_progress):
        waiting = torch.cat([waiting, images])
        while len(waiting) >= samples.frame:
            yield _grid(waiting[: samples.frame], samples)
            waiting = waiting[samples.frame :]


def _grid(images: Tensor, samples: Samples) -> Image.Image:
    """A grid; of the label `all` with the class over each column."""
    grid = image_grid(images, samples.columns, scale=enlargement(images.shape[-1]))
    classes = torch.arange(len(samples.classes))
    repeats, rest = divmod(samples.columns or 0, max(1, len(classes)))
    if (
        samples.labels is None
        or repeats < 1
        or rest
        or not torch.equal(samples.labels[: samples.columns], classes.repeat(repeats))
    ):
        return grid
    return with_column_names(grid, list(samples.classes) * repeats)


def _write_images(samples: Samples, folder: Path, on_progress: OnProgress) -> None:
    """Writes a PNG each; removes them again where not all can be written."""
    existed = folder.exists()
    folder.mkdir(exist_ok=True)
    digits = max(6, len(str(samples.shape[0] - 1)))
    written: list[Path] = []
    try:
        for images in _counted(samples, on_progress):
            for image in images:
                written.append(folder / f"{len(written):0{digits}}.png")
                written[-1].write_bytes(png_bytes(image_grid(image[None], padding=0)))
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        if not existed:
            folder.rmdir()
        raise


def _write_npy(samples: Samples, path: Path, on_progress: OnProgress) -> None:
    with replacing(path) as partial, partial.open("wb") as file:
        _write_array(samples, file, on_progress)


def _write_npz(samples: Samples, path: Path, on_progress: OnProgress) -> None:
    with replacing(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as file:
            _write_array(samples, file, on_progress)
        if samples.labels is not None:
            with archive.open("arr_1.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, samples.labels.numpy())


def _write_array(samples: Samples, file: IO[bytes], on_progress: OnProgress) -> None:
    """Writes NumPy's format batch by batch: the whole array need not fit in memory."""
    count, channels, height, width = samples.shape
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, height, width, channels)}
    np.lib.format.write_array_header_1_0(file, header)
    for images in _counted(samples, on_progress):
        file.write(images.permute(0, 2, 3, 1).numpy().tobytes())


def _counted(samples: Samples, on_progress: OnProgress) -> Iterator[Tensor]:
    done = 0
    for images in samples.batches:
        yield images
        done += len(images)
        on_progress(done, samples.shape[0])
