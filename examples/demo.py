"""The main job on one machine: an S3 server, bricks in a bucket, a GAN trained on them by workers under Ray Train.

It runs the same commands as you would, and prints them. After Ctrl-C the next demo resumes where this one stopped;
a finished demo starts anew.
"""

from __future__ import annotations

import argparse
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from PIL import Image

from distgan.errors import UserError
from distgan.storage.s3_server import server
from distgan.storage.storage import Storage

DATA, RUNS, NAME = "s3://bricks/32", "s3://runs", "demo"
# Everything together is meant to take less than eight minutes on two slow cores as well: training ends when its
# share is over. Ray needs most of the reserve, to start and to end.
WHOLE_S, RESERVE_S, LEAST_S = 460, 60, 120


class StoppedError(Exception):
    """A command ended by a signal or a mistake; carries its exit code."""


def main() -> int:
    """Runs the demo; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo-output"), help="folder for all that the demo makes")
    parser.add_argument("--samples", type=int, default=16384, help="bricks to render")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for distgan train")
    arguments = parser.parse_args()
    out: Path = arguments.out
    if (out / "summary.json").exists():
        shutil.rmtree(out)
    begun = time.monotonic()
    store = out / "store"
    try:
        distgan("store", "up", "--dir", str(store), "--bucket", "bricks", "--bucket", "runs")
        handle = server.status(store)
        assert handle is not None
        os.environ.update(handle.environment())
        if not Storage.open(DATA).exists("index.json"):
            distgan("data", "render", "bricks", "--out", DATA, "--samples", str(arguments.samples), "--size", "32")
        left_s = max(LEAST_S, WHOLE_S - RESERVE_S - (time.monotonic() - begun))
        limit = f"training.max_minutes={left_s / 60:.2f}"
        train = ["train", "dcgan-small", f"data.url={DATA}", limit, *arguments.overrides]
        distgan(*train, "--workers", str(arguments.workers), "--storage", RUNS, "--name", NAME)
        distgan("sample", f"{RUNS}/{NAME}", "--count", "64", "--seed", "0", "--out", str(out / "samples.png"))
        run = Storage.open(RUNS).child(NAME)
        over_training(run).save(out / "training.png")
        for file in ("curves.png", "metrics.jsonl", "summary.json"):
            run.download(file, out / file)
    except StoppedError as stopped:
        return int(stopped.args[0])
    finally:
        distgan("store", "down", "--dir", str(store))
    files = "samples.png, training.png, curves.png, metrics.jsonl, summary.json"
    print(f"{out}: {files}; {time.monotonic() - begun:.0f} s in all")
    return 0


def over_training(run: Storage) -> Image.Image:
    """The first row of each of a run's sample grids, which have the same latents, one below the other."""
    names = sorted(name for name in run.child("samples").list() if name.endswith(".png"))
    grids = [Image.open(io.BytesIO(run.read_bytes(f"samples/{name}"))) for name in names]
    row = (grids[0].width - 2) // 8  # an image and the two white pixels before it, eight times
    rows = [grid.crop((0, 0, grid.width, row)) for grid in grids]
    picture = Image.new("RGB", (rows[0].width, row * len(rows) + 2), "white")
    for place, image in enumerate(rows):
        picture.paste(image, (0, place * row))
    return picture


def distgan(*arguments: str) -> None:
    """Runs one command of distgan, handing it the signals that come meanwhile. Raises StoppedError where it fails."""
    print(f"$ distgan {shlex.join(arguments)}", flush=True)
    # A group of its own: a Ctrl-C reaches this process alone, which hands it on once.
    child = subprocess.Popen([sys.executable, "-m", "distgan", *arguments], process_group=0)

    def hand_on(number: int, frame: FrameType | None) -> None:
        child.send_signal(number)

    kept = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = child.wait()
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    if code:
        raise StoppedError(code if code > 0 else 128 - code)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"demo: error: {error}")
