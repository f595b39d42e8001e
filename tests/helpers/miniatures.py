"""Downloads in miniature, in the exact layout of the real ones: CelebA, CIFAR-10 and CIFAR-100, the LEGO collection."""

from __future__ import annotations

import io
import pickle
import re
import struct
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# CelebA.

ATTRIBUTES = [
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose",
    "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses",
    "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache",
    "Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks",
    "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick",
    "Wearing_Necklace", "Wearing_Necktie", "Young",
]  # fmt: skip
FACES = 8


def face(number: int) -> bytes:
    """JPEG of 178x218 pixels in the gray that its number says."""
    buffer = io.BytesIO()
    Image.new("RGB", (178, 218), (20 * number,) * 3).save(buffer, "JPEG")
    return buffer.getvalue()


def number_of_face(pixels: NDArray[np.uint8]) -> int:
    return round(float(pixels.mean()) / 20)


def has(attribute: str, number: int) -> bool:
    """Blond hair: every second face. Smiling: faces 3, 4, 7, 8. The others: a rule of their own."""
    if attribute == "Blond_Hair":
        return number % 2 == 1
    if attribute == "Smiling":
        return (number - 1) // 2 % 2 == 1
    return (number * 7 + ATTRIBUTES.index(attribute)) % 3 == 0


def face_names(count: int = FACES) -> list[str]:
    return [f"{number:06d}.jpg" for number in range(1, count + 1)]


def attribute_text(count: int = FACES) -> str:
    """`list_attr_celeba.txt`: columns are aligned with spaces."""
    rows = [
        f"{name} {' '.join(f'{1 if has(attribute, number) else -1:2d}' for attribute in ATTRIBUTES)}"
        for number, name in enumerate(face_names(count), 1)
    ]
    return "\n".join([str(count), " ".join(ATTRIBUTES) + " ", *rows]) + "\n"


def attribute_table(count: int = FACES) -> str:
    """`list_attr_celeba.csv`, as Kaggle has it."""
    rows = [
        ",".join([name, *("1" if has(attribute, number) else "-1" for attribute in ATTRIBUTES)])
        for number, name in enumerate(face_names(count), 1)
    ]
    return "\n".join([",".join(["image_id", *ATTRIBUTES]), *rows]) + "\n"


def write_faces(folder: Path, count: int = FACES) -> None:
    folder.mkdir(parents=True)
    for number, name in enumerate(face_names(count), 1):
        (folder / name).write_bytes(face(number))


