"""One training step: `critic_steps` critic updates and a generator update, each the mean over all groups.

A global batch is `groups` equal parts. Everything that the mathematics depends on (batch statistics, dropout,
latents, noise) belongs to a part, so a step is the same for every number of workers. A worker runs its parts in
turn; gradients meet in one all-reduce at its last part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from distgan.config.schema import Config
from distgan.data.stream import Group
from distgan.distributed import Distributed
from distgan.losses.objectives import Objective
from distgan.losses.rng import Purpose, StepRng
from distgan.training.augmentation import DiffAugment
from distgan.training.buffers import RunningStatistics, has_batch_statistics
from distgan.training.optimizers import Optimizers
from distgan.training.profiling import span
from distgan.training.updates import DiscriminatorUpdate, SimultaneousUpdate, Terms

# The real images of a batch with their labels, one part a group of this worker.
RealBatch = Sequence[Group]

# What networks are called with after latents or images: int64 (N,) for a conditional pair of them, else nothing.
Labels = tuple[Tensor] | tuple[()]

DTYPES = {"float32": torch.float32, "bfloat16": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Groups:
    """The groups of a batch that a worker runs."""

    total: int
    distributed: Distributed

    @property
    def local(self) -> range:
        """Numbers of this worker's groups: consecutive, and at least one where workers are at most groups."""
        rank, size = self.distributed.rank, self.distributed.size
        return range(rank * self.total // size, (rank + 1) * self.total // size)

    @property
    def loss_weight(self) -> float:
        """What a group's mean loss weighs, so that the average over workers is the mean over groups."""
        return self.distributed.size / self.total


class Step:
    """Runs updates on a pair of networks. Stateless but for what it is given: networks and optimisers.

    Attributes:
        term_groups: how many of this worker's groups had each term of the last step.
    """

    def __init__(
        self,
        config: Config,
        generator: nn.Module,
        discriminator: nn.Module,
        objective: Objective,
        optimizers: Optimizers,
        distributed: Distributed,
    ) -> None:
        self.config, self.distributed = config, distributed
        self.groups = Groups(config.scale.groups, distributed)
        self.generator, self.discriminator = generator, discriminator
        self.objective, self.optimizers = objective, optimizers
        self.simultaneous = config.objective.updates == "simultaneous"
        self.augment = DiffAugment(config.training.augment)
        joint_forward = not self.simultaneous and not has_batch_statistics(discriminator)
        critic_update = DiscriminatorUpdate(discriminator, objective, self.augment, joint_forward)
        if self.simultaneous:
            self.parallel_update = distributed.ddp(SimultaneousUpdate(generator, critic_update))
        else:
            self.parallel_generator = distributed.ddp(generator)
            self.parallel_critic_update = distributed.ddp(critic_update)
        self.term_groups: dict[str, int] = {}
        self._statistics = RunningStatistics(generator, discriminator)
        self._generator_statistics = RunningStatistics(generator)
        self._critic_statistics = RunningStatistics(discriminator)
        self._dtype = DTYPES[config.training.precision]
        self._group_size = config.training.batch_size // config.scale.groups
        self._memory_format = torch.channels_last if config.training.channels_last else torch.contiguous_format

    def run(self, next_batch: Callable[[], RealBatch], critic_updates: int, generator_updates: int) -> Terms:
        """One step from the given counts of updates done.

        Returns the terms of its last critic update that had them and of its generator update: this worker's shares,
        whose sum over all workers is the mean over all groups, where all had the term (see `term_groups`).
        """
        objective = self.config.objective
        self.optimizers.set_rates(critic_updates * self.config.training.batch_size)
        if self.simultaneous:
            self.both_updates(next_batch(), critic_updates)
            self.term_groups = self._term_groups
            return self._terms
        batch: RealBatch = ()
        terms: Terms = {}
        groups: dict[str, int] = {}
        for offset in range(objective.critic_steps):
            if offset == 0 or objective.critic_batches == "fresh":
                batch = next_batch()
            terms |= self.critic_update(batch, critic_updates + offset)
            groups |= self._term_groups
        terms |= self.generator_update(batch, generator_updates)
        self.term_groups = groups | self._term_groups
        return terms

    def critic_update(self, batch: RealBatch, update: int) -> Terms:
        """One update of the discriminator against fakes that carry no gradient."""
        with span("critic"):
            self.critic_gradients(batch, update)
        with span("optimizers"):
            self._record_gradient("discriminator", self.discriminator)
            self._move_discriminator()
        return self._terms

    def generator_update(self, batch: RealBatch, update: int) -> Terms:
        """One update of the generator through the frozen discriminator; only the batch's labels are used."""
        with span("generator"):
            self.generator_gradients(batch, update)
        with span("optimizers"):
            self._record_gradient("generator", self.generator)
            self.optimizers.update_generator()
        return self._terms

    def both_updates(self, batch: RealBatch, update: int) -> Terms:
        """Updates both networks with gradients from one forward, taken before either moves."""
        self.simultaneous_gradients(batch, update)
        with span("optimizers"):
            self._record_gradient("discriminator", self.discriminator)
            self._record_gradient("generator", self.generator)
            self._move_discriminator()
            self.optimizers.update_generator()
        return self._terms

    def critic_gradients(self, batch: RealBatch, update: int) -> None:
        """Fills the discriminator's gradients and advances the running statistics of both networks."""
        self._begin(self._statistics, self.optimizers.discriminator)
        for part, group in zip(batch, self.groups.local, strict=True):
            draws, last = self._draws(update, group), group == self.groups.local[-1]
            labels = self._labels(part)
            with _synchronised(self.parallel_critic_update, last):
                with self._statistics.group(last, self.groups.total, self.distributed), self._autocast():
                    with torch.no_grad():
                        fake = self._fakes(self.generator, draws, Purpose.CRITIC_LATENTS, labels)
                    real = self._real(part.images, draws)
                    loss, _, terms = self.parallel_critic_update(real, fake, draws, *labels)
                torch.autograd.backward(loss * self.groups.loss_weight)
            self._record(terms, 1 / self.groups.total)
        self._statistics.finish()

    def generator_gradients(self, batch: RealBatch, update: int) -> None:
        """Fills the generator's gradients and advances its running statistics; the discriminator is untouched."""
        self._begin(self._generator_statistics, self.optimizers.generator)
        multiple = self.config.objective.generator_batch_multiple
        with _frozen(self.discriminator), self._critic_statistics.held():
            for part, group in zip(batch, self.groups.local, strict=True):
                draws, last = self._draws(update, group), group == self.groups.local[-1]
                labels = tuple(label.repeat(multiple) for label in self._labels(part))
                with _synchronised(self.parallel_generator, last):
                    with self._generator_statistics.group(last, self.groups.total, self.distributed), self._autocast():
                        fake = self._fakes(self.parallel_generator, draws, Purpose.GENERATOR_LATENTS, labels, multiple)
                        fake = self.augment(fake, draws, Purpose.AUGMENTED_GENERATOR_FAKES)
                        draws.seed_layers(Purpose.FROZEN_CRITIC_LAYERS)
                        logits = self.discriminator(fake, *labels).to(self._dtype)
                        loss = self.objective.generator_loss(logits)
                    torch.autograd.backward(loss * self.groups.loss_weight)
                self._record({"loss/generator": loss}, 1 / self.groups.total)
        self._generator_statistics.finish()

    def simultaneous_gradients(self, batch: RealBatch, update: int) -> None:
        """Fills both networks' gradients from one forward of each and advances all running statistics.

        The discriminator's backward stops at the fakes; the generator's passes through the same activations
        without reaching the discriminator's weights.
        """
        self._begin(self._statistics, self.optimizers.discriminator, self.optimizers.generator)
        weights = list(self.discriminator.parameters())
        for part, group in zip(batch, self.groups.local, strict=True):
            draws, last = self._draws(update, group), group == self.groups.local[-1]
            with _synchronised(self.parallel_update, last):
                with self._statistics.group(last, self.groups.total, self.distributed), self._autocast():
                    real, latents = self._real(part.images, draws), self._latents(draws, Purpose.CRITIC_LATENTS)
                    loss, generator_loss, fake, terms = self.parallel_update(real, latents, draws, *self._labels(part))
                with span("critic"):
                    torch.autograd.backward(loss * self.groups.loss_weight, inputs=weights, retain_graph=True)
                with span("generator"):
                    (towards_fakes,) = torch.autograd.grad(generator_loss * self.groups.loss_weight, fake)
                    torch.autograd.backward(fake, towards_fakes)
            self._record(terms, 1 / self.groups.total)
        self._statistics.finish()

    def warm_up(self) -> None:
        """Two throw-away backwards, after which the networks and their statistics are as before.

        Data parallelism arranges its buckets after the first backward and so sums in another order from the
        second one on. Arranged here, a resumed run adds in the same order as one that was never stopped.
        """
        if self.distributed.size == 1:
            return
        size, channels = self.config.image_size, self.config.channels
        blank = torch.zeros((self._group_size, channels, size, size), dtype=torch.uint8)
        batch = [Group(blank, torch.zeros(self._group_size, dtype=torch.int64)) for _ in self.groups.local]
        kept = [[b.clone() for b in network.buffers()] for network in (self.generator, self.discriminator)]
        for _ in range(2):
            if self.simultaneous:
                self.simultaneous_gradients(batch, 0)
            else:
                self.critic_gradients(batch, 0)
                self.generator_gradients(batch, 0)
        for network, buffers in zip((self.generator, self.discriminator), kept, strict=True):
            for buffer, value in zip(network.buffers(), buffers, strict=True):
                buffer.copy_(value)
        self.optimizers.zero_grad()

    def _begin(self, statistics: RunningStatistics, *optimizers: torch.optim.Optimizer) -> None:
        self._terms: Terms = {}
        self._term_groups: dict[str, int] = {}
        for optimizer in optimizers:
            optimizer.zero_grad()
        statistics.begin()

    def _move_discriminator(self) -> None:
        self.optimizers.update_discriminator()
        bound = self.objective.clip_value
        if bound is not None:
            with torch.no_grad():
                for parameter in self.discriminator.parameters():
                    parameter.clamp_(-bound, bound)

    def _draws(self, update: int, group: int) -> StepRng:
        return StepRng(self.config.seed, update, group, self.distributed.device, self._dtype)

    def _real(self, images: Tensor, draws: StepRng) -> Tensor:
        """uint8 to [-1, 1] on the device, dequantised and half of them flipped where the configuration says so."""
        device = self.distributed.device
        real = images.to(device, non_blocking=True).to(self._dtype, memory_format=self._memory_format)
        if self.config.data.dequantize:
            real = (real + draws.uniform(Purpose.DEQUANTIZATION, *real.shape)) / 128 - 1
        else:
            real = real / 127.5 - 1
        if self.config.data.flip:
            chosen = draws.uniform(Purpose.FLIPS, len(real), 1, 1, 1) < 0.5
            real = torch.where(chosen, real.flip(3), real)
        return real

    def _labels(self, part: Group) -> Labels:
        """What the networks are told of a group's images."""
        return () if self.config.num_classes is None else (part.labels.to(self.distributed.device, non_blocking=True),)

    def _latents(self, draws: StepRng, purpose: Purpose, multiple: int = 1) -> Tensor:
        return draws.normal(purpose, multiple * self._group_size, self.config.latent_dim)

    def _fakes(
        self, generator: nn.Module, draws: StepRng, purpose: Purpose, labels: Sequence[Tensor], multiple: int = 1
    ) -> Tensor:
        draws.seed_layers(purpose)
        fakes: Tensor = generator(self._latents(draws, purpose, multiple), *labels)
        return fakes

    def _autocast(self) -> AbstractContextManager[None]:
        enabled = self.config.training.precision == "bfloat16"
        return torch.autocast(self.distributed.device.type, torch.bfloat16, enabled=enabled)

    def _record_gradient(self, name: str, network: nn.Module) -> None:
        """The norm of a network's whole mean gradient, before any bound on it: the same number on every worker."""
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients).to(self.distributed.device, self._dtype)
        self._record({f"gradients/{name}": norm}, 1 / self.distributed.size, len(self.groups.local))

    def _record(self, terms: Terms, share: float, groups: int = 1) -> None:
        """Adds shares of means: a group's of that over all groups, a worker's of what all have; workers sum them."""
        for name, value in terms.items():
            value = value.detach() * share
            self._terms[name] = self._terms[name] + value if name in self._terms else value
            self._term_groups[name] = self._term_groups.get(name, 0) + groups


def _synchronised(module: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Around the forward and backward of a group: gradients meet at a worker's last one."""
    if last or not isinstance(module, DistributedDataParallel):
        return nullcontext()
    context: AbstractContextManager[None] = module.no_sync()
    return context


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in network.parameters():
            parameter.requires_grad_(True)
