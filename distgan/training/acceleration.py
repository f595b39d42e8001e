"""`training.compile` and `training.cuda_graphs`: what can be had, and the line that says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distgan.config.plugins import error_text
from distgan.config.schema import Config, Switch
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.training.optimizers import Optimizers
from distgan.training.prepared import CudaGraphs, GraphBackend, PreparedUpdate
from distgan.training.sums import SumsBetweenGraphs


class Choice(NamedTuple):
    """Whether a setting is used; the line that says so if the configuration left it open; what captures graphs."""

    chosen: bool
    line: str | None
    graphs: GraphBackend | None = None


def check_acceleration(config: Config, distributed: Distributed) -> None:
    """Raises UserError for a setting that this device cannot have, whatever the networks are."""
    _choice("training.cuda_graphs", config.training.cuda_graphs, _no_graphs(distributed))
    _choice("training.compile", config.training.compile, _no_compiler(config, distributed))


def compile_updates(
    config: Config, distributed: Distributed, modules: Sequence[nn.Module], updates: Mapping[str, PreparedUpdate]
) -> Choice:
    """Compiles the modules in place, and runs the updates once."""
    setting = config.training.compile
    reason = _no_compiler(config, distributed) or _obstacle(updates)
    if setting == "auto" and distributed.device.type == "cpu":
        reason = reason or "it gains nothing on a CPU"
    if setting != "off" and reason is None:
        for module in modules:
            module.compile(fullgraph=True, dynamic=False)
        try:
            for update in updates.values():
                update.try_out()
        except Exception as error:  # noqa: BLE001 - a compiler has many, and eager works without it
            reason = f"torch cannot compile the update: {_first_sentence(error)}"
            for module in modules:
                module._compiled_call_impl = None
    return _choice("training.compile", setting, reason)


def capture_updates(
    config: Config,
    distributed: Distributed,
    updates: Mapping[str, PreparedUpdate],
    optimizers: Optimizers,
    optimizer_steps: dict[str, Callable[[], object]],
    sum_between_graphs: Callable[[bool], SumsBetweenGraphs | None],
    backend: GraphBackend | None,
) -> Choice:
    """Captures the updates and, where they can be, the optimizers' steps in `optimizer_steps`.

    `sum_between_graphs(True)` makes several workers sum there, and gives their sums; with False they sum as before.
    """
    setting = config.training.cuda_graphs
    reason = (None if backend is not None else _no_graphs(distributed)) or _obstacle(updates)
    if setting != "off" and reason is None:
        eager = dict(optimizer_steps)
        backend = CudaGraphs() if backend is None else backend
        sums = sum_between_graphs(True)
        try:
            _capture(updates, optimizers, optimizer_steps, sums, backend)
        except Exception as error:  # noqa: BLE001 - a part of the user's own may do what no graph can
            reason = f"torch cannot capture the update: {_first_sentence(error)}"
        reason = next((found for found in distributed.gather(reason) if found is not None), None)
        if reason is not None:
            optimizer_steps.update(eager)
            optimizers.release_memory()
            sum_between_graphs(False)
            for update in updates.values():
                update.drop_graphs()
    choice = _choice("training.cuda_graphs", setting, reason)
    return choice._replace(graphs=backend if choice.chosen else None)


def _capture(
    updates: Mapping[str, PreparedUpdate],
    optimizers: Optimizers,
    optimizer_steps: dict[str, Callable[[], object]],
    sums: SumsBetweenGraphs | None,
    graphs: GraphBackend,
) -> None:
    """Workers talk to each other in the warming up only, so one that fails to capture leaves nobody waiting."""
    optimizers.fix_memory()
    for kind, update in updates.items():
        update.sums = sums
        graphs.warm_up(update.try_out)
        if optimizers.can_be_captured:
            graphs.warm_up(optimizer_steps[kind])
    for kind, update in updates.items():
        update.capture(graphs)
        if optimizers.can_be_captured:
            optimizer_steps[kind] = graphs.capture(optimizer_steps[kind])


@contextmanager
def unchanged(networks: Iterable[nn.Module], optimizers: Optimizers) -> Iterator[None]:
    """Gives parameters, buffers and moments the values back that they had; gradients are dropped."""
    networks = list(networks)
    kept = [(tensor, tensor.detach().clone()) for tensor in _state(networks, optimizers)]
    yield
    with torch.no_grad():
        known = {id(tensor): value for tensor, value in kept}
        for tensor in _state(networks, optimizers):
            # Moments that did not exist are zero before the first step.
            if id(tensor) in known:
                tensor.copy_(known[id(tensor)])
            else:
                tensor.zero_()
    optimizers.zero_grad()


def _state(networks: Sequence[nn.Module], optimizers: Optimizers) -> Iterator[Tensor]:
    for network in networks:
        yield from network.parameters()
        yield from network.buffers()
    for optimizer in (optimizers.generator, optimizers.discriminator):
        for moments in optimizer.state.values():
            yield from moments.values()


def _no_graphs(distributed: Distributed) -> str | None:
    return None if distributed.device.type == "cuda" else "the run is not on a GPU"


def _no_compiler(config: Config, distributed: Distributed) -> str | None:
    if config.objective.updates == "simultaneous":
        return "updates=simultaneous goes twice through one forward"
    return None


def _first_sentence(error: Exception) -> str:
    """Without what torch adds for its own developers."""
    return error_text(error).partition(" Set TORCHDYNAMO")[0].partition(" Compile with")[0]


def _obstacle(updates: Mapping[str, PreparedUpdate]) -> str | None:
    found = [f"the {kind} update {update.obstacle}" for kind, update in updates.items() if update.obstacle]
    return found[0] if found else None


def _choice(key: str, setting: Switch, reason: str | None) -> Choice:
    """Raises UserError for `on` where there is a reason against it."""
    if setting == "on" and reason is not None:
        raise UserError(f"{key}=on: {reason}; set {key}=auto or {key}=off")
    line = f"{key}=auto: {'on' if reason is None else f'off, as {reason}'}" if setting == "auto" else None
    return Choice(setting != "off" and reason is None, line)
