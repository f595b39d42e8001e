"""Color images with transparency through distgan: a data source of your own, and `pack` called on it.

The emoji of the npm package `emoji-datasource-google`, 3,786 in version 16, with their categories as labels.
examples/README.md says how to get them and what came of training on them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from distgan.data.sources.base import Source
from distgan.errors import UserError


class EmojiSource(Source):
    """The emoji of an unpacked `emoji-datasource-google`, uint8 (64, 64, 4); their categories are the classes.

    An emoji's skin tones are images of their own in its category.
    """

    def __init__(self, path: str) -> None:
        """Raises UserError where `path` is not the folder of that package."""
        root = Path(path)
        try:
            emoji = json.loads((root / "emoji.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: give the folder of an unpacked emoji-datasource-google: {error}") from None
        self.classes = sorted({one["category"] for one in emoji})
        self._items = [
            (root / "img" / "google" / "64" / variation["image"], self.classes.index(one["category"]))
            for one in emoji
            for variation in (one, *one.get("skin_variations", {}).values())
            if variation["has_img_google"]
        ]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        """Raises UserError where the image cannot be read."""
        path, label = self._items[number]
        try:
            with Image.open(path) as image:
                return np.asarray(image.convert("RGBA")), label
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error}; unpack the package again") from None

    def name(self, number: int) -> str:
        return str(self._items[number][0])


def main() -> int:
    """Packs the emoji; returns the exit code."""
    # Here, since the processes that `pack` starts import this module too.
    from distgan.data.pack import PackOptions, pack
    from distgan.storage.storage import Storage

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", help="folder of the unpacked package: emoji.json is in it")
    parser.add_argument("--out", required=True, help="folder or URL for the shards")
    parser.add_argument("--size", type=int, default=32, help="pixels a side")
    arguments = parser.parse_args()
    source = EmojiSource(arguments.package)
    index = pack(source, Storage.open(arguments.out), PackOptions(arguments.size, channels=3))
    print(f"{arguments.out}: {len(index):,} emoji in {len(source.classes)} categories, hash {index.hash}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"emoji: error: {error}")
