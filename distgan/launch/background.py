"""A call in a thread, whose outcome can be asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Background:
    """Begins the call at once."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def ended(self, within_s: float) -> bool:
        """Whether it has ended; waits so long for it."""
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def raise_error(self) -> None:
        """What the call raised, if anything."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:  # noqa: BLE001 - raised in the main thread
            self._error = error
