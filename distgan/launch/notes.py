"""What Ray Train keeps of a run while it runs; a run's own checkpoints are elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pyarrow.fs

from distgan.data.storage import Storage
from distgan.errors import UserError

_FOLDER = "ray"
RayStorage = tuple[str, pyarrow.fs.FileSystem | None]


@contextmanager
def ray_notes(run: Storage) -> Iterator[RayStorage]:
    """Inside, a folder of the run for Ray's notes, as a path with its file system; afterwards it is gone.

    Ray reads them only as long as one command runs, to start a lost controller or workers again. To be left after
    Ray has ended. Storage that refuses keeps them: they harm nothing, and the next command of the run removes them.
    """
    storage = run.child(_FOLDER)
    try:
        if storage.is_local:
            yield str(storage.local_path), None
        else:  # through the same fsspec as everything else
            yield storage.root, pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(storage.fs))
    finally:
        with suppress(UserError):
            run.delete(_FOLDER)
