"""A preset's step on one worker, with as few images as it allows."""

from __future__ import annotations

from collections.abc import Callable
from tempfile import TemporaryDirectory

import torch

from distgan.config.schema import Config
from distgan.data.stream import Group
from distgan.distributed import Distributed
from distgan.storage.storage import Storage
from distgan.training.checkpoints import CheckpointStore
from distgan.training.ema import ExponentialMovingAverage
from distgan.training.networks import build_networks, build_objective
from distgan.training.optimizers import build_optimizers
from distgan.training.progress import Progress
from distgan.training.state import TrainingState
from distgan.training.step import Step

ALONE = Distributed(0, 1, torch.device("cpu"))
# Images of a group while operations are counted: the fewest that batch statistics and both halves of a batch allow.
FEW = 2


class Miniature:
    """A preset's step on one worker with so many groups of two images."""

    def __init__(self, config: Config, groups: int) -> None:
        training = config.training.model_copy(update={"batch_size": FEW * groups})
        scale = config.scale.model_copy(update={"groups": groups})
        self.config = config.model_copy(update={"training": training, "scale": scale})
        self.networks = build_networks(self.config, ALONE.device)
        optimizers = build_optimizers(config.optimizer, self.networks.generator, self.networks.discriminator)
        objective = build_objective(config)
        self.step = Step(self.config, self.networks, objective, optimizers, ALONE)
        self.ema = ExponentialMovingAverage(self.networks.generator, config.ema)
        self.state = TrainingState(self.config, self.networks, self.ema, optimizers, Progress(1, 1), "", 1, 1)
        images = torch.zeros((FEW, *config.image_shape), dtype=torch.uint8)
        labels = torch.zeros(FEW, dtype=torch.int64)
        self.batch = [Group(images, labels) for _ in range(groups)]
        self.run()  # creates the optimizers' moments

    def run(self) -> None:
        """One whole step."""
        self.terms = self.step.run(lambda: self.batch, 0, 0).values
        self.ema.update(self.networks.generator, len(self.batch) * FEW, len(self.batch) * FEW)

    def gradients(self) -> dict[str, Callable[[], object]]:
        """What fills gradients, by the update's name."""
        step, batch = self.step, self.batch
        if step.simultaneous:
            return {"both": lambda: step.gradients("both", batch, 0, 0)}
        return {
            "critic": lambda: step.gradients("discriminator", batch, 0, 0),
            "generator": lambda: step.gradients("generator", batch, 0, 0),
        }

    def state_bytes(self) -> int:
        """Of a checkpoint's tensors, written as in a run."""
        with TemporaryDirectory() as folder:
            store = CheckpointStore(Storage.open(folder))
            self.state.save(store, lambda: None)
            store.wait()
            manifest = store.newest_manifest()
        assert manifest is not None
        return manifest.state_bytes
