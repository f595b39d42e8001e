"""Distributed GAN training: Ray Train, WebDataset shards from object storage, runs that resume to the bit.

    import distgan

    config = distgan.load_config("quickstart", data={"url": "bricks"})
    run = distgan.train(config, name="first")
    distgan.load_generator(run.url).sample(64).grid().save("grid.png")
    print(distgan.evaluate(run.url).metrics)

`distgan.api` describes these functions. They are imported when they are first used, torch and Ray with them.
"""

import os
from collections.abc import MutableMapping
from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "Config",
    "Evaluation",
    "Interrupted",
    "SearchResult",
    "TrainResult",
    "UserError",
    "__version__",
    "evaluate",
    "load_config",
    "load_generator",
    "train",
    "tune",
]

if TYPE_CHECKING:
    from distgan.api import Evaluation, SearchResult, TrainResult, evaluate, load_config, train, tune
    from distgan.config.schema import Config
    from distgan.errors import Interrupted, UserError
    from distgan.inference.generator import load_generator
else:
    _MODULES = {
        "Config": "distgan.config.schema",
        "Interrupted": "distgan.errors",
        "UserError": "distgan.errors",
        "load_generator": "distgan.inference.generator",
    }

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_MODULES.get(name, "distgan.api")), name)
        return value

    def __dir__():
        return sorted({*globals(), *__all__})


# `[::1]` is how urllib and botocore compare it; requests and httpx know networks.
_LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]", "127.0.0.0/8")


def reach_loopback_directly(environment: MutableMapping[str, str]) -> None:
    """Add loopback to `NO_PROXY` where a proxy is set: no proxy reaches this machine's own servers.

    S3 on loopback, Ray's dashboard and the libraries behind other protocols read it, here and in child processes.
    """
    if not any(name.lower() in {"http_proxy", "https_proxy", "all_proxy"} for name in environment):
        return
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    names = [name.strip() for name in given.split(",") if name.strip()]
    if "*" in names:
        return
    exempt = ",".join([*names, *(name for name in _LOOPBACK if name not in names)])
    environment.update(no_proxy=exempt, NO_PROXY=exempt)


reach_loopback_directly(os.environ)
