"""Which fractions of processors and GPUs Ray gives to a worker."""

from __future__ import annotations

import math

from distgan.errors import UserError


def check_worker(cpus: float | None, gpus: float | None) -> None:
    """Raises UserError for processors or GPUs of a worker, where they are given, that no cluster has."""
    for option, kind, amount in (("cpus", "processors", cpus), ("gpus", "GPUs", gpus)):
        if amount is None or (math.isfinite(amount) and (amount <= 1 or float(amount).is_integer())):
            continue
        mend = f"give a number of {kind}"
        if math.isfinite(amount):
            mend = f"Ray gives whole {kind} above 1; ask for {math.floor(amount)} or {math.ceil(amount)}"
        raise UserError(f"--{option}-per-worker {amount:g}: {mend}")
