"""Images that wait in a temporary file until they are packed."""

from __future__ import annotations

import weakref
from array import array
from collections.abc import Iterable

from distgan.errors import UserError
from distgan.storage.local_files import OwnedFolder
from distgan.storage.storage import translate_errors


class WaitingImages:
    """Byte strings by number in a temporary file, below TMPDIR, which is deleted with this object.

    Pickled copies read the same file. Raises UserError if there is no room for it.
    """

    def __init__(self) -> None:
        try:
            folder = OwnedFolder("distgan-images-")
        except OSError as error:
            raise UserError(
                f"no temporary folder can be made ({error.strerror}); set TMPDIR to one with room"
            ) from None
        self._path = folder.path / "images"
        self._ends = array("q", [0])
        weakref.finalize(self, folder.remove)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @property
    def size(self) -> int:
        """Bytes of all images."""
        return self._ends[-1]

    def extend(self, images: Iterable[bytes]) -> None:
        """Adds images at the end."""
        with translate_errors(str(self._path)), self._path.open("ab") as file:
            for image in images:
                file.write(image)
                self._ends.append(self._ends[-1] + len(image))

    def __getitem__(self, number: int) -> bytes:
        start, end = self._ends[number], self._ends[number + 1]
        with translate_errors(str(self._path)), self._path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)
