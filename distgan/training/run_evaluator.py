"""Evaluates a run's averaged generator, on the workers or asynchronously, and records the results."""

from __future__ import annotations

import copy
import time
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from distgan.config.schema import Config
from distgan.distributed import Distributed
from distgan.evaluation.evaluator import Evaluator, Scores
from distgan.evaluation.metrics.registry import higher_is_better
from distgan.training.checkpoints import CheckpointStore, checkpoint_name, fitting
from distgan.training.early_stopping import Judgement, judge, ranked
from distgan.training.events import EvaluationResult
from distgan.training.fakes import GeneratedImages
from distgan.training.progress import Pending
from distgan.training.state import TrainingState


class AsyncEvaluator(Protocol):
    """Whoever measures checkpoints aside. Both methods are called on every rank together."""

    def begin(self, checkpoint: str) -> None:
        """Starts measuring a whole checkpoint of the run, by its name; returns at once."""
        ...

    def result(self, checkpoint: str) -> Scores:
        """What was begun has found, the same on every rank; waits for it. Raises UserError where it failed."""
        ...


class RunEvaluator:
    """A run's evaluations. Its methods are called on every rank together, and give the same on each.

    Aside, an evaluation begins when the checkpoint of its step is whole, which `progress.pending` pins; its result is
    applied when the next one is due, whenever it came. So what follows from it happens at the same step in every run.

    Attributes:
        is_aside: whether somebody else measures checkpoints.
    """

    def __init__(
        self,
        config: Config,
        state: TrainingState,
        evaluator: Evaluator,
        real_labels: NDArray[np.int64],
        checkpoints: CheckpointStore,
        distributed: Distributed,
        validation: AsyncEvaluator | None,
    ) -> None:
        self._config, self._state, self._evaluator, self._real_labels = config, state, evaluator, real_labels
        self._checkpoints, self._world, self._validation = checkpoints, distributed, validation
        self._begun: str | None = None
        self.is_async = validation is not None
        self.metric = evaluator.name(config.evaluation.monitor)

    @property
    def judgement(self) -> Judgement:
        """What the evaluations up to now say."""
        return judge(self._state.progress.evaluations, self._config.evaluation)

    def best_checkpoint(self) -> str | None:
        """The best that is kept; asked on rank 0, when none is being written."""
        best_first = ranked(self._state.progress.evaluations, self._config.evaluation.monitor)
        return self._checkpoints.first_kept(checkpoint_name(one.step) for one in best_first)

    def here(self) -> EvaluationResult:
        """Measures the generator of this moment."""
        begin = time.perf_counter()
        scores = self._evaluator.evaluate(self._fakes(self._state.ema.network))
        return self._taken_down(scores, time.perf_counter() - begin)

    def start_async(self) -> None:
        """Has the generator of this moment measured, once its checkpoint is whole."""
        progress = self._state.progress
        progress.pending = Pending(progress.step, progress.images)

    @property
    def can_begin(self) -> bool:
        """Whether one waits whose checkpoint is written; asked on rank 0, which alone writes."""
        name = self._pending_name
        return self.is_async and name is not None and self._begun != name and self._checkpoints.is_idle

    def begin(self) -> None:
        """Starts what can begin."""
        assert self._validation is not None
        self._begun = self._pending_name
        assert self._begun is not None
        self._validation.begin(self._begun)

    def pending_result(self) -> EvaluationResult | None:
        """Waits for the evaluation that is under way, where there is one whose checkpoint is not gone."""
        name = self._pending_name
        if name is None:
            return None
        scores = self._result(name)
        if scores is None:
            self._state.progress.pending = None
            return None
        return self._taken_down(scores, sum(scores.seconds.values()))

    @property
    def _pending_name(self) -> str | None:
        pending = self._state.progress.pending
        return None if pending is None else checkpoint_name(pending.step)

    def _result(self, name: str) -> Scores | None:
        """None where the checkpoint is gone. What another session left is measured anew."""
        if self._begun != name:
            if self._world.rank == 0:
                self._checkpoints.wait()
            if not self._world.from_rank_0(lambda: self._checkpoints.load(name) is not None):
                return None
            if self._validation is None:
                return self._of_checkpoint(name)
            self.begin()
        assert self._validation is not None
        return self._validation.result(name)

    def _of_checkpoint(self, name: str) -> Scores | None:
        checkpoint = self._checkpoints.load(name)
        assert checkpoint is not None, "rank 0 has just read it"
        generator = copy.deepcopy(self._state.ema.network)
        with fitting(checkpoint.url):
            generator.load_state_dict(checkpoint.tensors["ema"])
        return self._evaluator.evaluate(self._fakes(generator))

    def _fakes(self, generator: nn.Module) -> GeneratedImages:
        return GeneratedImages(self._config, self._real_labels, self._world.device, generator)

    def _taken_down(self, scores: Scores, seconds: float) -> EvaluationResult:
        progress, evaluation = self._state.progress, self._config.evaluation
        progress.evaluated(scores.distance, scores.more)
        measured, judgement = progress.evaluations[-1], self.judgement
        values = {"frechet": scores.distance} | scores.more
        value, best = values.pop(evaluation.monitor), judgement.best
        return EvaluationResult(
            step=measured.step,
            kimg=measured.images / 1000,
            metric=self.metric,
            value=value,
            best=best.value if best else None,
            best_kimg=best.kimg if best else None,
            improved=best is not None and judgement.without_improvement == 0,
            without_improvement=judgement.without_improvement,
            patience=evaluation.patience,
            seconds=seconds,
            reported_step=progress.step,
            more={self._evaluator.name(name): value for name, value in values.items()},
            seconds_of=scores.seconds,
            higher_is_better=higher_is_better(evaluation.monitor),
            diversity=scores.diversity,
            untrained=judgement.untrained,
            given=progress.given,
        )
