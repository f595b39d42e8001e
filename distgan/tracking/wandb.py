"""The tracker `wandb`: Weights & Biases, by its own variables (`WANDB_PROJECT`, `WANDB_MODE`, …)."""

from __future__ import annotations

import netrc
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from distgan.errors import UserError
from distgan.tracking.service import CLOSE_S, Point, ServiceTracker
from distgan.tracking.tracker import TrackedRun
from distgan.training.events import RunStarted

_SERVER = "https://api.wandb.ai"

_OFFLINE = ("offline", "dryrun", "disabled")


class WandbTracker(ServiceTracker):
    """Sends numbers against kimg, sample grids, curves and the configuration to a run of W&B.

    With `WANDB_MODE=offline` it writes them to `wandb/` in the run's folder, for `wandb sync`.
    """

    name, title, package = "wandb", "W&B", "wandb"

    def __init__(self, run: TrackedRun) -> None:
        super().__init__(run)
        self._run: Any = None

    @classmethod
    def check(cls) -> None:
        super().check()
        known = any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"))
        if not (_is_offline() or known or _has_login(os.environ.get("WANDB_BASE_URL") or _SERVER)):
            raise UserError(
                "tracking: wandb is not logged in; run `wandb login`, or set WANDB_API_KEY, or WANDB_MODE=offline"
            )

    def open(self, started: RunStarted, configuration: Mapping[str, Any]) -> int | None:
        import wandb

        folder = str(self.run.folder)
        if not _is_offline():  # what is in the run's folder would be uploaded there too
            remote = "://" in self.run.url
            folder = os.environ.get("WANDB_DIR") or (tempfile.gettempdir() if remote else folder)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "distgan"),
            id=self.id,
            name=started.name,
            config=dict(configuration),
            resume="allow",
            dir=folder,
            settings=wandb.Settings(
                console="off", silent=True, init_timeout=CLOSE_S / 3, finish_timeout=CLOSE_S / 3, save_code=False
            ),
        )
        self._run.define_metric("progress/kimg")
        self._run.define_metric("*", step_metric="progress/kimg")
        first = int(self._run.starting_step)
        return first - 1 if first > 0 else None

    def send(self, point: Point) -> None:
        import wandb

        pictures = {name: wandb.Image(picture) for name, picture in point.pictures.items()}
        self._run.log({**point.values, **pictures, "progress/kimg": point.kimg}, step=point.images)

    def finish(self) -> None:
        self._run.finish()


def _is_offline() -> bool:
    return os.environ.get("WANDB_MODE", "").lower() in _OFFLINE


def _has_login(server: str) -> bool:
    """Whether `wandb login` has left a key for this server."""
    file = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    try:
        return netrc.netrc(file).authenticators(urlsplit(server).hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False
