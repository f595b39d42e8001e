"""The state of a running search: draws, starts, evaluations and ends of its trials."""

from __future__ import annotations

import threading
import time
from typing import Literal

from distgan.errors import UserError
from distgan.search.record import SearchEnd, SearchRecord, Trial, TrialState, kimg_of
from distgan.search.samplers import Draw, Sampler
from distgan.search.space import Space
from distgan.storage.retry import Retry
from distgan.storage.storage import Storage


class SearchState:
    """A search's record while it runs. Every change is in the storage before it has effects.

    Storage that does not answer is waited for (`storage.retry`). A trial that failed in an earlier session is tried
    again, except in a population, which continued without it. The methods may be called from any thread.
    """

    def __init__(self, record: SearchRecord, space: Space, sampler: Sampler, storage: Storage) -> None:
        self._record, self._space, self._sampler, self._storage = record, space, sampler, storage
        self._lock = threading.Lock()
        self._handed_out: set[int] = set()
        self._waiting_since: dict[int, float] = {}  # of trials that do not train yet
        self._failure: UserError | None = None

    def next_trial(self) -> Trial | Literal["wait", "done"]:
        """A trial to run: one that has not ended in an earlier session, else a new one."""
        with self._lock:
            trials = self._record.trials
            for trial in trials:
                failed = trial.state == "failed" and not self._record.plan.is_population
                if (failed or not trial.ended) and trial.number not in self._handed_out:
                    self._hand_out(trial.number)
                    if failed:  # samplers must not take it for ended meanwhile
                        trial.state, trial.note = "waiting", ""
                    return trial.model_copy(deep=True)
            draw = self._sampler.next(trials)
            if not isinstance(draw, Draw):
                return draw
            trial = Trial(
                number=len(trials),
                draw={name: list(value) if isinstance(value, tuple) else value for name, value in draw.values.items()},
                overrides=self._space.overrides(draw.values),
                seed=self._record.plan.config["seed"] + draw.seed_offset,
                repeats=draw.repeats,
                generation=draw.generation,
                parent=draw.parent,
            )
            trials.append(trial)
            try:
                self._save()
            except UserError:
                trials.pop()
                raise
            self._hand_out(trial.number)
            return trial.model_copy(deep=True)

    def _hand_out(self, number: int) -> None:
        self._handed_out.add(number)
        self._waiting_since[number] = time.monotonic()

    def hand_out_again(self, number: int) -> None:
        """The trial was lost before it began: it is the next one."""
        with self._lock:
            self._handed_out.discard(number)

    @property
    def running(self) -> bool:
        """Whether a trial that was handed out in this session has not ended."""
        with self._lock:
            return any(not self._record.trials[number].ended for number in self._handed_out)

    def trains(self, number: int) -> None:
        """Records how long a trial has taken from its hand-out to its first step."""
        with self._lock:
            since = self._waiting_since.pop(number, None)
            if since is not None:
                self._record.trials[number].start_seconds += time.monotonic() - since

    def started(self, number: int) -> None:
        """Records that a trial has workers."""
        with self._lock:
            self._record.trials[number].state = "begun"
            self._save()

    def evaluated(self, number: int, kimg: float, value: float) -> None:
        """Records an evaluation of a trial."""
        with self._lock:
            self._record.trials[number].add_evaluation(kimg, value)
            self._save()

    def ended(self, number: int, state: TrialState, note: str = "", seconds: float = 0.0) -> None:
        """Records that a trial has ended; with the state `begun` another session resumes it."""
        with self._lock:
            trial = self._record.trials[number]
            trial.state, trial.note = state, note
            trial.seconds += seconds
            self._save()

    def close(self, end: SearchEnd) -> SearchRecord:
        """Records the end of this session; returns the record."""
        with self._lock:
            self._record.ended = end
            self._save()
            return self._record.model_copy(deep=True)

    def raise_failure(self) -> None:
        """Raises the first error of the record's storage, if any: Tune may have wrapped it since."""
        if self._failure is not None:
            raise self._failure

    def _save(self) -> None:
        try:
            Retry()(lambda: self._record.save(self._storage))
        except UserError as error:
            self._failure = self._failure or error
            raise

    def snapshot(self) -> SearchRecord:
        """A copy of the record."""
        with self._lock:
            return self._record.model_copy(deep=True)

    def kimg_of(self, number: int) -> float:
        """A trial's progress, in thousands of real images."""
        with self._lock:
            return self._record.trials[number].kimg

    @property
    def kimg(self) -> float:
        """The progress of all trials together, in thousands of real images."""
        with self._lock:
            return kimg_of(self._record.trials)
