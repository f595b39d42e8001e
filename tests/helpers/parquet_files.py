"""Parquet files of images, as data sets of the hub have them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet


def image_file(number: int, kind: str = "PNG", size: tuple[int, int] = (16, 16)) -> bytes:
    """An image file whose upper left pixel has the red value `number`."""
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    pixels[0, 0, 0] = number
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def hub_structs(images: Sequence[bytes | None]) -> pa.Array:
    """Images as the hub's library stores them: structs of bytes and a path."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([{"bytes": data, "path": f"{number}.png"} for number, data in enumerate(images)], kind)


def parquet_bytes(columns: dict[str, Any], features: dict[str, Any] | None = None, **options: Any) -> bytes:
    """A file with the columns, what the hub's library writes about them, and row groups of 3 rows."""
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, row_group_size=3, **options)
    return buffer.getvalue()


def hub_file(first: int, count: int, names: Sequence[str] = ("cat", "dog")) -> bytes:
    """Images from number `first`, labeled by number modulo classes, as the hub's library writes them."""
    numbers = range(first, first + count)
    columns = {
        "image": hub_structs([image_file(number) for number in numbers]),
        "label": pa.array([number % len(names) for number in numbers], pa.int64()),
    }
    return parquet_bytes(columns, {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(names)}})
