"""Components from a user's own modules, named `module:Class` where a configuration names a registered one."""

from __future__ import annotations

import importlib
import inspect
import os
import site
import sys
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from distgan.config.suggest import did_you_mean
from distgan.errors import UserError

_OURS = __name__.partition(".")[0]


def is_own(name: str) -> bool:
    """Whether a component's name means a class of a user's module, and no entry of a registry."""
    return ":" in name


def import_own(name: str) -> type[Any]:
    """The class that `module:Class` names; modules are found on Python's path and in the current folder.

    Raises UserError where there is no such module or class, or the module cannot be imported.
    """
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise UserError(
                f"{name}: there is no module {error.name!r}; go to the folder that holds it, or name that folder in "
                f"PYTHONPATH"
            ) from None
        raise UserError(f"{name}: importing {module_name!r} failed: {why(error)}") from error
    found = getattr(module, attribute, None)
    if not isinstance(found, type):
        classes = [key for key, value in vars(module).items() if isinstance(value, type) and key[:1] != "_"]
        raise UserError(f"{name}: module {module_name!r} has no class {attribute!r}{did_you_mean(attribute, classes)}")
    return found


def why(error: BaseException) -> str:
    """What a user's code raised, and in which of its lines, as one line."""
    told = f"{type(error).__name__}: {' '.join(str(error).split()):.300}"
    others = ("<", *_installed_folders(), f"{Path(__file__).parents[1]}{os.sep}")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(others)]
    return f"{told} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else told


def own_sources(names: Iterable[str]) -> list[str]:
    """Files and folders of the top-level modules of own components, without those that are installed packages.

    They are what other machines need in order to import the components.
    """
    sources = set()
    for name in filter(is_own, names):
        import_own(name)
        top = sys.modules[name.partition(":")[0].partition(".")[0]]
        source = str(next(iter(top.__path__))) if hasattr(top, "__path__") else inspect.getsourcefile(top)
        if source is not None and top.__name__ != _OURS and not source.startswith(_installed_folders()):
            sources.add(source)
    return sorted(sources)


def _installed_folders() -> tuple[str, ...]:
    folders = [sysconfig.get_path(kind) for kind in ("purelib", "platlib", "stdlib")]
    return tuple(f"{folder}{os.sep}" for folder in [*folders, *site.getsitepackages(), site.getusersitepackages()])
