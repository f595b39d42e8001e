"""What a device allows a step at most: by the operations of its products, and by the bytes that they move."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks.batches import DistganLoop, ready_batches
from benchmarks.scale.operators import Operators
from benchmarks.step_table import PLAIN
from distgan.config.optimizer import AdamConfig, RMSPropConfig
from distgan.config.schema import Config
from distgan.distributed import Distributed
from distgan.training.process import prepare_process

PRECISIONS = ("float32", "tf32", "bfloat16")

NOTE = (
    "Operations are those of convolutions and matrix products, forward and backward, by torch's counter. Bytes are "
    "what these read and write in float32 (half of it in bfloat16), as if all else were fused into them, and what "
    "optimizers and average read and write. Peaks are those of a large matrix product and of a copy on this device. "
    "The limit is the batch over the longer of the two times."
)


@dataclass(frozen=True)
class Work:
    """What a step does.

    Attributes:
        images: real images of its discriminator updates.
        flops: of its products.
        product_bytes: that these read and write in float32.
        update_bytes: of parameters, gradients, moments and averages, that optimizers and the average read and write.
    """

    images: int
    flops: int
    product_bytes: int
    update_bytes: int


@dataclass(frozen=True)
class Peaks:
    """Floating-point operations a second by precision, and bytes a second read and written by a copy."""

    flops: dict[str, float]
    bytes: float


def work_of(config: Config, device: torch.device) -> Work:
    """Counts an eager step in float32."""
    loop = DistganLoop(config, Distributed(0, 1, device), ready_batches(config, 2, device))
    loop.step()
    counted = Operators()
    with counted:
        loop.step()
    sizes, steps = loop.networks.parameter_counts, config.objective.critic_steps
    moved = _floats(config.optimizer.discriminator) * steps * sizes["discriminator"]
    moved += (_floats(config.optimizer.generator) + 3) * sizes["generator"]  # the average: two read, one written
    return Work(config.training.batch_size * steps, counted.flops, counted.product_bytes, 4 * moved)


def limit(work: Work, peaks: Peaks, precision: str) -> dict[str, Any]:
    """The most images a second, and whether arithmetic or memory sets it."""
    arithmetic = work.flops / peaks.flops[precision]
    products = work.product_bytes / 2 if precision == "bfloat16" else work.product_bytes
    memory = (products + work.update_bytes) / peaks.bytes
    bound = "arithmetic" if arithmetic >= memory else "memory"
    return {"images_per_s": work.images / max(arithmetic, memory), "bound": bound}


def measured_peaks(device: torch.device, threads: int, quick: bool = False) -> Peaks:
    """Of this device, now. TF32 is of GPUs only."""
    gpu = device.type == "cuda"
    size = 128 if quick else 8192 if gpu else 1024
    flops = {}
    for precision in PRECISIONS if gpu else ("float32", "bfloat16"):
        prepare_process(threads, device, precision)
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        a, b = torch.randn(size, size, device=device, dtype=dtype), torch.randn(size, size, device=device, dtype=dtype)
        flops[precision] = 2 * size**3 / _seconds(lambda a=a, b=b: a @ b, device)  # type: ignore[misc]
    numbers = torch.zeros(2**18 if quick else 2**28 if gpu else 2**25, device=device)
    copy = torch.empty_like(numbers)
    return Peaks(flops, 2 * 4 * len(numbers) / _seconds(lambda: copy.copy_(numbers), device))


def roofline(config: Config, device: torch.device, peaks: Peaks, reached: dict[str, Any] | None) -> dict[str, Any]:
    """Work, limits by precision, and what the rows of a measurement (`benchmarks.step`) reach of them."""
    work = work_of(config, device)
    limits = {precision: limit(work, peaks, precision) for precision in peaks.flops}
    rows = [
        {
            "name": row["name"],
            "precision": row["precision"],
            "images_per_s": row["images_per_s"],
            "share": row["images_per_s"] / limits[row["precision"]]["images_per_s"],
        }
        for row in (reached or {"rows": []})["rows"]
        if "images_per_s" in row and row["precision"] in limits and row["name"] != PLAIN
    ]
    return {"work": asdict(work), "peaks": asdict(peaks), "limits": limits, "reached": rows, "note": NOTE}


def _floats(config: AdamConfig | RMSPropConfig) -> int:
    """Numbers that an optimizer reads and writes for each parameter: it, its gradient, and its moments."""
    return 7 if isinstance(config, AdamConfig) else 5


def _seconds(work: Callable[[], object], device: torch.device, repeats: int = 5, inner: int = 4) -> float:
    """The shortest of some times of `work`."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    times = []
    for _ in range(repeats + 1):
        wait()
        begin = time.perf_counter()
        for _ in range(inner):
            work()
        wait()
        times.append((time.perf_counter() - begin) / inner)
    return min(times[1:])
