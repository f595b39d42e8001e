"""One training step: `critic_steps` discriminator updates and a generator update, each the mean over all groups.

A global batch is cut into `groups` equal parts. Everything that the mathematics depends on (batch statistics, dropout,
latents, noise) belongs to a group, so a step is the same for every number of workers. A worker runs its groups in
turn. Gradients are summed over workers by data parallelism during the last group's backward, or, where the updates are
CUDA graphs, between two graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from distgan.config.schedule import Variable
from distgan.config.schema import Config
from distgan.data.stream import Group
from distgan.distributed import Distributed
from distgan.losses.context import Context
from distgan.losses.objective import Objective
from distgan.training.acceleration import capture_updates, compile_updates, unchanged
from distgan.training.augmentation import Augment
from distgan.training.batch_statistics import RunningStatistics, has_batch_statistics
from distgan.training.inputs import Groups, Inputs, RealBatch
from distgan.training.networks import Networks
from distgan.training.optimizers import Optimizers
from distgan.training.prepared import Body, GraphBackend, Part, PreparedUpdate
from distgan.training.profiling import span
from distgan.training.sums import SumsBetweenGraphs
from distgan.training.updates import DiscriminatorUpdate, SimultaneousUpdate, TermSums

# "discriminator", "generator" or "both".
Kind = str


class Step:
    """Runs updates on a pair of networks. Its state is that of the networks and optimizers that it is given.

    Attributes:
        batches_per_step: real batches that a step reads.
        graphs: what captures graphs, once `warm_up` has chosen them.
        adapted_probability: of augmentations, for the run to set, where it adapts it.
    """

    def __init__(
        self,
        config: Config,
        networks: Networks,
        objective: Objective,
        optimizers: Optimizers,
        distributed: Distributed,
        graph_backend: GraphBackend | None = None,
    ) -> None:
        self.config, self.distributed = config, distributed
        self.groups = Groups(config.scale.groups, distributed)
        self.inputs = Inputs(config, distributed, self.groups)
        self.generator, self.discriminator = networks.generator, networks.discriminator
        self.objective, self.optimizers = objective, optimizers
        self.simultaneous = config.objective.updates == "simultaneous"
        fresh = config.objective.critic_batches == "fresh"
        self._generator_reads = objective.needs_real_logits and not self.simultaneous
        self.batches_per_step = (config.objective.critic_steps if fresh else 1) + self._generator_reads
        training = config.training
        self.adapted_probability = None if training.augment_target is None else Variable("augment probability")
        self.augment = Augment(training.augment, self.adapted_probability or training.augment_probability)
        joint_forward = not self.simultaneous and not has_batch_statistics(self.discriminator)
        self._discriminator_update = DiscriminatorUpdate(self.discriminator, objective, self.augment, joint_forward)
        self._graph_backend = graph_backend
        self.graphs: GraphBackend | None = None
        self._prepared: dict[Kind, PreparedUpdate] = {}
        self._bodies: dict[Kind, Body]
        self._optimizer_steps: dict[Kind, Callable[[], object]]
        self._sums: Distributed | SumsBetweenGraphs = distributed
        self._wrap(distributed.ddp)
        if self.simultaneous:
            self._bodies, self._optimizer_steps = {"both": self._both}, {"both": self._step_both}
        else:
            self._bodies = {"discriminator": self._discriminator, "generator": self._generator}
            self._optimizer_steps = {
                "discriminator": self._step_discriminator,
                "generator": optimizers.update_generator,
            }
        self._statistics = RunningStatistics(self.generator, self.discriminator)
        self._generator_statistics = RunningStatistics(self.generator)
        self._discriminator_statistics = RunningStatistics(self.discriminator)

    def run(self, next_batch: Callable[[], RealBatch], discriminator_updates: int, generator_updates: int) -> TermSums:
        """Runs one step. The counts are the updates of each network before it.

        Calls `next_batch` `batches_per_step` times. An objective that needs real logits has a batch of its own for the
        generator's update, the last of the step.

        Returns the terms of the generator's update and of the last discriminator update that had each.
        """
        objective, batch_size = self.config.objective, self.config.training.batch_size
        self.optimizers.follow_schedules(discriminator_updates * batch_size / 1000)
        if self.simultaneous:
            return self.both_updates(next_batch(), discriminator_updates)
        batch: RealBatch = ()
        terms = TermSums()
        for offset in range(objective.critic_steps):
            if offset == 0 or objective.critic_batches == "fresh":
                batch = next_batch()
            terms.replace(self.discriminator_update(batch, discriminator_updates + offset))
        if self._generator_reads:
            batch = next_batch()
        images = (discriminator_updates + objective.critic_steps) * batch_size
        terms.replace(self.generator_update(batch, generator_updates, images))
        return terms

    def discriminator_update(self, batch: RealBatch, update: int) -> TermSums:
        """One update of the discriminator, with generated images that carry no gradient."""
        return self._update("discriminator", batch, update, update * self.config.training.batch_size)

    def generator_update(self, batch: RealBatch, update: int, images: int) -> TermSums:
        """One update of the generator through the frozen discriminator, which has been trained on `images` real ones.

        Of the batch only the labels are used, unless the objective needs logits of its images.
        """
        return self._update("generator", batch, update, images)

    def both_updates(self, batch: RealBatch, update: int) -> TermSums:
        """Updates both networks with gradients from one forward, taken before either moves."""
        return self._update("both", batch, update, update * self.config.training.batch_size)

    def gradients(self, kind: Kind, batch: RealBatch, update: int, images: int) -> TermSums:
        """Fills the gradients of an update and advances running statistics; no weight moves.

        A discriminator update advances the statistics of both networks, one of the generator its own only.
        """
        contexts = self.inputs.contexts(update, images)
        if kind in self._prepared:
            return self._prepared[kind].run(batch, contexts)
        lasts = [group == self.groups.local[-1] for group in self.groups.local]
        *_, sums = self._bodies[kind](map(Part, batch, contexts, lasts))
        return sums

    def _update(self, kind: Kind, batch: RealBatch, update: int, images: int) -> TermSums:
        with span(kind):
            terms = self.gradients(kind, batch, update, images)
        with span("optimizers"):
            self._optimizer_steps[kind]()
        return terms

    def _discriminator(self, parts: Iterator[Part]) -> Iterator[TermSums]:
        sums = self._begin(self._statistics, "discriminator")
        for part, context, last in parts:
            labels = self.inputs.labels(part)
            with _synchronized(self.parallel_discriminator_update, last):
                with self._statistics.group(last, self.groups.total, self._sums), self.autocast():
                    with torch.no_grad():
                        fake = self._fakes(self.generator, context, "discriminator latents", labels)
                    real = self.inputs.real(part.images, context)
                    context.seed_layers("discriminator layers")
                    loss, _, _, terms = self.parallel_discriminator_update(real, fake, context, *labels)
                torch.autograd.backward(loss * self.groups.loss_weight)
            sums.add(terms, 1 / self.groups.total)
            if last:
                self._hold_gradients("discriminator")
            yield sums
        yield self._finish(self._statistics, sums, "discriminator")

    def _generator(self, parts: Iterator[Part]) -> Iterator[TermSums]:
        sums = self._begin(self._generator_statistics, "generator")
        multiple = self.config.objective.generator_batch_multiple
        for part, context, last in parts:
            labels = tuple(label.repeat(multiple) for label in self.inputs.labels(part))
            with (
                _frozen(self.discriminator),
                self._discriminator_statistics.held(),
                _synchronized(self.parallel_generator, last),
            ):
                with self._generator_statistics.group(last, self.groups.total, self._sums), self.autocast():
                    real_logits = self._real_logits(part, context, multiple)
                    fake = self._fakes(self.parallel_generator, context, "generator latents", labels, multiple)
                    fake = self.augment(fake, context, "augmented generator fakes")
                    context.seed_layers("frozen discriminator layers")
                    fake_logits = self.discriminator(fake, *labels).to(self.inputs.dtype)
                    loss = self.objective.generator_loss(fake_logits, real_logits, context)
                torch.autograd.backward(loss * self.groups.loss_weight)
            sums.add({"loss/generator": loss}, 1 / self.groups.total)
            if last:
                self._hold_gradients("generator")
            yield sums
        yield self._finish(self._generator_statistics, sums, "generator")

    def _both(self, parts: Iterator[Part]) -> Iterator[TermSums]:
        """The discriminator's backward stops at the generated images.

        The generator's passes through the same activations without reaching the discriminator's weights.
        """
        sums = self._begin(self._statistics, "discriminator", "generator")
        weights = list(self.discriminator.parameters())
        for part, context, last in parts:
            with _synchronized(self.parallel_update, last):
                with self._statistics.group(last, self.groups.total, self._sums), self.autocast():
                    real, latents = (
                        self.inputs.real(part.images, context),
                        self.inputs.latents(context, "discriminator latents"),
                    )
                    loss, generator_loss, fake, terms = self.parallel_update(
                        real, latents, context, *self.inputs.labels(part)
                    )
                with span("discriminator"):
                    torch.autograd.backward(loss * self.groups.loss_weight, inputs=weights, retain_graph=True)
                with span("generator"):
                    (towards_fakes,) = torch.autograd.grad(generator_loss * self.groups.loss_weight, fake)
                    torch.autograd.backward(fake, towards_fakes)
            sums.add(terms, 1 / self.groups.total)
            if last:
                self._hold_gradients("discriminator", "generator")
            yield sums
        yield self._finish(self._statistics, sums, "discriminator", "generator")

    def warm_up(self) -> list[str]:
        """Prepares compiled updates and CUDA graphs where the configuration asks for them.

        Runs updates on blank images and leaves the networks, their statistics and the optimizers as before. Returns
        lines that say what was chosen where the configuration leaves it open. Raises UserError for a setting that
        the networks or the device cannot have.

        Data parallelism arranges its buckets after the first backward, so it sums in another order from the second one
        on. Arranged here, a resumed run sums in the same order as one that was never stopped.
        """
        batch = self.inputs.blank()
        with unchanged((self.generator, self.discriminator), self.optimizers):
            lines = self._prepare(batch)
            for kind in self._bodies if self.distributed.size > 1 else ():
                self.gradients(kind, batch, 0, 0)
                self.gradients(kind, batch, 0, 0)
        return lines

    def _prepare(self, blank: RealBatch) -> list[str]:
        """Compiles and captures what the configuration asks for. Returns what it chose where that was left open."""
        config, distributed = self.config, self.distributed
        if config.training.compile == config.training.cuda_graphs == "off":
            return []
        updates = {
            kind: PreparedUpdate(
                body,
                lambda update: self.inputs.contexts(update, 0),
                blank,
                reads_images=kind != "generator" or self._generator_reads,
            )
            for kind, body in self._bodies.items()
        }
        compilable = (self.generator, self.discriminator, self._discriminator_update)
        compiled = compile_updates(config, distributed, compilable, updates)
        captured = capture_updates(
            config,
            distributed,
            updates,
            self.optimizers,
            self._optimizer_steps,
            self._sum_between_graphs,
            self._graph_backend,
        )
        self.graphs = captured.graphs
        if compiled.chosen or captured.chosen:
            self._prepared = updates
        return [choice.line for choice in (compiled, captured) if choice.line is not None]

    def _wrap(self, parallel: Callable[[nn.Module], nn.Module]) -> None:
        """Makes the modules whose backward sums gradients over workers."""
        if self.simultaneous:
            self.parallel_update = parallel(SimultaneousUpdate(self.generator, self._discriminator_update))
        else:
            self.parallel_generator = parallel(self.generator)
            self.parallel_discriminator_update = parallel(self._discriminator_update)

    def _sum_between_graphs(self, chosen: bool) -> SumsBetweenGraphs | None:
        """Several workers sum between graphs from here on, or, if not `chosen`, during the backward."""
        if self.distributed.size == 1:
            return None
        sums = SumsBetweenGraphs(self.distributed) if chosen else None
        self._sums = sums or self.distributed
        self._wrap(self.distributed.ddp if sums is None else lambda module: module)
        return sums

    def _begin(self, statistics: RunningStatistics, *networks: str) -> TermSums:
        for name in networks:
            self.optimizers.zero_grad(name)
        statistics.begin()
        return TermSums()

    def _hold_gradients(self, *networks: str) -> None:
        """Asks for the sum of these networks' gradients over workers, where no backward makes it."""
        if isinstance(self._sums, SumsBetweenGraphs):
            for name in networks:
                self._sums.all_reduce_async(self.optimizers.gradients[name])

    def _finish(self, statistics: RunningStatistics, terms: TermSums, *networks: str) -> TermSums:
        """Makes means of what the workers have summed."""
        statistics.finish()
        for name in networks:
            if isinstance(self._sums, SumsBetweenGraphs):
                self.optimizers.gradients[name].div_(self.distributed.size)
            self._add_gradient_norm(terms, name, getattr(self, name))
        return terms

    def _step_discriminator(self) -> None:
        self.optimizers.update_discriminator()
        bound = self.objective.clip_value
        if bound is not None:
            with torch.no_grad():
                for parameter in self.discriminator.parameters():
                    parameter.clamp_(-bound, bound)

    def _step_both(self) -> None:
        self._step_discriminator()
        self.optimizers.update_generator()

    @torch.no_grad()
    def _real_logits(self, part: Group, context: Context, multiple: int) -> Tensor:
        """Logits of a group's images in a generator update, repeated as its labels are; empty where not needed."""
        if not self._generator_reads:
            return torch.empty(0, device=self.distributed.device, dtype=self.inputs.dtype)
        real = self.inputs.real(part.images, context, "generator ")
        real = self.augment(real, context, "augmented generator reals")
        context.seed_layers("frozen discriminator layers, reals")
        logits: Tensor = self.discriminator(real, *self.inputs.labels(part)).to(self.inputs.dtype)
        return torch.cat([logits] * multiple)

    def _fakes(
        self, generator: nn.Module, context: Context, stream: str, labels: Sequence[Tensor], multiple: int = 1
    ) -> Tensor:
        context.seed_layers(stream)
        fakes: Tensor = generator(self.inputs.latents(context, stream, multiple), *labels)
        return fakes

    def autocast(self) -> AbstractContextManager[None]:
        """Around forwards: the configured precision."""
        enabled = self.config.training.precision == "bfloat16"
        return torch.autocast(self.distributed.device.type, torch.bfloat16, enabled=enabled)

    def _add_gradient_norm(self, terms: TermSums, name: str, network: nn.Module) -> None:
        """Adds the norm of a network's whole mean gradient, before any bound on it. Every worker has the same."""
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients).to(self.distributed.device, self.inputs.dtype)
        terms.add({f"gradients/{name}": norm}, 1 / self.distributed.size, len(self.groups.local))


def _synchronized(module: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Around the forward and backward of a group: workers sum their gradients at the last one."""
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
