"""Train a GAN on rendered bricks and measure it: `python examples/train.py --data DATA`.

`distgan data render bricks --out DATA --samples 16384 --size 32` makes the data; a folder or bucket of your own that
`distgan data pack` wrote works alike.
"""

from __future__ import annotations

import argparse

import distgan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder or URL of the data set")
    parser.add_argument("--storage", default="runs", help="folder or URL that runs are kept under")
    parser.add_argument("--workers", type=int, default=1, help="DDP workers; several run on Ray")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="configuration keys, as training.kimg=60")
    given = parser.parse_args()

    config = distgan.load_config("quickstart", given.overrides, data={"url": given.data})
    run = distgan.train(config, name="first", storage=given.storage, workers=given.workers)
    print(f"{run.url}: {run.summary.reason} after {run.summary.kimg:g} kimg")

    for name, value in distgan.evaluate(run.url, metrics=["fd_lite0", "pr"]).metrics.items():
        print(f"{name}: {value:.4g}")


if __name__ == "__main__":
    main()
