"""Evaluates a run's averaged generator, on its workers or asynchronously, and records the scores."""

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
from distgan.training.checkpoints import CheckpointStore, checkpoint_name, matching_tensors
from distgan.training.early_stopping import EarlyStopping, ranked
from distgan.training.events import EvaluationResult
from distgan.training.fakes import GeneratedImages
from distgan.training.progress import Pending
from distgan.training.state import TrainingState


class AsyncEvaluator(Protocol):
    """Evaluates checkpoints while the training runs. Both methods are collective: every rank calls them."""

    def start(self, checkpoint: str) -> None:
        """Starts the evaluation of a complete checkpoint of the run, by its name. Returns at once."""
        ...

    def result(self, checkpoint: str) -> Scores | None:
        """Waits for the scores of a started evaluation, the same on every rank. Raises UserError if it failed.

        None where the checkpoint is gone or damaged, or the evaluation was lost too often.
        """
        ...


class RunEvaluator:
    """A run's evaluations. All methods are collective and return the same on every rank, where not said otherwise.

    An asynchronous evaluation starts when the checkpoint of its step is complete; `progress.pending` keeps that
    checkpoint. Its scores count from the next evaluation on, however early they arrive, so that every run of the same
    configuration does the same at the same step.
    """

    def __init__(
        self,
        config: Config,
        state: TrainingState,
        evaluator: Evaluator,
        real_labels: NDArray[np.int64],
        checkpoints: CheckpointStore,
        distributed: Distributed,
        async_evaluator: AsyncEvaluator | None,
    ) -> None:
        self._config, self._state, self._evaluator, self._real_labels = config, state, evaluator, real_labels
        self._checkpoints, self._distributed, self._async = checkpoints, distributed, async_evaluator
        self._started: str | None = None
        self.is_async = async_evaluator is not None
        self.metric = evaluator.name(config.evaluation.monitor)
        self.real = evaluator.real
        self.num_features = evaluator.num_features

    @property
    def status(self) -> EarlyStopping:
        """The status of early stopping after the evaluations so far."""
        return EarlyStopping.status(self._state.progress.evaluations, self._config.evaluation)

    def best_checkpoint(self) -> str | None:
        """Name of the best checkpoint that still exists. Rank 0 only, while no checkpoint is being written."""
        best_first = ranked(self._state.progress.evaluations, self._config.evaluation.monitor)
        return self._checkpoints.first_existing(checkpoint_name(evaluation.step) for evaluation in best_first)

    def evaluate(self) -> EvaluationResult:
        """Evaluates the current generator on the workers."""
        begin = time.perf_counter()
        scores = self._evaluator.evaluate(self._images(self._state.ema.network))
        return self._record(scores, time.perf_counter() - begin)

    def schedule(self) -> None:
        """Has the current generator evaluated asynchronously, from the checkpoint that is saved next."""
        progress = self._state.progress
        progress.pending = Pending(progress.step, progress.images)

    @property
    def can_start(self) -> bool:
        """Whether the pending evaluation can start because its checkpoint is complete. Rank 0 only."""
        name = self._pending_name
        return self.is_async and name is not None and self._started != name and self._checkpoints.has_written(name)

    def start(self) -> None:
        """Starts the pending evaluation."""
        assert self._async is not None
        self._started = self._pending_name
        assert self._started is not None
        self._async.start(self._started)

    def finish_pending(self) -> EvaluationResult | None:
        """Waits for the pending evaluation and records it. None without one, or if its checkpoint cannot be read."""
        name = self._pending_name
        if name is None:
            return None
        scores = self._pending_scores(name)
        if scores is None:
            self._state.progress.pending = None
            return None
        return self._record(scores, sum(scores.seconds.values()))

    @property
    def _pending_name(self) -> str | None:
        pending = self._state.progress.pending
        return None if pending is None else checkpoint_name(pending.step)

    def _pending_scores(self, name: str) -> Scores | None:
        """None if the checkpoint cannot be read. An evaluation that an earlier session started is started anew."""
        if self._started != name:
            self._distributed.from_rank_0(lambda: self._checkpoints.wait(name))
            if self._async is not None:
                self.start()
        scores = None if self._async is None else self._async.result(name)
        if scores is None and self._distributed.from_rank_0(lambda: self._checkpoints.load(name) is not None):
            return self._evaluate_checkpoint(name)
        return scores

    def _evaluate_checkpoint(self, name: str) -> Scores:
        checkpoint = self._checkpoints.load(name)
        assert checkpoint is not None, "rank 0 has just read it"
        generator = copy.deepcopy(self._state.ema.network)
        with matching_tensors(checkpoint.url):
            generator.load_state_dict(checkpoint.tensors["ema"])
        return self._evaluator.evaluate(self._images(generator))

    def _images(self, generator: nn.Module) -> GeneratedImages:
        return GeneratedImages(self._config, self._real_labels, self._distributed.device, generator)

    def _record(self, scores: Scores, seconds: float) -> EvaluationResult:
        progress, config = self._state.progress, self._config.evaluation
        evaluation = progress.add_scores(scores)
        status, values = self.status, evaluation.values
        value = values.pop(config.monitor)
        return EvaluationResult(
            step=evaluation.step,
            kimg=evaluation.kimg,
            metric=self.metric,
            value=value,
            best=status.best.value(config.monitor) if status.best else None,
            best_kimg=status.best.kimg if status.best else None,
            improved=status.best is not None and status.without_improvement == 0,
            without_improvement=status.without_improvement,
            patience=config.patience,
            seconds=seconds,
            reported_step=progress.step,
            more={self._evaluator.name(name): number for name, number in values.items()},
            seconds_of=scores.seconds,
            higher_is_better=higher_is_better(config.monitor),
            diversity=scores.diversity,
            untrained=status.untrained,
            given=progress.given,
            floor=self.real.floor if config.monitor == "frechet" else None,
        )
