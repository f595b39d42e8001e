"""Search learning rates on rendered bricks, then train with the best: `python examples/tune.py --data DATA`."""

from __future__ import annotations

import argparse

import distgan

SPACE = {
    "optimizer.generator.lr": "loguniform(1e-4, 2e-3)",
    "optimizer.discriminator.lr": "optimizer.generator.lr * choice(0.25, 0.5, 1)",
    "objective.label_noise": "uniform(0, 0.2)",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder or URL of the data set")
    parser.add_argument("--storage", default="runs", help="folder or URL that searches and runs are kept under")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="configuration keys, the same for all trials")
    given = parser.parse_args()

    config = distgan.load_config("quickstart", given.overrides, data={"url": given.data})
    search = distgan.tune(config, SPACE, name="rates", storage=given.storage, trials=given.trials, scheduler="asha")
    for one in search.ranking:
        print(f"trial {one.trial.number}: {one.value:.4g} with {one.trial.overrides}")

    best = distgan.train(search.best_config, name="best", storage=given.storage)
    print(f"{best.url}: {best.summary.metric} {best.summary.best}")


if __name__ == "__main__":
    main()
