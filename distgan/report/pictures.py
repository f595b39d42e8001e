"""The sample grids of runs for a page of limited size."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from PIL import Image

from distgan.data.images import UNREADABLE, open_image
from distgan.report.run_data import RunData
from distgan.storage.storage import NotFoundError, Storage
from distgan.tracking.grids import REALS, png_bytes

_NAME = re.compile(r"kimg-(\d{1,10}(?:\.\d{1,3})?)\.png")

# Grids of all runs together: more are not looked at.
_MOST_GRIDS = 120

MOST_FILE_BYTES = 2**26

# Where fewer of a run's grids fit as they are, they become WebP, a tenth as large.
_ENOUGH, _QUALITY = 12, 80

_MOST_REALS_BYTES = 500_000


@dataclass
class Grids:
    """The grids of a run, by kimg.

    Attributes:
        found: how many its folder has.
        converted: whether they are WebP instead of the PNG files as they are.
        shrunk: their sides have been divided by this.
        reals: real images in the same layout, as a data URL; empty where the run has none.
    """

    found: int = 0
    kimg: list[float] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    converted: bool = False
    shrunk: int = 1
    reals: str = ""

    @property
    def note(self) -> str:
        """A sentence on what is left out; empty where nothing is."""
        parts = []
        if len(self.kimg) < self.found:
            parts.append(f"{len(self.kimg)} of {self.found} grids, evenly chosen")
        if self.converted:
            size = {1: "", 2: " at half size", 4: " at a quarter of their size"}[self.shrunk]
            parts.append(f"compressed with loss{size}; the files in samples/ are exact")
        return "; ".join(parts)


def read_grids(run: RunData, most_bytes: int, runs: int = 1) -> Grids:
    """The grids in a run's folder as data URLs, evenly thinned out until they fit; the first and the last stay.

    Args:
        most_bytes: of the data URLs together.
        runs: that share the page.
    """
    folder = run.storage.child("samples")
    names = grid_names(folder.list())
    ends = sorted(names)
    chosen = _evenly(ends, max(2, _MOST_GRIDS // runs))
    files = {kimg: data for kimg in chosen if (data := _read(folder, names[kimg])) is not None}
    found = Grids(len(names), reals=_real_images(run.storage))
    most_bytes -= len(found.reals)
    shown, enough = files, min(_ENOUGH, len(files))
    for shrunk in (1, 2, 4):
        if len(_fitting(shown, most_bytes)) >= enough:
            break
        found.converted, found.shrunk = True, shrunk
        shown = {kimg: webp(data, shrunk) for kimg, data in files.items()}
    found.kimg = _fitting(shown, most_bytes)
    kind = "webp" if found.converted else "png"
    found.sources = [data_url(shown[kimg], kind) for kimg in found.kimg]
    return found


def grid_names(names: Iterable[str]) -> dict[float, str]:
    """The files of `samples/` that are grids, by kimg."""
    return {float(match[1]): name for name in names if (match := _NAME.fullmatch(name))}


def _read(folder: Storage, name: str) -> bytes | None:
    """A PNG file; None for what is none, not whole, or too large."""
    data = folder.read_start(name, MOST_FILE_BYTES + 1)
    if len(data) > MOST_FILE_BYTES:
        return None
    try:
        with open_image(data, ("PNG",)) as image:
            image.load()
    except UNREADABLE:
        return None
    return data


def _real_images(folder: Storage) -> str:
    """The grid of real images beside the samples as a data URL; empty where there is none."""
    try:
        data = _read(folder, REALS)
    except NotFoundError:
        return ""
    if data is None:
        return ""
    shrunk = webp(data)
    data, kind = (shrunk, "webp") if len(shrunk) < len(data) else (data, "png")
    found = data_url(data, kind)
    return found if len(found) <= _MOST_REALS_BYTES else ""


def small_data_url(image: Image.Image, most_png_bytes: int) -> str:
    """A picture as a data URL: as PNG, or as WebP where that has more bytes."""
    data = png_bytes(image)
    return data_url(data, "png") if len(data) <= most_png_bytes else data_url(webp(data), "webp")


def data_url(data: bytes, kind: str) -> str:
    """A picture's file as a data URL; `kind` is `png` or `webp`."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def webp(png: bytes, shrunk: int = 1) -> bytes:
    """A PNG file as WebP with loss, a tenth as large, with sides divided by `shrunk`."""
    buffer = io.BytesIO()
    with open_image(png, ("PNG",)) as image:
        image.convert("RGB").reduce(shrunk).save(buffer, "WEBP", quality=_QUALITY)
    return buffer.getvalue()


def _fitting(files: dict[float, bytes], most_bytes: int) -> list[float]:
    """The most keys, evenly chosen, of which the files fit."""
    for count in range(len(files), 0, -1):
        chosen = _evenly(list(files), count)
        if sum(4 * len(files[kimg]) // 3 + 40 for kimg in chosen) <= most_bytes:
            return chosen
    return []


def _evenly(values: Sequence[float], count: int) -> list[float]:
    """So many of the values at equal distances, the first and the last among them; of one, the last."""
    if len(values) <= count:
        return list(values)
    if count == 1:
        return [values[-1]]
    return [values[round(place * (len(values) - 1) / (count - 1))] for place in range(count)]
