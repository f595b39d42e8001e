"""The commands of docs/guides/data-formats.md, as written, on downloads in miniature."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from command_line import Cli
from distgan.data.index import Index
from distgan.storage.storage import Storage
from doc_blocks import ROOT, blocks, commands
from miniatures import BRICKS, CLASSES, COARSE, celeba_folder, cifar_archive, cifar_folder, lego_folder
from packing import gray, write_foreign, write_image
from parquet_files import hub_file

pytestmark = pytest.mark.timeout(60)

PAGE = ROOT / "docs" / "guides" / "data-formats.md"
COMMANDS = [
    command.words
    for block in blocks(PAGE)
    if block.language == "bash" and not block.why_not_run
    for command in commands(block.text)
]

# What each --out holds: images, channels, classes.
MADE = {
    "faces": (8, 3, []),
    "faces-blond": (8, 3, ["not Blond_Hair", "Blond_Hair"]),
    "faces-four": (
        8,
        3,
        ["not Blond_Hair, not Smiling", "not Blond_Hair, Smiling", "Blond_Hair, not Smiling", "Blond_Hair, Smiling"],
    ),
    "faces-108": (8, 3, []),
    "faces-128": (8, 3, []),
    "cifar10": (30, 3, CLASSES),
    "cifar100-coarse": (30, 3, COARSE),
    "cifar10-all": (36, 3, CLASSES),
    "lego": (12, 1, []),
    "lego-kinds": (12, 1, sorted(BRICKS)),
    "from-shards": (3, 3, ["cat", "dog"]),
    "shoes": (2, 3, ["boot", "sandal"]),
    "shoes-by-color": (2, 3, ["black", "brown"]),
    "birds-64": (9, 3, ["cat", "dog"]),
    "birds-test": (2, 3, ["cat", "dog"]),
}


def shoes(folder: Path) -> None:
    """The table of the page, and its photographs."""
    (table,) = (block.text for block in blocks(PAGE) if block.text.startswith("path,label,color"))
    (folder / "shoes.csv").write_text(table)
    for row in table.splitlines()[1:]:
        write_image(folder / row.partition(",")[0])


def birds(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, first, count in (
        ("train-00000-of-00002", 0, 5),
        ("train-00001-of-00002", 5, 4),
        ("test-00000-of-00001", 50, 2),
    ):
        (folder / f"{name}.parquet").write_bytes(hub_file(first, count))


def shards(folder: Path) -> None:
    folder.mkdir()
    write_foreign(folder / "a.tar", [{"jpg": gray(each), "cls": "dog" if each % 2 else "cat"} for each in range(3)])
    (folder / "a.tar.gz").write_bytes(gzip.compress((folder / "a.tar").read_bytes()))
    (folder / "a.tar").unlink()


def test_every_command_is_known() -> None:
    assert [command[command.index("--out") + 1] for command in COMMANDS] == list(MADE)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[command.index("--out") + 1])
def test_a_command(cli: Cli, tmp_path: Path, command: list[str]) -> None:
    celeba_folder(tmp_path / "celeba")
    cifar_archive(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py")
    cifar_archive(tmp_path / "cifar-100-python.tar.gz", "cifar-100-python")
    cifar_folder(tmp_path, "cifar-10-batches-bin")
    lego_folder(tmp_path / "lego")
    shoes(tmp_path)
    birds(tmp_path / "birds" / "data")
    shards(tmp_path / "packed-shards")
    done = cli(*command[1:])
    assert done.code == 0, done
    out = command[command.index("--out") + 1]
    header = Index.load(Storage.open(str(tmp_path / out))).header
    assert (header.samples, header.channels, header.classes) == MADE[out]
    assert header.image_size == (32 if out.startswith("cifar") else 128 if out == "faces-128" else 64)
    assert cli("data", "verify", out).code == 0
