"""Who handles SIGTERM."""

from __future__ import annotations

import os
import signal
import sys

from distgan.launch.signals import preserve_sigterm, stop_on_signals


def test_another_handler_of_sigterm_does_not_stay() -> None:
    """As Ray's, which ends the process, when a run has connected to it."""
    with stop_on_signals() as wish:
        with preserve_sigterm():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(signal.SIGTERM))
        os.kill(os.getpid(), signal.SIGTERM)
        assert wish.requested
    assert wish.exit_code == 143
