"""Data sources of a user's own: the example as its README runs it, and what is asked of such a class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from command_line import Cli
from distgan.data.index import Index
from distgan.data.pack import PackOptions, pack
from distgan.data.sources.base import Source, open_source, parse_options
from distgan.data.verify import verify
from distgan.errors import UserError
from distgan.storage.storage import Storage
from packing import pixels_of

pytestmark = pytest.mark.timeout(30)

EXAMPLES = Path(__file__).parents[2] / "examples"
SHEET = "sheet_source:SheetSource"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a sheet of two rows of three tiles."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    tiles = np.arange(0, 240, 40, dtype=np.uint8).reshape(2, 3)
    Image.fromarray(tiles.repeat(16, 0).repeat(16, 1)).save(tmp_path / "shoes.png")


def test_the_example_from_the_command_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    options = "--option tile=16 --option rows=sandal --option rows=boot"
    command = f"data pack shoes.png --format {SHEET} {options} --out shoes --size 16"
    result = Cli(capsys, monkeypatch)(*command.split())
    assert result.code == 0, result
    storage = Storage.open("shoes")
    assert verify(storage) == []
    index = Index.load(storage)
    assert index.header.classes == ["boot", "sandal"]
    values = [int(image[0, 0, 0]) for image in pixels_of(Path("shoes"), index)]
    assert sorted(zip(values, index.labels.tolist(), strict=True)) == [(40 * n, int(n < 3)) for n in range(6)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "shoes.png: 48x32 pixels are no whole tiles of 32; give --option tile=PIXELS"),
        (["tiles=16"], "--option tiles: sheet_source:SheetSource has no such option; did you mean 'tile'?"),
        (["tile=16", "tile=8"], "--option tile of sheet_source:SheetSource: input should be a valid integer"),
        (["tile"], "--option tile: write --option NAME=VALUE"),
    ],
)
def test_wrong_options_are_one_line(options: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        open_source(SHEET, "shoes.png", parse_options(options))
    assert str(caught.value).startswith(message)


class Good(Source):
    """Two black images, of which the second one has the label `label`."""

    classes = ("a", "b")

    def __init__(self, path: str, count: int = 2, label: int = 1, kinds: tuple[str, ...] = ()) -> None:
        self.count, self.label, self.kinds = count, label, kinds

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        return np.zeros((16, 16), np.uint8), self.label if number else 0


class Failing(Good):
    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        raise KeyError("no such image")


class Unreadable(Good):
    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        return super().__getitem__(number) if number == 0 else (np.asarray(Image.open("gone.png")), 0)


class Unfinished(Source):
    def __init__(self, path: str) -> None: ...

    def __len__(self) -> int:
        return 0


class Miscounted(Good):
    left_out = {"": 3}  # noqa: RUF012


class Pathless(Good):
    def __init__(self, folder: str) -> None: ...


class NoSource:
    def __init__(self, path: str) -> None: ...


def open_own(kind: type, **options: str | list[str]) -> Source:
    return open_source(f"{__name__}:{kind.__name__}", "anywhere", options)


def test_options_have_the_types_of_the_constructor() -> None:
    source = open_own(Good, count="3", kinds=["x", "y"])
    assert isinstance(source, Good)
    assert (source.count, source.kinds) == (3, ("x", "y"))
    with pytest.raises(UserError, match=r"--option count of .*:Good: input should be a valid integer"):
        open_own(Good, count="three")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (NoSource, r"not a data source; derive it from distgan\.data\.sources\.base\.Source"),
        (Pathless, "its constructor has no argument `path`"),
        (Unfinished, r"Unfinished: its constructor raised TypeError: .*__getitem__"),
        (Miscounted, r"Miscounted: its constructor raised ValueError: left_out has '': 3"),
    ],
)
def test_a_class_that_is_no_source(kind: type, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_own(kind)


def pack_own(source: Source, bad: str = "error") -> Index:
    options = PackOptions(16, 1, processes=1, bad=bad)  # type: ignore[arg-type]
    return pack(source, Storage.open("packed"), options)


def test_what_a_source_raises_while_packing() -> None:
    with pytest.raises(UserError, match=r"image 1: its label is 7, and the source has 2 classes"):
        pack_own(open_own(Good, label="7"))
    with pytest.raises(UserError, match=r"image 1: .*gone\.png.*--bad skip"):
        pack_own(open_own(Unreadable))
    with pytest.raises(UserError, match=r"test_own_source:Failing: image \d: it raised KeyError: 'no such image'"):
        pack_own(open_own(Failing), "skip")
    assert len(pack_own(open_own(Unreadable), "skip")) == 1
