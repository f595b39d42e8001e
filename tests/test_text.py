"""Untrusted text on the terminal: it controls nothing, and shows no secret of a URL."""

from __future__ import annotations

import io

import pytest
from rich.table import Table

from command_line import Cli
from distgan.errors import UserError
from distgan.text import printable, without_credentials
from distgan.tracking.console import Terminal

# Clears the screen, colors, a bell, a C1 control, a line end, a turn of the reading order, a byte that is not UTF-8.
HOSTILE = "a\x1b[2J\x1b[31mb\x07\x9b1mc\nd\u202etxt.exe\udcff"
SHOWN = r"a\x1b[2J\x1b[31mb\x07\x9b1mc\nd\u202etxt.exe\udcff"


def test_unprintable_characters_are_escaped() -> None:
    assert printable(HOSTILE) == SHOWN
    assert printable(SHOWN) == SHOWN
    assert printable("Zoë 積み木 🧱 [red]x") == "Zoë 積み木 🧱 [red]x"


def test_an_error_is_one_printable_line() -> None:
    assert str(UserError(f"{HOSTILE}: bad")) == SHOWN.replace(r"\n", " ") + ": bad"


def test_printable_text_is_unchanged() -> None:
    written = io.StringIO()
    terminal = Terminal(file=written, width=100, force_terminal=True, color_system="truecolor", legacy_windows=False)
    table = Table(title="[bold]title[/bold]")
    table.add_column("[blue]head")
    table.add_row(f"[link=file:///etc/passwd]{HOSTILE}".replace("\n", ""))
    terminal.print(table)
    terminal.print(":warning: [red]x[/red]", highlight=False)
    shown = written.getvalue()
    for text in ("[bold]title[/bold]", "[blue]head", "[link=file:///etc/passwd]a\\x1b[2J", ":warning: [red]x[/red]"):
        assert text in shown
    assert not {"\x07", "\x9b", "\u202e", "\udcff"} & set(shown)
    assert "\x1b[2J" not in shown
    assert "\x1b[31m" not in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://TOKEN@host/x", "https://…@host/x"),
        ("s3://me:secret@b/x: gone, s3://me:secret@c", "s3://…@b/x: gone, s3://…@c"),
        ("s3://me:se/cr@et@b/x", "s3://…@b/x"),
        ("sftp://me:se/cret@h/x", "sftp://…@h/x"),
        ("http://me:12345678/x@h:9000", "http://…@h:9000"),
        ("s3:/KEY:SECRET@b", "s3:/…@b"),
        ("s3:KEY:SECRET@b", "s3:…@b"),
        ("git+https://TOKEN@host/a", "git+https://…@host/a"),
        ("https://h/x?a=1&X-Amz-Signature=abc&b=2: not found", "https://h/x?…: not found"),
        ("https://h/x?se=2030-01-01T00:00:00Z&sig=Ab%3D; try", "https://h/x?…; try"),
        ("(https://h/x#access_token=abc)", "(https://h/x#…)"),
    ],
)
def test_secrets_of_urls_are_not_shown(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
    assert str(UserError(text)) == shown


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text", ["a:/" * 300_000 + "?" + "key" * 300_000, "a://" * 200_000, "s3:x" * 200_000 + "@" * 9]
)
def test_no_text_takes_long(text: str) -> None:
    without_credentials(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://host:8080/path@x",
        "sftp://me@host/a",
        "abfs://box@account.dfs/x",
        "s3://b/user@host",
        "https://arxiv.org/abs/1?page=2",
        "write s3://bucket/folder; did you mean s3://? Installed: file",
        "mail me@host: it is late",
    ],
)
def test_other_parts_of_urls_stay(text: str) -> None:
    assert without_credentials(text) == text


def test_a_usage_error_is_printable_and_repeats_no_password(cli: Cli) -> None:
    for word in (f"--{HOSTILE}", "--s3://me:secret@b"):
        found = cli("data", "info", word)
        assert found.code == 2
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(found.err)
        assert "secret" not in found.err
