"""Prints an error once, although every process of torchrun raises it."""

from __future__ import annotations

import hashlib
import os
import sys
from datetime import timedelta

from distgan.text import printable, without_credentials

_ANSWER_S = 5.0


def print_once(message: str) -> None:
    """Prints an error as one line on standard error, unless another process of torchrun has printed it."""
    message = printable(without_credentials(message))
    if _is_first(message):
        print(f"distgan: error: {message}", file=sys.stderr, flush=True)


def _is_first(message: str) -> bool:
    """Whether no other process has raised this error before; true where that is unknown.

    The processes count in the store of torchrun's agent, which outlives them.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    import torch.distributed as dist

    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    digest = hashlib.sha256(message.encode(errors="backslashreplace")).hexdigest()
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        answer_within = timedelta(seconds=_ANSWER_S)
        store = dist.TCPStore(address, port, timeout=answer_within, wait_for_workers=False)  # type: ignore[attr-defined]
        return store.add(f"distgan/mistake/{attempt}/{digest}", 1) == 1
    except (KeyError, ValueError, OverflowError, RuntimeError):
        return True
