"""A job's output while it runs, also over a connection that breaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import aiohttp

from distgan.errors import UserError
from distgan.launch.jobs.client import Jobs, JobState

# Without output for so long the connection may be dead: it is opened again, at growing intervals.
_SILENCE_S = 60.0

_LONGEST_SILENCE_S = 600.0

_RETRY_S = 2.0

_PATIENCE_S = 300.0  # with a cluster that does not answer

_SETTLING_S = 0.5


class Follower:
    """Writes a job's output from its start, each character once, over any number of connections."""

    def __init__(self, jobs: Jobs, job: str, write: Callable[[str], object]) -> None:
        self._jobs, self._job, self._write = jobs, job, write
        self._written = 0

    def follow(self) -> JobState:
        """Writes until the job has ended. May be interrupted and called again.

        Raises UserError where the cluster does not answer for minutes.
        """
        silence, unheard_since = _SILENCE_S, None
        while True:
            before, pause = self._written, _SETTLING_S
            try:
                try:
                    asyncio.run(self._tail(silence))
                except (aiohttp.ClientError, OSError, RuntimeError):
                    # Behind some proxies a websocket never opens. A plain request returns the whole output, too.
                    self._take(self._jobs.log(self._job), 0)
                    pause = _RETRY_S
                state = self._jobs.state(self._job)
                unheard_since = None
                if state.has_ended:
                    self._write_rest()
                    return state
            except UserError:
                now = time.monotonic()
                unheard_since = unheard_since or now
                if now - unheard_since > _PATIENCE_S:
                    raise
                time.sleep(_RETRY_S)
                continue
            silence = _SILENCE_S if self._written > before else min(2 * silence, _LONGEST_SILENCE_S)
            time.sleep(pause)

    async def _tail(self, silence: float) -> None:
        """Writes the output of one connection until it closes or is silent for `silence` seconds."""
        seen = 0
        lines: AsyncIterator[str] = self._jobs.client.tail_job_logs(self._job)
        try:
            while True:
                async with asyncio.timeout(silence):
                    chunk = await anext(lines, None)
                if chunk is None:
                    return
                self._take(chunk, seen)
                seen += len(chunk)
        except TimeoutError:
            return

    def _write_rest(self) -> None:
        """Writes the output after the last connection."""
        with suppress(UserError):
            self._take(self._jobs.log(self._job), 0)

    def _take(self, chunk: str, begins_at: int) -> None:
        new = chunk[max(0, self._written - begins_at) :]
        if new:
            self._write(new)
            self._written += len(new)
