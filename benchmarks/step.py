"""A training step against plain PyTorch: each option by itself and together, and whether it computes the same.

python -m benchmarks.step --device cuda|cpu --preset P [--options A,B+C,...] [--batch N] [--json FILE] [KEY=VALUE ...]

All sides are in one process and take turns. `eager` is distgan's loop in float32 without further options, with one
group (`scale.groups=1`), as the plain loop has its batch statistics over the whole batch; the plain loop is without
TF32, too. Images a second are real images of the discriminator's updates, those that `kimg` counts.

What is compiled comes last and by itself, in turn with the plain loop only.

After the timing each side begins again and takes so many steps from the same weights, on the same batches and random
numbers, without dropout, whose masks depend on the memory format and on the compiler. Its losses and weights are
compared with those of `eager`. On the CPU all sides, the plain one too, profit from distgan's keeping freed memory.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
from torch import Tensor

from benchmarks.batches import DistganLoop, ready_batches
from benchmarks.correctness import TOLERANCES, Trajectory, trajectory
from benchmarks.phases import host_draws, peak_bytes, phases, profiled
from benchmarks.plain_loop import PlainLoop
from benchmarks.report import about, console, save
from benchmarks.step_table import EAGER, PLAIN, Row, markdown
from distgan.config.load import load_config
from distgan.config.schema import Config
from distgan.distributed import Distributed, choose_device
from distgan.errors import UserError
from distgan.training.process import prepare_process

OPTIONS = {
    "contiguous": "training.channels_last=false",
    "channels_last": "training.channels_last=true",
    "tf32": "training.precision=tf32",
    "bfloat16": "training.precision=bfloat16",
    "compile": "training.compile=on",
    "cuda_graphs": "training.cuda_graphs=on",
}

# In the order in which they are measured: what takes long to start is last.
DEFAULT = (
    "contiguous,tf32,bfloat16,cuda_graphs,tf32+cuda_graphs,bfloat16+cuda_graphs,"
    "compile+cuda_graphs,bfloat16+compile+cuda_graphs,compile"
)


@dataclass(frozen=True)
class Settings:
    """How much is measured. `until` is a `time.time()` after which nothing more is begun."""

    steps: int = 50
    warm_up: int = 3
    turns: int = 5
    seconds: float = 1.0
    batches: int = 8
    profiled: int = 3
    threads: int = len(os.sched_getaffinity(0))
    until: float = float("inf")

    @property
    def over(self) -> bool:
        return time.time() > self.until


QUICK = Settings(steps=3, warm_up=0, turns=2, seconds=0.02, batches=2, profiled=1)


class Bench:
    """The sides of one preset on one device, those that can run side by side."""

    def __init__(self, preset: str, overrides: Sequence[str], device: torch.device, settings: Settings) -> None:
        base = ["scale.groups=1", *overrides]
        self.preset, self.overrides, self.device, self.settings = preset, tuple(base), device, settings
        # Each side compiles the same functions for networks of its own.
        torch._dynamo.config.recompile_limit = 64
        self.config = self._load(())
        self.images = self.config.training.batch_size * self.config.objective.critic_steps
        self.batches = ready_batches(self.config, settings.batches, device)
        self.rows: dict[str, Row] = {}
        self.draws: dict[str, float] | None = None
        self._loops: dict[str, PlainLoop | DistganLoop] = {}
        self._wanted: Trajectory | None = None
        self._about = about(device)

    def add(self, name: str) -> None:
        """Builds a side, compares it, and times it for a turn, and the plain one with it."""
        row = self.rows[name] = Row(name, _overrides(name))
        if self.settings.over:
            row.reason = "not measured: out of time"
            return
        try:
            config = self._load(row.overrides)
            row.precision = config.training.precision
            if row.precision == "tf32" and self.device.type != "cuda":
                raise UserError("training.precision=tf32: TensorFloat-32 is of GPUs; elsewhere it is float32")
            self._start(row, config)
            self._turn([name])
        except UserError as error:
            self._drop(row, str(error))
        except Exception as error:  # noqa: BLE001 - torch's own, whichever; the other rows are measured
            row.figures["traceback"] = traceback.format_exc()
            self._drop(row, _first_line(error))

    def stage(self, names: Sequence[str], save_rows: Callable[[], None]) -> None:
        """Builds sides and measures them, in turn with the plain one; what fails of one leaves the others."""
        for name in names:
            self.add(name)
            console.print(f"{self.preset}, {name}: {self.rows[name].reason or 'ready'}")
            save_rows()
        ready = [name for name in names if name in self._loops]
        for _ in range(self.settings.turns - 1):
            if self.settings.over or not ready:
                break
            self._turn(ready)
            save_rows()
        for measured in (self._profile, self._compare):
            for name in ready:
                if self.settings.over:
                    break
                self._enter(name)
                try:
                    measured(self.rows[name])
                except Exception as error:  # noqa: BLE001 - torch's own, whichever; the speeds are kept
                    traceback.print_exc()
                    self.rows[name].figures["failed"] = _first_line(error)
                save_rows()

    def _profile(self, row: Row) -> None:
        """Phases of a side's step, and the share of the host's random numbers."""
        loop, steps = self._loops[row.name], self.settings.profiled
        loop.step()
        events = profiled(loop.step, steps, self.device)
        row.figures["phases"] = found = phases(events, steps)
        if self.device.type == "cuda":
            row.figures["device_busy_ms"] = sum(each["device_ms"] for each in found.values())
        else:
            row.figures["peak_mib"] = (_state_bytes(loop) + peak_bytes(events)) / 2**20
        if row.name == EAGER:
            self.draws = host_draws(loop.step)
        if row.name != PLAIN and self.draws is not None:
            row.figures["draws_share"] = self.draws["ms"] * statistics.median(row.rates) / (1000 * self.images)

    def _compare(self, row: Row) -> None:
        """Losses and weights after some steps from the beginning, against those of float32 eager."""
        if row.name == PLAIN or (self._wanted is None and row.name != EAGER):
            return
        loop = DistganLoop(self._load(row.overrides), Distributed(0, 1, self.device), self.batches, dropout=False)
        found = trajectory(loop, self.settings.steps)
        if self._wanted is None:
            self._wanted = found
            row.figures["weights_moved"] = found.moved
            return
        differences = found.differences(self._wanted)
        ok = all(differences[part] <= limit for part, limit in TOLERANCES[row.precision].items())
        row.figures |= {"differences": differences, "ok": ok}

    def as_dict(self) -> dict[str, Any]:
        return {
            "about": self._about,
            "preset": self.preset,
            "overrides": self.overrides,
            "batch": self.config.training.batch_size,
            "images_per_step": self.images,
            "compared_steps": self.settings.steps,
            "tolerances": {name: TOLERANCES[name] for name in sorted({row.precision for row in self.rows.values()})},
            "host_draws": self.draws,
            "memory": "torch's allocations of this side at most"
            if self.device.type == "cuda"
            else "weights, moments and averages, and torch's allocations during a step at most",
            "rows": [row.as_dict() for row in self.rows.values()],
        }

    def _load(self, overrides: Sequence[str]) -> Config:
        return load_config(self.preset, [*self.overrides, *overrides])

    def _start(self, row: Row, config: Config) -> None:
        """Builds a side and takes its first steps, which warm it up as well."""
        gpu = self.device.type == "cuda"
        self._enter(row.name)
        gc.collect()
        before = 0
        if gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        begin = time.perf_counter()
        loop = self._loops[row.name] = self._built(row.name, config)
        loop.step()
        self._wait()
        row.figures["start_s"] = time.perf_counter() - begin
        for _ in range(self.settings.warm_up):
            loop.step()
        if gpu:
            row.figures["peak_mib"] = (torch.cuda.max_memory_allocated() - before) / 2**20

    def _built(self, name: str, config: Config) -> PlainLoop | DistganLoop:
        if name == PLAIN:
            torch.manual_seed(0)
            return PlainLoop(config, self.device, self.batches)
        return DistganLoop(config, Distributed(0, 1, self.device), self.batches)

    def _turn(self, names: Sequence[str]) -> None:
        """Times the plain side, then each of the others, for about so many seconds."""
        plain = self._rate(PLAIN) if PLAIN in self._loops else None
        for name in names:
            if name != PLAIN:
                rate = self._rate(name)
                if plain is not None:
                    self.rows[name].ratios.append(rate / plain)

    def _rate(self, name: str) -> float:
        self._enter(name)
        step = self._loops[name].step
        step()
        seconds = self._seconds(step, 2)
        steps = max(2, round(2 * self.settings.seconds / seconds))
        rate = steps * self.images / self._seconds(step, steps)
        self.rows[name].rates.append(rate)
        return rate

    def _seconds(self, step: Callable[[], object], steps: int) -> float:
        self._wait()
        begin = time.perf_counter()
        for _ in range(steps):
            step()
        self._wait()
        return time.perf_counter() - begin

    def _enter(self, name: str) -> None:
        """Sets what a process has once: precision and determinism. The plain side has torch's, but no TF32."""
        plain = name == PLAIN
        prepare_process(self.settings.threads, self.device, "float32" if plain else self.rows[name].precision)
        if plain and self.device.type == "cuda":
            torch.use_deterministic_algorithms(False)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def _drop(self, row: Row, reason: str) -> None:
        row.reason = reason
        self._loops.pop(row.name, None)


