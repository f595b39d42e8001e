"""The rooms of the package: imports point one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import distgan
from distgan.config.registry import DISCRIMINATORS, EXTRACTORS, GENERATORS, OBJECTIVES, SOURCES

PACKAGE = Path(distgan.__file__).parent

# Rooms, from the ground up.
GROUND = {"text", "errors", "rendezvous", "bounds", "world", "config", "data", "models", "metrics"}
RUN = GROUND | {"evaluation", "health", "training"}
ALL = RUN | {"assessment", "diagnosis", "search", "report", "launch", "store", "submission"}

# What each room may import of the others.
ALLOWED: dict[str, set[str]] = {
    "__init__": set(),
    "text": set(),
    "errors": {"text"},
    "rendezvous": set(),
    "bounds": {"errors"},
    "world": {"errors", "rendezvous"},
    "config": {"text", "errors", "bounds"},
    "models": set(),
    "data": {"text", "errors", "bounds", "config"},
    "metrics": {"errors", "bounds", "config"},
    "store": {"errors", "bounds", "config", "data"},
    "evaluation": {"errors", "bounds", "world", "config", "data", "metrics"},
    "health": {"errors", "config"},
    "training": GROUND | {"evaluation", "health"},
    "assessment": RUN,
    "diagnosis": {"errors", "rendezvous", "config", "data"},
    "search": RUN,
    "report": RUN | {"assessment", "diagnosis", "search"},
    "submission": {"text", "errors", "bounds", "config"},
    "launch": RUN | {"assessment", "diagnosis", "search", "report", "submission"},
    "cli": ALL,
    "__main__": {"errors", "submission", "cli"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import of a file, wherever it stands; relative ones made absolute."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            package = ("distgan", *path.relative_to(PACKAGE).parts[:-1])
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, node.module] if node.module else base)
            yield node.lineno, module
            if module == "distgan":
                for alias in node.names:
                    yield node.lineno, f"distgan.{alias.name}"


def test_every_room_has_its_rules() -> None:
    assert {room_of(path) for path in FILES} == ALLOWED.keys()
    for room, below in ALLOWED.items():
        assert room not in below
        for other in below:
            assert room not in ALLOWED[other], f"{room} and {other} may import each other"


def test_no_import_points_upwards() -> None:
    upwards = [
        f"{path.relative_to(PACKAGE)}:{line} imports {module}"
        for path in FILES
        for line, module in imports(path)
        if module.startswith("distgan.") and module.split(".")[1] not in {room_of(path), *ALLOWED[room_of(path)]}
    ]
    assert [line for line in upwards if not line.endswith("distgan.__version__")] == []


def test_only_launch_imports_ray() -> None:
    importers = {room_of(path) for path in FILES for _, module in imports(path) if module.split(".")[0] == "ray"}
    assert importers == {"launch"}


def test_nothing_imports_torchvision() -> None:
    """It cannot be imported beside this torch."""
    assert not [path for path in FILES for _, module in imports(path) if module.split(".")[0] == "torchvision"]


def test_registries_name_their_own_rooms() -> None:
    rooms = [(GENERATORS, "models"), (DISCRIMINATORS, "models"), (OBJECTIVES, "training"), (EXTRACTORS, "metrics")]
    for registry, room in [*rooms, (SOURCES, "data")]:
        assert {target.split(".")[1] for target in registry.values()} == {room}
