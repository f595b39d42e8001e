"""Training curves of a search's trials, recorded once and kept as a file: what a scheduler is shown in a replay."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

import distgan
from distgan.config.load import load_config
from distgan.config.schema import Config
from distgan.data.bricks.render import BrickSource
from distgan.data.pack import PackOptions, pack
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.search.expressions import arguments
from distgan.search.space import Space
from distgan.search.space_checks import validated
from distgan.storage.storage import Storage
from distgan.training.events import EvaluationResult, Event, StepMetrics
from distgan.training.run_spec import RunSpec
from distgan.training.train import train

PRESET = "quickstart"
# Rates from where nothing is learned to where nothing is kept, around those that work.
SPACE = {
    "optimizer.generator.lr": "loguniform(5e-6, 5e-2)",
    "optimizer.discriminator.lr": "optimizer.generator.lr * loguniform(0.1, 10)",
    "objective.label_noise": "uniform(0, 0.3)",
}
SMALL = (
    "image_size=16",
    "latent_dim=32",
    "generator.width=16",
    "discriminator.width=16",
    "training.batch_size=16",
    "evaluation.samples=512",
    "evaluation.real_samples=1024",
    "evaluation.at_start=false",
    "evaluation.patience=null",
    "health.stop=false",
    "scale.groups=1",
    "scale.threads=1",
)


@dataclass(frozen=True)
class Curve:
    """One trial, trained to the end of its budget or to where it diverged.

    Attributes:
        number: of the draw.
        overrides: the trial's own values.
        rows: (kimg, Fréchet distance) of each evaluation.
        kimg: how far it was trained.
        diverged: why it ended before its budget.
        seconds: wall-clock time, one thread.
    """

    number: int
    overrides: dict[str, Any]
    rows: list[tuple[float, float]]
    kimg: float
    diverged: str | None = None
    seconds: float = 0.0

    @property
    def best(self) -> float:
        """The lowest distance; infinite where it was never measured."""
        return min((value for _, value in self.rows), default=float("inf"))


@dataclass(frozen=True)
class Recording:
    """Curves of one space and one recipe.

    Attributes:
        about: how they were made: `command`, `date`, `versions`, and what `RECIPE_KEYS` names.
    """

    about: dict[str, Any]
    curves: list[Curve] = field(default_factory=list)

    RECIPE_KEYS = ("preset", "overrides", "images", "space", "seed", "kimg", "every_kimg")

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Raises UserError for what is no recording."""
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            curves = [Curve(**row | {"rows": [(kimg, value) for kimg, value in row["rows"]]}) for row in tree["curves"]]
            return cls(tree["about"], curves)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: no recording of curves ({error}); make one with `record`") from None

    def save(self, path: Path) -> None:
        """A line a curve; the file is whole at every moment."""
        head = json.dumps(self.about, indent=1, ensure_ascii=False)
        lines = ",\n".join(json.dumps(asdict(curve), ensure_ascii=False) for curve in self.curves)
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(f'{{"about": {head},\n"curves": [\n{lines}\n]}}\n', encoding="utf-8")
        unfinished.replace(path)

    def check_continues(self, about: dict[str, Any], path: Path) -> None:
        """Raises UserError where the curves were made otherwise than those that are to come."""
        for key in self.RECIPE_KEYS:
            if self.about[key] != about[key]:
                raise UserError(
                    f"{path}: was recorded with {key}={self.about[key]}, not {about[key]}; give another file"
                )


@dataclass(frozen=True)
class Plan:
    """What is to be recorded: `trials` draws of the space, each trained for `kimg`."""

    trials: int
    kimg: float
    every_kimg: float
    images: int
    seed: int
    command: str

    def about(self) -> dict[str, Any]:
        return {
            "command": self.command,
            "date": datetime.now(UTC).date().isoformat(),
            "versions": {"distgan": distgan.__version__, "torch": torch.__version__, "ray": version("ray")},
            "preset": PRESET,
            "overrides": list(SMALL),
            "images": self.images,
            "space": SPACE,
            "seed": self.seed,
            "kimg": self.kimg,
            "every_kimg": self.every_kimg,
        }

    def config(self, data_url: str, overrides: Sequence[str] = ()) -> Config:
        budget = [f"training.kimg={self.kimg}", f"evaluation.every_kimg={self.every_kimg}", f"data.url={data_url}"]
        return load_config(PRESET, [*SMALL, *budget, *overrides])


def record(plan: Plan, path: Path) -> None:
    """Trains what is not yet in the file, one trial after another in this process, without Ray."""
    recording = Recording(plan.about())
    if path.exists():
        earlier = Recording.load(path)
        earlier.check_continues(recording.about, path)
        recording = earlier
    with TemporaryDirectory() as folder:
        url = _render(plan, Path(folder) / "bricks")
        space = validated(Space.parse(SPACE), lambda overrides: plan.config(url, overrides))
        for number in range(len(recording.curves), plan.trials):
            overrides = space.overrides(space.sample(plan.seed, number))
            storage = Path(folder) / "runs"
            curve = record_curve(number, overrides, plan.config(url, arguments(overrides)), str(storage))
            shutil.rmtree(storage, ignore_errors=True)
            recording.curves.append(curve)
            recording.save(path)
            print(_line(curve), flush=True)


def record_curve(number: int, overrides: dict[str, Any], config: Config, storage: str) -> Curve:
    """One trial, trained to its end in this process."""
    reporter, diverged, begin = CurveReporter(), None, time.perf_counter()
    try:
        train(RunSpec(config, f"trial-{number}", storage), Distributed(0, 1, torch.device("cpu")), reporter)
    except UserError as error:
        if "diverged" not in str(error):
            raise
        diverged = str(error).partition("training ")[2]
    seconds = round(time.perf_counter() - begin, 1)
    return Curve(number, overrides, reporter.rows, reporter.kimg, diverged, seconds)


class CurveReporter:
    """Keeps a run's evaluations, and how far it came."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float]] = []
        self.kimg = 0.0

    def event(self, event: Event) -> None:
        if isinstance(event, StepMetrics | EvaluationResult):
            self.kimg = event.kimg
        if isinstance(event, EvaluationResult):
            self.rows.append((event.kimg, round(event.value, 1)))

    def samples(
        self, step: int, kimg: float, images: Tensor, columns: int | None = None, names: Sequence[str] = ()
    ) -> None:
        pass

    def real_images(self, images: Tensor, columns: int | None = None, names: Sequence[str] = ()) -> None:
        pass

    def flush(self) -> Callable[[], None]:
        return lambda: None

    def stop_requested(self) -> bool:
        return False

    def save_requested(self) -> str | None:
        return None

    def evaluated(self, event: EvaluationResult) -> None:
        pass


def _render(plan: Plan, folder: Path) -> str:
    storage = Storage.open(str(folder))
    config = load_config(PRESET, SMALL)
    source = BrickSource(plan.seed, plan.images, config.image_size, config.channels)
    pack(source, storage, PackOptions(config.image_size, config.channels, processes=1))
    return storage.url


def _line(curve: Curve) -> str:
    values = " ".join(f"{value:.0f}" for _, value in curve.rows)
    drawn = " ".join(f"{key}={value:.2g}" for key, value in curve.overrides.items())
    return f"{curve.number}: {curve.seconds:.0f} s, {drawn}: {values}{' diverged' if curve.diverged else ''}"
