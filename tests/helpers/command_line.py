"""Commands of the command line in the tests' own process, and the form of a mistake's message."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest

from distgan.cli import main as cli_main


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


@dataclass
class Cli:
    """Runs commands in this process as `distgan` would."""

    capture: pytest.CaptureFixture[str]
    patch: pytest.MonkeyPatch

    def __call__(self, *arguments: str) -> Result:
        self.patch.setattr(sys, "argv", ["distgan", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli_main.main()
        printed = self.capture.readouterr()
        code = ended.value.code
        return Result(0 if code is None else int(code), printed.out, printed.err)


def one_line(result: Result) -> str:
    """The message of a mistake, after a check of its form."""
    assert result.code == 2, result
    assert result.err.startswith("distgan: error: "), result.err
    assert result.err.endswith("\n")
    assert result.err.count("\n") == 1, result.err
    assert "Traceback" not in result.out + result.err
    return result.err.removeprefix("distgan: error: ").rstrip("\n")
