"""What the tests of packing share: images to write, a source packed in this process, what then lies in the shards."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import webdataset as wds
from numpy.typing import NDArray
from PIL import Image

from distgan.data.images import decode_image
from distgan.data.index import Index
from distgan.data.pack import PackOptions, pack
from distgan.data.sources.base import Source
from distgan.storage.storage import Storage


def pack_here(source: Source, folder: Path, **options: Any) -> Index:
    calls = {name: options.pop(name) for name in list(options) if name.startswith("on_")}
    given = {"image_size": 16, "channels": 1, "processes": 1, **options}
    return pack(source, Storage.open(str(folder)), PackOptions(**given), **calls)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def pixels_of(folder: Path, index: Index) -> list[NDArray[np.uint8]]:
    """Every image by the index's own offsets."""
    images = []
    for block in index.blocks:
        shard = (folder / index.header.shards[block.shard].name).read_bytes()
        for sample in range(block.first, block.stop):
            start = int(index.offsets[sample])
            data = shard[start : start + int(index.lengths[sample])]
            images.append(decode_image(data, index.header.image_size, index.header.channels))
    return images


def number_of(pixels: NDArray[np.uint8]) -> int:
    return int(pixels[0, 0, 0]) * 256 + int(pixels[0, 0, 1])


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write_image(path: Path, value: int = 0, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (20, 10), value if mode == "L" else None).save(path)


def write_foreign(path: Path, samples: list[dict[str, Any]]) -> None:
    with wds.TarWriter(str(path)) as writer:
        for number, sample in enumerate(samples):
            writer.write({"__key__": f"train/{number:05d}", **sample})


def gray(value: int, kind: str = "JPEG", size: tuple[int, int] = (16, 16)) -> bytes:
    return encoded(Image.new("L", size, value), kind)
