"""Where the files of a run are, at any URL, and copies of those that one looks at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distgan.bounds import MOST_RECORD_BYTES, MOST_TEXT_BYTES
from distgan.errors import UserError
from distgan.report.pictures import MOST_FILE_BYTES, grid_names
from distgan.report.run_data import CONFIG
from distgan.search.record import FILE
from distgan.storage.storage import NotFoundError, Storage
from distgan.tracking.grids import REALS
from distgan.tracking.record import METRICS, SUMMARY
from distgan.training.checkpoints import CheckpointStore

# Files of a run, and of a search, with the most bytes that are copied.
_OF_RUN = {
    CONFIG: MOST_TEXT_BYTES,
    METRICS: MOST_RECORD_BYTES,
    SUMMARY: MOST_TEXT_BYTES,
    "curves.png": MOST_FILE_BYTES,
    REALS: MOST_FILE_BYTES,
}

_OF_SEARCH = {
    FILE: MOST_RECORD_BYTES,
    "leaderboard.csv": MOST_RECORD_BYTES,
    "best.yaml": MOST_TEXT_BYTES,
    "curves.png": MOST_FILE_BYTES,
    "keys.png": MOST_FILE_BYTES,
    "parallel.png": MOST_FILE_BYTES,
}


def newest_grid(folder: Storage) -> str | None:
    """The name of the newest grid of a run, below its folder; None without one."""
    names = grid_names(folder.child("samples").list())
    return f"samples/{names[max(names)]}" if names else None


@dataclass(frozen=True)
class RunFiles:
    """Where the files of a run are.

    Attributes:
        checkpoints: their names, the oldest first.
        newest_grid, others: names below the folder; `newest_grid` is None without one.
    """

    folder: str
    checkpoints: list[str]
    newest_grid: str | None
    others: list[str]

    @classmethod
    def of(cls, folder: Storage) -> RunFiles:
        """Lists the folder; of checkpoints only the names are read."""
        names = folder.list()
        return cls(
            folder=folder.url,
            checkpoints=CheckpointStore(folder).names() if "checkpoints" in names else [],
            newest_grid=newest_grid(folder) if "samples" in names else None,
            others=[name for name in ("curves.png", REALS, METRICS, CONFIG, SUMMARY, "tensorboard") if name in names],
        )

    def rows(self) -> list[tuple[str, str]]:
        """Labels and texts."""
        return [
            ("folder", self.folder),
            ("checkpoints", ", ".join(self.checkpoints) or "none"),
            ("newest grid", self.newest_grid or "none"),
            ("further files", ", ".join(self.others) or "none"),
        ]


def fetch_run(url: str, out: str | None = None) -> tuple[Path, list[str]]:
    """Copies what one looks at of a run or search into a folder on this machine; returns it and the copied names.

    Of a run: its newest grid, real images, curves, metrics, summary and configuration; `distgan report` reads the copy.
    Of a search: its record, leaderboard, best configuration and pictures. Files of these names in `out` are replaced.

    Args:
        out: by default a folder of the run's name in the working folder.

    Raises UserError where there is no run and no search, for files larger than such files are, and where `out` cannot
    be written or is the run's own folder.
    """
    source = Storage.open(url)
    source.require()
    target = Storage.open(out or source.url.rpartition("/")[2])
    if target.local_path is None:
        raise UserError(f"--out {out}: name a folder on this machine")
    if target.url == source.url:
        raise UserError(f"{url}: is the folder that it would be copied to; name another with --out")
    is_search = source.exists(FILE)
    wanted = dict(_OF_SEARCH if is_search else _OF_RUN)
    if not is_search and (grid := newest_grid(source)) is not None:
        wanted[grid] = MOST_FILE_BYTES
    copied = [name for name, most in wanted.items() if _copy(source, target, name, most)]
    if not set(copied) & {FILE, METRICS, CONFIG}:
        raise UserError(f"{source.url}: no {METRICS} and no {FILE} there; name the folder of a run or search")
    return target.local_path, copied


def _copy(source: Storage, target: Storage, name: str, most: int) -> bool:
    try:
        data = source.read_bytes(name, most=most)
    except NotFoundError:
        return False
    target.write_bytes(name, data)
    return True
