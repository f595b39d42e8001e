"""Pages of the documentation that are made from the code: `python docs/generate.py FOLDER`.

Commands, configuration keys and presets come from the package; files of the repository's root are included with their
links rewritten.
"""

from __future__ import annotations

import inspect
import re
import shutil
import sys
from collections.abc import Iterator
from enum import Enum
from itertools import groupby
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

ROOT = Path(__file__).parents[1]

# Files of the repository that a page includes, and the page; both from the root.
INCLUDED = {
    "CHANGELOG.md": "docs/project/changelog.md",
    "CONTRIBUTING.md": "docs/project/contributing.md",
    "SECURITY.md": "docs/project/security.md",
}

# The page in whose place a link names a file.
_PAGES = INCLUDED | {
    "cluster/README.md": "docs/guides/clusters/index.md",
    "examples/README.md": "docs/tutorials/extend.md",
}

_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")


def generate(folder: Path) -> None:
    """Writes all generated pages into `folder`, which is emptied before."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pages = {"commands.md": commands(), "keys.md": keys(), "presets.md": presets()}
    for source, page in INCLUDED.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        pages[Path(page).name] = relocated(text, source, page)
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")


def relocated(text: str, source: str, page: str) -> str:
    """The text of a file of the repository for a page of the site: its links start at the page's folder."""

    def link(match: re.Match[str]) -> str:
        words, target = match.groups()
        path, _, anchor = target.partition("#")
        if "://" in target or not path:
            return match[0]
        whole = (ROOT / source).parent.joinpath(path).resolve().relative_to(ROOT).as_posix()
        if (ROOT / whole).is_dir():
            return words
        whole = _PAGES.get(whole, whole)
        from_page = Path(*[".."] * (len(Path(page).parts) - 1), whole).as_posix()
        return f"[{words}]({from_page}{anchor and '#'}{anchor})"

    return _LINK.sub(link, text)


def commands() -> str:
    """Every command with its arguments and options, as `--help` shows them."""
    import typer.main

    from distgan.cli.main import app

    root = typer.main.get_command(app)
    return "\n".join(text for name, command in _commands(root, "distgan") for text in _command(name, command))


def _commands(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    context = group.make_context(name, [], resilient_parsing=True)
    for part in group.list_commands(context):
        command = group.get_command(context, part)
        if hasattr(command, "list_commands"):
            yield from _commands(command, f"{name} {part}")
        else:
            yield f"{name} {part}", command


def _command(name: str, command: Any) -> Iterator[str]:
    context = command.make_context(name, [], resilient_parsing=True)
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    annotations = get_type_hints(inspect.unwrap(command.callback))
    options = [one for one in command.params if one.param_type_name == "option" and one.name != "help"]
    usage = re.sub(r"[{}]", "", " ".join(command.collect_usage_pieces(context)))
    yield f"## {name}\n\n```text\n{name} {usage}\n```\n"
    yield f"{_with_options(command.help or '').strip()}\n"
    if arguments:
        yield "| argument | description |\n| --- | --- |"
        yield from (f"| `{_argument(one)}` | {_with_options(_cell(one.help))} |" for one in arguments)
        yield ""
    if options:
        yield "| option | value | default | description |\n| --- | --- | --- | --- |"
        for one in options:
            value = _value(one, annotations[one.name])
            yield f"| `{one.opts[0]}` | {_code(value)} | {_code(_default(one))} | {_with_options(_cell(one.help))} |"
        yield ""


def _argument(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _value(option: Any, annotation: Any) -> str:
    if option.is_flag:
        return ""
    if option.metavar is not None:
        return str(option.metavar)
    kind = next((one for one in get_args(annotation) if one is not NoneType), annotation)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " or ".join(str(one.value) for one in kind)
    name = {int: "INTEGER", float: "NUMBER", Path: "PATH"}.get(kind, "TEXT")
    if option.min is None:
        return name
    return f"{name}, {option.min:g} or more" if option.max is None else f"{name}, {option.min} to {option.max}"


def _default(option: Any) -> str:
    default = option.default() if callable(option.default) else option.default
    if option.required:
        return "required"
    default = default.value if isinstance(default, Enum) else default
    return "" if default is None or default is False else str(default)


def keys() -> str:
    """Every configuration key by section, as `distgan keys` lists them."""
    from distgan.config.describe import list_keys
    from distgan.config.resume_rules import mutable_keys, runtime_keys

    resume = dict.fromkeys(mutable_keys(), "branch") | dict.fromkeys(runtime_keys(), "resume")
    lines = []
    for section, found in groupby(list_keys(), lambda key: key.key.partition(".")[0] if "." in key.key else ""):
        if section:
            lines.append(f"\n## {section}\n")
        elif lines:
            lines.append("\n## Further keys\n")
        lines.append("| key | allowed | default | may change | description |\n| --- | --- | --- | --- | --- |")
        for key in found:
            of = f" (of {', '.join(f'`{name}`' for name in key.of)})" if key.of else ""
            cells = (_cell(key.allowed), _code(key.default), resume.get(key.key, ""), f"{_cell(key.meaning)}{of}")
            lines.append(f"| `{key.key}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def presets() -> str:
    """Every preset: what it is, its source, and its file with comments."""
    from distgan.config.load import load_config, preset_names, preset_text

    lines = []
    for name in preset_names():
        config = load_config(name)
        what = f"{config.description[:1].upper()}{config.description[1:]}."
        lines += [f"## {name}\n", what, f"Source: {config.source}.\n"]
        lines += ["```yaml", preset_text(name).rstrip("\n"), "```\n"]
    return "\n".join(lines)


# Scripts, pictures, styles and fonts at an address; links that a reader follows are none of them.
_REQUEST = re.compile(r"""(?:\bsrc=|<link[^>]*\bhref=|@import |url\()["']?(?:https?:)?//[^"')>\s]+""")


def foreign_requests(site: Path) -> list[str]:
    """What the pages and styles of a built site load from other hosts."""
    files = [path for path in sorted(site.rglob("*")) if path.suffix in (".html", ".css")]
    return [
        f"{file.name}: {match[0]}" for file in files for match in _REQUEST.finditer(file.read_text(encoding="utf-8"))
    ]


def _with_options(text: str) -> str:
    """The text with options as code, except where they are code already."""
    return re.sub(r"`[^`]*`|(?<![\w-])--[a-z][a-z-]*", lambda found: f"`{found[0].strip('`')}`", text)


def _code(text: object) -> str:
    words = str(text).replace("|", "\\|")
    return f"`{words}`" if words else ""


def _cell(text: object) -> str:
    return " ".join(str(text or "").split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


if __name__ == "__main__":
    generate(Path(sys.argv[1]))
