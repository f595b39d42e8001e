"""A data source that draws its images: as many faces as one likes, blond or not, for the presets of faces.

python -m pip install python-avatars resvg-py
python examples/avatars.py --count 20000 --size 64 --out avatars
"""

from __future__ import annotations

import argparse
import io
import random
import sys

import numpy as np
import python_avatars
import resvg_py
from numpy.typing import NDArray
from PIL import Image

from distgan.data.sources.base import Source
from distgan.errors import UserError

SIDE = 128  # pixels
WIDTH = 146  # of the whole drawing, of which the head is cut out
BLOND = ("BLONDE", "BLONDE_GOLDEN", "PLATINUM")
HAIR_COLORS = ("AUBURN", "BLACK", "BROWN", "BROWN_DARK", "RED", "SILVER_GRAY")

# Each part of a face, and its forms that are left out: costumes, hats, and what has no face.
PARTS = {
    "top": (python_avatars.HairType, ("NONE", "ASTRONAUT", "BRIDE", "FRIDA", "HAT", "WICK")),
    "mouth": (python_avatars.MouthType, ("VOMIT",)),
    "eyes": (python_avatars.EyeType, ("CRY", "EYE_ROLL", "HEART", "X_DIZZY")),
    "eyebrows": (python_avatars.EyebrowType, ()),
    "accessory": (python_avatars.AccessoryType, ("EYEPATCH",)),
    "facial_hair": (python_avatars.FacialHairType, ("EINSTEIN_MOUSTACHE", "WICK_BEARD")),
    "skin_color": (python_avatars.SkinColor, ("YELLOW",)),
    "clothing": (
        python_avatars.ClothingType,
        ("NONE", "ASTRONAUT_SUIT", "BOND_SUIT", "CHEF", "GLADIATOR", "JEDI_ROBE", "SHIRT_WICK", "GRAPHIC_SHIRT"),
    ),
    "clothing_color": (python_avatars.ClothingColor, ()),
}


class AvatarSource(Source):
    """`count` faces, uint8 (128, 128, 4), each drawn from its number and the seed; three tenths are blond."""

    def __init__(self, count: int, seed: int = 0) -> None:
        """Raises UserError where `count` is less than 1."""
        if count < 1:
            raise UserError(f"--count {count}: give at least 1")
        self._count, self._seed = count, seed
        self.classes = ["blond", "other"]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        draw = random.Random(f"{self._seed} {number}")
        label = 0 if draw.random() < 0.3 else 1
        parts = {
            name: draw.choice([form for form in forms if form.name not in left_out])
            for name, (forms, left_out) in PARTS.items()
        }
        # Half have no glasses, two thirds no beard.
        if draw.random() < 0.5:
            parts["accessory"] = python_avatars.AccessoryType.NONE
        if draw.random() < 0.67:
            parts["facial_hair"] = python_avatars.FacialHairType.NONE
        hair = python_avatars.HairColor[draw.choice(BLOND if label == 0 else HAIR_COLORS)]
        avatar = python_avatars.Avatar(
            style=python_avatars.AvatarStyle.TRANSPARENT, hair_color=hair, facial_hair_color=hair, **parts
        )
        drawing = resvg_py.svg_to_bytes(svg_string=avatar.render(), width=WIDTH)
        with Image.open(io.BytesIO(drawing)) as image:
            left = (WIDTH - SIDE) // 2
            return np.asarray(image.convert("RGBA").crop((left, 0, left + SIDE, SIDE))), label

    def name(self, number: int) -> str:
        return f"avatar {number}"


def main() -> int:
    """Packs the faces; returns the exit code."""
    # Here, since the processes that `pack` starts import this module too.
    from distgan.data.pack import PackOptions, pack
    from distgan.storage.storage import Storage

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20000, help="faces")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=64, help="pixels a side; faces are drawn at 128")
    parser.add_argument("--out", required=True, help="folder or URL for the shards")
    arguments = parser.parse_args()
    source = AvatarSource(arguments.count, arguments.seed)
    index = pack(source, Storage.open(arguments.out), PackOptions(arguments.size, channels=3))
    print(f"{arguments.out}: {len(index):,} faces, hash {index.hash}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"avatars: error: {error}")
