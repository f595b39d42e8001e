"""CelebA's list of attributes: for each image 40 of them, 1 where the face has it and -1 where not.

The download's `list_attr_celeba.txt` has the count of images in its first line, the attributes' names in its second,
then a row an image; Kaggle's `list_attr_celeba.csv` has the names in its first line, after `image_id`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from distgan.config.suggest import did_you_mean
from distgan.errors import UserError

_VALUES = {"-1": 0, "0": 0, "1": 1}
_MOST_ATTRIBUTES = 12  # 4,096 classes
_AGAIN = "get it again"


def attribute_classes(attributes: Sequence[str]) -> list[str]:
    """The product's class names, as "not Blond_Hair, Smiling": the first attribute is the number's highest bit."""
    choices = [(f"not {name}", name) for name in attributes]
    return [", ".join(chosen) for chosen in itertools.product(*choices)]


def read_attributes(lines: Iterable[str], where: str, wanted: Sequence[str]) -> dict[str, int]:
    """Class of each image, by the image's name: an index into `attribute_classes(wanted)`.

    Raises UserError, naming the list as `where` and the line, where it is no such list or has no such attribute.
    """
    numbered = ((number, _split(line)) for number, line in enumerate(lines, 1) if line.strip())
    count, names = _head(numbered, where)
    columns = _columns(names, where, wanted)
    classes: dict[str, int] = {}
    for number, (image, *values) in numbered:
        if len(values) != len(names):
            raise UserError(
                f"{where}: line {number}: {image} has {len(values)} values for {len(names)} attributes; {_AGAIN}"
            )
        if image in classes:
            raise UserError(f"{where}: line {number}: {image} is in the list twice; {_AGAIN}")
        classes[image] = 0
        for column in columns:
            if values[column] not in _VALUES:
                said = f"{names[column]} is {values[column]:.20}"
                raise UserError(f"{where}: line {number}: {image}: {said}, not 1 or -1; {_AGAIN}")
            classes[image] = 2 * classes[image] + _VALUES[values[column]]
    if count is not None and len(classes) != count:
        raise UserError(f"{where}: has {len(classes):,} rows where its first line announces {count:,}; {_AGAIN}")
    return classes


def _split(line: str) -> list[str]:
    return [word.strip() for word in line.split(",")] if "," in line else line.split()


def _head(lines: Iterator[tuple[int, list[str]]], where: str) -> tuple[int | None, list[str]]:
    """The count of images, None in Kaggle's form, and the attributes' names."""
    _, first = next(lines, (0, [""]))
    if first[0] == "image_id":
        return None, first[1:]
    _, names = next(lines, (0, []))
    if len(first) != 1 or not first[0].isdecimal() or len(first[0]) > 9 or not names:
        raise UserError(
            f"{where}: not CelebA's list of attributes, whose first line is a count or starts with image_id"
        )
    return int(first[0]), names


def _columns(names: list[str], where: str, wanted: Sequence[str]) -> list[int]:
    if len(wanted) > _MOST_ATTRIBUTES:
        raise UserError(f"--label is given {len(wanted)} times; more than {_MOST_ATTRIBUTES} attributes are too many")
    for place, name in enumerate(wanted):
        if name not in names:
            raise UserError(f"--label {name}: no such attribute in {where}{did_you_mean(name, names)}")
        if name in wanted[:place]:
            raise UserError(f"--label {name} is given twice; give each attribute once")
    return [names.index(name) for name in wanted]