def measure(
    preset: str,
    overrides: Sequence[str],
    options: Sequence[str],
    device: torch.device,
    settings: Settings,
    file: Path | None = None,
) -> dict[str, Any]:
    """The table of a preset, which is saved as it grows. Raises UserError for an unknown option or key."""
    for name in options:
        _overrides(name)
    bench = Bench(preset, overrides, device, settings)

    def save_rows() -> None:
        if file is not None:
            save(file, bench.as_dict())

    compiled = [name for name in options if OPTIONS["compile"] in _overrides(name)]
    bench.stage([PLAIN, EAGER, *(name for name in options if name not in compiled)], save_rows)
    for name in compiled:  # one by one, as each may take minutes to begin
        bench.stage([name], save_rows)
    return bench.as_dict()


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]:.200}"


def _overrides(name: str) -> tuple[str, ...]:
    """The configuration of a side. Raises UserError for an unknown option."""
    if name in (PLAIN, EAGER):
        return ()
    unknown = [part for part in name.split("+") if part not in OPTIONS]
    if unknown:
        raise UserError(f"--options {unknown[0]}: no such option; there are {', '.join(OPTIONS)}, joined by +")
    return tuple(OPTIONS[part] for part in name.split("+"))


def _state_bytes(loop: PlainLoop | DistganLoop) -> int:
    if isinstance(loop, PlainLoop):
        networks = [loop.generator, loop.discriminator]
        optimizers = [loop.generator_optimizer, loop.discriminator_optimizer]
    else:
        networks = [loop.networks.generator, loop.networks.discriminator, loop.ema.network]
        optimizers = [loop.optimizers.generator, loop.optimizers.discriminator]
    tensors = [tensor for network in networks for tensor in (*network.parameters(), *network.buffers())]
    for optimizer in optimizers:
        tensors += [each for state in optimizer.state.values() for each in state.values() if isinstance(each, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--preset", default="dcgan-bricks")
    parser.add_argument("--options", default=DEFAULT, help=f"of {', '.join(OPTIONS)}; joined by + for together")
    parser.add_argument("--batch", type=int, help="images in a batch; by default the preset's")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all figures, written as they come")
    parser.add_argument("--threads", type=int, default=Settings.threads, help="of torch, on the CPU")
    parser.add_argument("--seconds", type=float, default=Settings.seconds, help="of one turn of a side")
    parser.add_argument("--turns", type=int, default=Settings.turns, help="of each side")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing more after this time")
    parser.add_argument("--quick", action="store_true", help="few steps, for tests")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    given = parser.parse_intermixed_args(arguments)
    settings = QUICK if given.quick else Settings(turns=given.turns, seconds=given.seconds)
    settings = replace(settings, threads=given.threads, until=time.time() + 60 * given.minutes)
    overrides = [*given.overrides, *([f"training.batch_size={given.batch}"] if given.batch else [])]
    try:
        device = choose_device(given.device, 0)
        options = [name for name in given.options.split(",") if name]
        console.print(markdown(measure(given.preset, overrides, options, device, settings, given.json)))
    except UserError as error:
        console.print(f"error: {error}", style="red")
        sys.exit(2)


if __name__ == "__main__":
    main()
