"""A command for a cluster: quoted for a shell, and checked for files that the cluster does not have."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distgan.config.load import preset_names
from distgan.errors import UserError
from distgan.text import did_you_mean, without_credentials

COMMANDS = ("train", "tune", "evaluate", "data", "doctor")

_PREFIX = "exec python -m distgan "

_OWN_CODE = re.compile(r"([A-Za-z_]\w*)(\.\w+)*:[A-Za-z_]\w*")

# Parameters and keys that name what several nodes read or write, or what remains after the job.
_PATHS = {
    "storage", "out", "url", "data", "data.url", "data.held_out", "source", "init_from", "continue_from", "from_trial",
    "warm_start", "results", "picture", "json", "statistics",
}  # fmt: skip

_SHARED = "the cluster's nodes do not have it; give an s3:// URL, or the absolute path of a folder that all nodes share"


@dataclass(frozen=True)
class ShippedFolder:
    """The working folder of a job (None without one), and the files of it that are shipped."""

    folder: Path | None = None
    files: frozenset[Path] = frozenset()

    def holds(self, relative: str) -> bool:
        """Whether the job has this file or folder in its working folder."""
        path = Path(relative)
        return path in self.files or any(path in file.parents for file in self.files)


def entry_point(arguments: Sequence[str]) -> str:
    """The shell command that runs `distgan` with exactly these arguments."""
    return _PREFIX + shlex.join(arguments)


def command_of(line: str) -> str:
    """An entry point as text: `distgan train …`, or the shell command of a job that distgan did not submit."""
    return f"distgan {line.removeprefix(_PREFIX)}" if line.startswith(_PREFIX) else line


def check_arguments(arguments: Sequence[str]) -> str:
    """The command's name. Raises UserError for a command that cannot be submitted, and for passwords."""
    if not arguments:
        raise UserError("what to submit? write the command after --, as in `distgan submit -- train quickstart …`")
    name = arguments[0]
    if name not in COMMANDS:
        raise UserError(f"{name!r:.60} is no command that can be submitted{did_you_mean(name, COMMANDS)}")
    for word in arguments:
        if without_credentials(word) != word:
            raise UserError("no passwords in a URL: everyone on the cluster could read them; use --env-file FILE")
        if "\0" in word or "\n" in word:
            raise UserError(f"{word!r:.60}: an argument cannot have a line break")
    return name


def check_paths(parameters: Mapping[str, object], shipped: ShippedFolder, working_folder: Path) -> None:
    """Raises UserError where a command names files or folders that the cluster will not have.

    Args:
        parameters: of the command, by name; `overrides` is a list of KEY=VALUE.
        shipped: the files that the cluster gets.
        working_folder: the folder that relative paths refer to.
    """
    if parameters.get("address") is not None:
        raise UserError("a submitted command runs on the cluster that it is submitted to: leave out its --address")
    for name, value in _named_values(parameters):
        if "://" in value or Path(value).is_absolute():
            continue
        if name == "config":
            _check_config(value, shipped, working_folder)
        elif name in _PATHS and not (name == "json" and value == "-"):
            if name == "storage" and value == "runs":
                raise UserError(
                    f"a submitted command needs --storage: by default it writes to {value!r}, and {_SHARED}"
                )
            raise UserError(f"{_shown(name)} {value!r:.100} is a relative path: {_SHARED}")
        elif _is_left_behind(name, value, shipped, working_folder):
            raise UserError(_not_shipped(value, shipped))


def _named_values(parameters: Mapping[str, object]) -> Iterable[tuple[str, str]]:
    for name, value in parameters.items():
        if name == "overrides" and isinstance(value, Sequence):
            for override in value:
                key, equals, text = str(override).partition("=")
                if equals and text.strip() not in {"", "null", "~"}:
                    yield key.strip(), text.strip().strip("'\"")
        elif isinstance(value, str):
            yield name, value
        elif isinstance(value, (list, tuple)):
            yield from ((name, one) for one in value if isinstance(one, str))


def _check_config(value: str, shipped: ShippedFolder, working_folder: Path) -> None:
    is_file = Path(value).suffix in {".yaml", ".yml"} or (working_folder / value).is_file()
    if is_file and not shipped.holds(value):
        if not (working_folder / value).is_file() and shipped.folder is None:
            raise UserError(f"cannot read the configuration {value!s:.100}: there is no such file here")
        raise UserError(_not_shipped(value, shipped))
    if not is_file and value not in preset_names():
        raise UserError(f"unknown preset {value!r:.100}{did_you_mean(value, preset_names())}")


def _is_left_behind(name: str, value: str, shipped: ShippedFolder, working_folder: Path) -> bool:
    """Whether it names a space file or a custom component of the working folder that is not shipped."""
    if name == "space" and (working_folder / value).is_file():
        return not shipped.holds(value)
    own = _OWN_CODE.fullmatch(value)
    return own is not None and not _custom_is_shipped(own[1], shipped, working_folder)


def _custom_is_shipped(module: str, shipped: ShippedFolder, working_folder: Path) -> bool:
    """Whether a custom module is shipped. Also true for one outside the folder, which the cluster may have."""
    if not ((working_folder / f"{module}.py").is_file() or (working_folder / module).is_dir()):
        return True
    return shipped.holds(f"{module}.py") or shipped.holds(module)


def _not_shipped(what: str, shipped: ShippedFolder) -> str:
    if shipped.folder is None:
        return f"{what:.100} is on this machine, and the cluster does not have it: add --working-dir ."
    return (
        f"{what:.100} is not among the files of --working-dir {shipped.folder} that are shipped; name its path in that "
        f"folder, and check whether .gitignore excludes it"
    )


def _shown(name: str) -> str:
    return name if "." in name else f"--{name.replace('_', '-')}" if name not in {"url", "source"} else name.upper()