def zip_faces(
    path: Path, folder: str = "img_align_celeba/", count: int = FACES, method: int = zipfile.ZIP_DEFLATED, **others: str
) -> None:
    """A zip file with the faces in a folder, and other files by name with `_dot_` for `.`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(zipfile.ZipInfo(folder), b"")
        for number, name in enumerate(face_names(count), 1):
            archive.writestr(folder + name, face(number))
        for name, content in others.items():
            archive.writestr(name.replace("_dot_", "."), content)


def celeba_folder(root: Path, count: int = FACES) -> None:
    """The images unpacked, the list beside them."""
    write_faces(root / "img_align_celeba", count)
    (root / "list_attr_celeba.txt").write_text(attribute_text(count))


# CIFAR.

Form = Literal["cifar-10-batches-py", "cifar-10-batches-bin", "cifar-100-python", "cifar-100-binary"]
FORMS: tuple[Form, ...] = ("cifar-10-batches-py", "cifar-10-batches-bin", "cifar-100-python", "cifar-100-binary")
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FINE = [f"fine_{number}" for number in range(100)]
COARSE = [f"coarse_{number}" for number in range(20)]
PER_BATCH = 6
TRAIN, TEST = 5 * PER_BATCH, PER_BATCH


def cifar_image(number: int) -> NDArray[np.uint8]:
    """uint8 (32, 32, 3): noise; its first pixel is the number."""
    pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
    pixels[0, 0] = number
    return pixels


def cifar_rows(numbers: Sequence[int]) -> NDArray[np.uint8]:
    return np.stack([cifar_image(number).transpose(2, 0, 1).reshape(-1) for number in numbers])


def class_of(number: int) -> int:
    return number * 3 % 10


def fine_of(number: int) -> int:
    return number * 7 % 100


def coarse_of(number: int) -> int:
    return fine_of(number) // 5


class _Python2Pickler(pickle._Pickler):
    """Spells texts and bytes as Python 2 did in protocol 2: as strings."""

    def _save_string(self, value: str | bytes) -> None:
        data = value.encode("latin1") if isinstance(value, str) else value
        if len(data) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(data)]) + data)  # type: ignore[attr-defined]
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)  # type: ignore[attr-defined]

    dispatch: ClassVar[dict[type, Any]] = {**pickle._Pickler.dispatch, str: _save_string, bytes: _save_string}


def python2_pickle(value: object) -> bytes:
    """The value as Python 2 and the NumPy of its time pickled it."""
    buffer = io.BytesIO()
    _Python2Pickler(buffer, 2).dump(value)
    return buffer.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def python_batch(numbers: Sequence[int], label: str, hundred: bool) -> dict[str, object]:
    labels: dict[str, object] = {"labels": [class_of(number) for number in numbers]}
    if hundred:
        labels = {
            "fine_labels": [fine_of(number) for number in numbers],
            "coarse_labels": [coarse_of(number) for number in numbers],
        }
    return {
        "batch_label": label,
        **labels,
        "data": cifar_rows(numbers),
        "filenames": [f"picture_s_{number:06d}.png" for number in numbers],
    }


def binary_batch(numbers: Sequence[int], hundred: bool) -> bytes:
    return b"".join(
        bytes([coarse_of(number), fine_of(number)] if hundred else [class_of(number)]) + row.tobytes()
        for number, row in zip(numbers, cifar_rows(numbers), strict=True)
    )


def cifar_files(form: Form) -> Iterator[tuple[str, bytes]]:
    """Names and contents of a download's files; images 0 to 29 are for training, 30 to 35 for tests."""
    hundred = "100" in form
    names = ["train"] if hundred else [f"data_batch_{batch}" for batch in range(1, 6)]
    size = TRAIN // len(names)
    batches = {name: range(place * size, (place + 1) * size) for place, name in enumerate(names)}
    batches["test" if hundred else "test_batch"] = range(TRAIN, TRAIN + TEST)
    if form in {"cifar-10-batches-py", "cifar-100-python"}:
        for name, numbers in batches.items():
            yield name, python2_pickle(python_batch(numbers, f"batch {name}", hundred))
        meta = {"fine_label_names": FINE, "coarse_label_names": COARSE} if hundred else {"label_names": CLASSES}
        yield "meta" if hundred else "batches.meta", python2_pickle({"num_vis": 3072, **meta})
    else:
        for name, numbers in batches.items():
            yield f"{name}.bin", binary_batch(numbers, hundred)
        if hundred:
            yield "fine_label_names.txt", "".join(f"{name}\n" for name in FINE).encode()
            yield "coarse_label_names.txt", "".join(f"{name}\n" for name in COARSE).encode()
        else:
            yield "batches.meta.txt", "".join(f"{name}\n" for name in [*CLASSES, ""]).encode()
    if not hundred:
        yield "readme.html", b"<html></html>"


def cifar_folder(root: Path, form: Form = "cifar-10-batches-py") -> Path:
    """Writes the download's folder into the root; returns it."""
    folder = root / form
    folder.mkdir(parents=True)
    for name, content in cifar_files(form):
        (folder / name).write_bytes(content)
    return folder


def cifar_archive(path: Path, form: Form = "cifar-10-batches-py") -> None:
    """Writes the download's archive, its files in disorder as in the real one."""
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(form)
        member.type = tarfile.DIRTYPE
        archive.addfile(member)
        for name, content in reversed(list(cifar_files(form))):
            member = tarfile.TarInfo(f"{form}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


# LEGO.

BRICKS = ("3001 brick 2x4", "3003 brick 2x2", "14719 flat tile corner 2x2")
VIEWS = ("000L", "000R", "001L", "001R")


def lego_folder(root: Path) -> None:
    """`dataset/3001 brick 2x4 000L.png` and so on, and the list beside the folder."""
    (root / "dataset").mkdir(parents=True)
    names = [f"{brick} {view}.png" for brick in BRICKS for view in VIEWS]
    for number, name in enumerate(names):
        Image.new("RGB", (40, 40), (10 * number,) * 3).save(root / "dataset" / name)
    (root / "validation.txt").write_text("".join(f"{name}\n" for name in names if re.search("001L", name)))
