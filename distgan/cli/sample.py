"""`distgan sample`."""

from __future__ import annotations

import sys

from distgan.cli.data_output import progress_bar
from distgan.text import printable


def run_sampling(
    source: str, count: int, seed: int, out: str, label: str | None, which: str | None, *, trust_code: bool
) -> None:
    """Writes the samples, with a bar on a terminal, and prints what was written."""
    from distgan.inference.sample_files import write_samples

    with progress_bar() as progress:
        task = progress.add_task("sampling", total=count)
        checkpoint, number = write_samples(
            source, out, count=count, seed=seed, label=label, which=which, trust_code=trust_code,
            on_progress=lambda done: progress.update(task, completed=done),
            log=lambda text: print(f"distgan: warning: {printable(text)}", file=sys.stderr),
        )  # fmt: skip
    of_label = "" if label is None else f", label {label}"
    print(printable(f"{out}: {number} samples of {checkpoint}, seed {seed}{of_label}"))
