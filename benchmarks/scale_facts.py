"""What a preset's run does in a step, counted in its own code: operations, all-reduces, bytes."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._C._distributed_c10d import _compute_bucket_assignment_by_size
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.scale_model import Run, Update, in_memory
from distgan.config.schema import Config
from distgan.data.decode import SampleDecoder
from distgan.data.index import BLOCK_BYTES
from distgan.data.pack import PackOptions, pack
from distgan.data.sources.base import Source
from distgan.data.sources.rendered_bricks import BrickSource
from distgan.data.storage import Storage
from distgan.data.stream import Group
from distgan.evaluation.images import CHUNK
from distgan.metrics.features import load_extractor
from distgan.training.checkpoints import CheckpointStore
from distgan.training.ema import ExponentialMovingAverage
from distgan.training.fakes import GeneratedImages
from distgan.training.networks import build_networks, build_objective
from distgan.training.optimizers import build_optimizers
from distgan.training.progress import Progress
from distgan.training.state import TrainingState
from distgan.training.step import Step
from distgan.world import World

ALONE = World(0, 1, torch.device("cpu"))
# Images of a group while operations are counted: the fewest that batch statistics and both halves of a batch allow.
_FEW = 2
# Images of the data sets that the presets' comments name.
DATA_IMAGES = {"bricks": 40_000, "quickstart": 16_384, "cifar": 50_000, "fashion": 60_000, "faces": 202_599}
_PACKED = 256


@dataclass(frozen=True)
class Stored:
    """How packed images are stored, and what one costs to read.

    Attributes:
        image_bytes: with its part of the shard's frame.
        decode_s: on one core.
    """

    image_bytes: float
    decode_s: float


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators that are dispatched inside, views too, and the floating-point operations of products.

    torch's `FlopCounterMode` has the same formulas, but follows modules, which an inner gradient does not allow.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:
            with self:  # in inference mode compound operators come whole
                parts = func.decompose(*args, **given)
            if parts is not NotImplemented:
                return parts
        result = func(*args, **given)
        self.count += 1
        if formula is not None:
            self.flops += formula(*args, **given, out_val=result)
        return result


def counted(work: Callable[[], object]) -> tuple[int, int]:
    """(floating-point operations, operators) of some work: a product and its sum are two, as everywhere."""
    operators = Operators()
    with operators:
        work()
    return operators.flops, operators.count


class Miniature:
    """A preset's step on one worker with so many groups of two images."""

    def __init__(self, config: Config, groups: int) -> None:
        training = config.training.model_copy(update={"batch_size": _FEW * groups})
        scale = config.scale.model_copy(update={"groups": groups})
        self.config = config.model_copy(update={"training": training, "scale": scale})
        self.networks = build_networks(self.config, ALONE.device)
        optimizers = build_optimizers(config.optimizer, self.networks.generator, self.networks.discriminator)
        objective = build_objective(config)
        self.step = Step(
            self.config, self.networks.generator, self.networks.discriminator, objective, optimizers, ALONE
        )
        self.ema = ExponentialMovingAverage(self.networks.generator, config.ema)
        self.state = TrainingState(self.config, self.networks, self.ema, optimizers, Progress(), "", 1, 1)
        images = torch.zeros((_FEW, *config.image_shape), dtype=torch.uint8)
        labels = torch.zeros(_FEW, dtype=torch.int64)
        self.batch = [Group(images, labels) for _ in range(groups)]
        self.run()  # creates the optimisers' moments

    def run(self) -> None:
        """One whole step."""
        self.terms = self.step.run(lambda: self.batch, 0, 0)
        self.ema.update(self.networks.generator, len(self.batch) * _FEW, len(self.batch) * _FEW)

    def gradients(self) -> dict[str, Callable[[], None]]:
        """What fills gradients, by the update's name."""
        step, batch = self.step, self.batch
        if step.simultaneous:
            return {"both": lambda: step.simultaneous_gradients(batch, 0)}
        return {
            "critic": lambda: step.critic_gradients(batch, 0),
            "generator": lambda: step.generator_gradients(batch, 0),
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


def run_of(config: Config, name: str, stored: Stored, data_images: int) -> Run:
    """What a run of this configuration does on a data set of so many images."""
    one, two = Miniature(config, 1), Miniature(config, 2)
    objective = config.objective
    updates = []
    for kind, gradients in one.gradients().items():
        flops, operators = counted(gradients)
        _, more = counted(two.gradients()[kind])
        updates.append(
            Update(
                name=kind,
                count=objective.critic_steps if kind == "critic" else 1,
                flops=flops / _FEW,
                operators=more - operators,
                fixed_operators=2 * operators - more,
                buckets=buckets(networks_of(one, kind), 25),
                gpu_buckets=buckets(networks_of(one, kind), 1),
                statistics=statistics_bytes(statistics_of(one, kind)),
            )
        )
    _, whole = counted(one.run)
    inside = sum(update.count * (update.operators + update.fixed_operators) for update in updates)
    generator_flops, generator_operators, extractor_flops, extractor_operators, features = _evaluation(config, one)
    batches = objective.critic_steps if objective.critic_batches == "fresh" else 1
    return Run(
        name=name,
        batch=config.training.batch_size,
        groups=config.scale.groups,
        streams=config.data.streams,
        real_images=batches * config.training.batch_size,
        counted_images=objective.critic_steps * config.training.batch_size,
        updates=tuple(updates),
        step_operators=whole - inside,
        terms=len(one.terms),
        log_every=config.training.log_every,
        budget=config.training.kimg * 1000,
        data_images=data_images,
        image_bytes=stored.image_bytes,
        pixel_bytes=int(np.prod(config.image_shape)),
        block_bytes=BLOCK_BYTES,
        memory_bytes=config.data.memory_mb * 2**20,
        state_bytes=one.state_bytes(),
        every_images=config.evaluation.every_kimg * 1000,
        samples=config.evaluation.samples,
        chunk=CHUNK,
        evaluation_flops=generator_flops,
        extractor_flops=extractor_flops,
        chunk_operators=generator_operators + extractor_operators,
        sums_bytes=8 * (1 + features + features**2),
    )


def data_images_of(preset: str) -> int:
    """Images of the data set that a preset's comment names."""
    return next(images for part, images in DATA_IMAGES.items() if part in preset)


def networks_of(miniature: Miniature, kind: str) -> list[nn.Module]:
    """Those whose gradients an update adds up, in the order in which data parallelism holds them."""
    networks = miniature.networks
    return {
        "both": [networks.generator, networks.discriminator],
        "critic": [networks.discriminator],
        "generator": [networks.generator],
    }[kind]


def statistics_of(miniature: Miniature, kind: str) -> list[nn.Module]:
    """Those whose batch statistics an update advances: a critic's also those of the generator that it runs."""
    networks = miniature.networks
    return [networks.generator] if kind == "generator" else [networks.generator, networks.discriminator]


def buckets(networks: Sequence[nn.Module], first_mb: int) -> tuple[int, ...]:
    """Bytes of each all-reduce of these networks' gradients, by torch's own division into buckets.

    `World.wrap` leaves a GPU torch's first bucket of 1 MiB, with which it begins sooner; elsewhere it has 25.
    """
    parameters: list[Tensor] = [each for network in networks for each in network.parameters() if each.requires_grad]
    parameters.reverse()
    groups, _ = _compute_bucket_assignment_by_size(parameters, [first_mb * 2**20, 25 * 2**20])
    sizes = [each.numel() * each.element_size() for each in parameters]
    return tuple(sum(sizes[number] for number in group) for group in groups)


def statistics_bytes(networks: Sequence[nn.Module]) -> int:
    """Bytes of the running means and variances of batch normalisation."""
    layers = [module for network in networks for module in network.modules() if isinstance(module, _BatchNorm)]
    return sum(b.numel() * b.element_size() for layer in layers for b in layer.buffers() if b.is_floating_point())


def _evaluation(config: Config, miniature: Miniature) -> tuple[float, int, float, int, int]:
    """Operations a sample and operators a chunk, of the generator and of the extractor; its features."""
    few = config.evaluation.model_copy(update={"samples": _FEW})
    images = GeneratedImages(
        config.model_copy(update={"evaluation": few}), np.zeros(1, np.int64), ALONE.device, miniature.ema.network
    )
    generator_flops, generator_operators = counted(lambda: images.chunk(0))
    extractor = load_extractor("fd_lite0")
    sample = images.chunk(0)
    extractor_flops, extractor_operators = counted(lambda: extractor(sample))
    return (
        generator_flops / _FEW,
        generator_operators,
        extractor_flops / _FEW,
        extractor_operators,
        extractor.dimension,
    )


class NoiseSource:
    """Images that no encoding makes smaller: no photograph is stored larger."""

    def __init__(self, count: int, size: int, channels: int) -> None:
        self.classes: list[str] = []
        self._count, self._shape = count, (size, size, channels)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> tuple[NDArray[np.uint8], int]:
        return np.random.default_rng(number).integers(0, 256, self._shape, np.uint8), -1

    def name(self, number: int) -> str:
        return f"noise {number}"


def measure_stored(config: Config, bricks: bool) -> Stored:
    """Packs rendered bricks, else noise, as `distgan data pack` does, and decodes them on one thread."""
    size, channels = config.image_size, config.channels
    source: Source = BrickSource(0, _PACKED, size, channels) if bricks else NoiseSource(_PACKED, size, channels)
    with TemporaryDirectory() as folder:
        storage = Storage.open(folder)
        index = pack(source, storage, PackOptions(size, channels, processes=1))
        total = sum(shard.bytes for shard in index.header.shards)
        data = config.data.model_copy(update={"url": storage.url})
        decoder = SampleDecoder.open(data, config.image_shape)
        blocks = list(index.blocks)
        read = dict(zip([block.number for block in blocks], decoder.reader.read(blocks), strict=True))
        seconds = []
        for _ in range(3):
            begin = time.perf_counter()
            for sample in range(_PACKED):
                block = decoder.block_of(sample)
                decoder.decode_or_next(sample, block, read[block.number])
            seconds.append((time.perf_counter() - begin) / _PACKED)
    return Stored(total / _PACKED, statistics.median(seconds))


def save(path: Path, about: dict[str, Any], runs: Sequence[Run], decode_s: dict[str, float]) -> None:
    tree = {"about": about, "decode_s": decode_s, "runs": [asdict(run) for run in runs]}
    path.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Facts:
    """What `facts` has counted: runs by preset, and seconds to decode an image of each."""

    about: dict[str, Any]
    runs: dict[str, Run]
    decode_s: dict[str, float]

    def in_memory(self) -> dict[str, Run]:
        """The runs with `data.memory_mb` large enough."""
        return {name: in_memory(run) for name, run in self.runs.items()}

    @classmethod
    def load(cls, path: Path) -> Facts:
        tree = json.loads(path.read_text(encoding="utf-8"))
        return cls(tree["about"], {row["name"]: run_from(row) for row in tree["runs"]}, tree["decode_s"])


def run_from(row: dict[str, Any]) -> Run:
    """The inverse of `asdict`."""
    updates: list[dict[str, Any]] = [
        {key: tuple(value) if isinstance(value, list) else value for key, value in update.items()}
        for update in row["updates"]
    ]
    return Run(**row | {"updates": tuple(Update(**update) for update in updates)})
