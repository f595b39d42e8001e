"""The code of the documentation: fenced blocks of Markdown pages, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

PAGES = [
    ROOT / "README.md",
    ROOT / "examples" / "README.md",
    ROOT / "cluster" / "README.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_generated" not in path.parts),
]

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\S*)[^\n]*\n(?P<text>.*?)^(?P=indent)```$", flags=re.DOTALL | re.MULTILINE
)

# Stands on the line before a block that no test runs.
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->\n *\Z")

_CODE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        why_not_run: the reason in its marker; None for a block that tests run.
    """

    page: Path
    line: int
    language: str
    text: str
    why_not_run: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def file_name(self) -> str | None:
        """The name of a file that the reader saves: a Python block's first line is `# NAME.py`."""
        found = re.match(r"# (\w+\.py)\n", self.text) if self.language == "python" else None
        return found[1] if found else None


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        marker = _NOT_RUN.search(text[: match.start()] + match["indent"])
        lines = [line.removeprefix(match["indent"]) for line in match["text"].splitlines(keepends=True)]
        number = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, number, match["language"], "".join(lines), marker and marker[1]))
    return found


def inline_code(page: Path) -> list[str]:
    """The text of all inline code of a page."""
    return _CODE.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Command:
    """A simple command of a shell.

    Attributes:
        words: without assignments before it.
        output: the file that its standard output is redirected to.
    """

    words: list[str]
    output: str | None = None


def commands(text: str) -> Iterator[Command]:
    """The simple commands of a shell's text: its lines cut at operators."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        output = None
        for token in [*lexer, ";"]:
            if output == "":
                output = token
            elif token == ">":
                output = ""
            elif set(token) <= set("();|&<"):
                while words and re.fullmatch(r"\w+=.*", words[0], re.DOTALL) and len(words) > 1:
                    del words[0]
                if words:
                    yield Command(words, output)
                words, output = [], None
            else:
                words.append(token)
