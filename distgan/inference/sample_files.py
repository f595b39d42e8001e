"""Samples as files: a grid, single images, or an array."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import torch

from distgan.errors import UserError
from distgan.inference.exported import find_generator
from distgan.inference.sampling import Samples, draw_samples
from distgan.storage.local_files import replacing
from distgan.tracking.grids import image_grid, png_bytes

MOST_IN_A_GRID = 65_536

_WIDE_ENOUGH = 64

OnProgress = Callable[[int], None]


def write_samples(
    url: str,
    out: str,
    *,
    count: int = 64,
    seed: int = 0,
    label: str | None = None,
    which: str | None = None,
    trust_code: bool = False,
    on_progress: OnProgress = lambda _: None,
    log: Callable[[str], None] = lambda _: None,
) -> tuple[str, int]:
    """Writes images of a run or checkpoint to `out`; returns the checkpoint's name and their number.

    `out` is a folder (`images/`) for a PNG each, named by its number, or the name of a file: `.png` for all of them in
    one grid, `.npy` for an array uint8 (N, H, W, C), `.npz` for such an array as `arr_0` and, of a conditional
    generator, the labels as `arr_1`. For the label `all`, `count` is rounded down to whole rows with one image of each
    label, at least one row. `on_progress` is called with the number of images so far, `log` with warnings.

    Raises UserError for what cannot be found or written.
    """
    try:
        write, path = _writer(out, count), Path(out)
        checkpoint = find_generator(url, which, trust_code=trust_code)
        for damaged in checkpoint.skipped:
            log(f"{damaged}; {checkpoint.manifest.name} is used")
        samples = draw_samples(checkpoint, count, seed, label, trust_code=trust_code)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(samples, path, on_progress)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror or error}") from None
    return checkpoint.manifest.name, samples.shape[0]


def _writer(out: str, count: int) -> Callable[[Samples, Path, OnProgress], None]:
    """The function for the kind of file that `out` names. Raises UserError for an unknown kind or a wrong place."""
    if "://" in out:
        raise UserError(f"--out {out}: samples are written to this machine's disk; give a name there")
    path = Path(out)
    if out.endswith("/") or path.is_dir() or not path.suffix:
        if path.is_dir() and any(path.iterdir()):
            raise UserError(f"--out {out}: the folder is not empty; give the name of a new one")
        return _write_images
    if path.suffix.lower() == ".png" and count > MOST_IN_A_GRID:
        raise UserError(
            f"--count {count}: a grid has at most {MOST_IN_A_GRID} images; for more give --out a folder/, .npy or .npz"
        )
    writers = {".png": _write_grid, ".npy": _write_npy, ".npz": _write_npz}
    if path.suffix.lower() not in writers:
        raise UserError(
            f"--out {out}: give a name that ends in .png (a grid), .npy or .npz (an array), or / (a folder of images)"
        )
    return writers[path.suffix.lower()]


def _write_grid(samples: Samples, path: Path, on_progress: OnProgress) -> None:
    images = torch.cat(list(_counted(samples, on_progress)))
    scale = max(1, _WIDE_ENOUGH // images.shape[-1])
    path.write_bytes(png_bytes(image_grid(images, samples.columns, scale=scale)))


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


def _counted(samples: Samples, on_progress: OnProgress) -> Iterator[torch.Tensor]:
    done = 0
    for images in samples.batches:
        yield images
        done += len(images)
        on_progress(done)
