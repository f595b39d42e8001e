"""What a user may get wrong with `distgan doctor`: one line, exit code 2, and Ray is not started for it."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable

import pytest

from command_line import Cli, one_line
from messages import NO_ANSWER, NOT_A_URL, OPTION, SECRET, UNKNOWN_NAME

pytestmark = pytest.mark.timeout(60)

USAGE = "; see `distgan doctor --help`$"
CASES = {
    "--address 10.0.0.1": OPTION,
    "--address ray://10.0.0.1:10001": OPTION,
    "--address 127.0.0.1:{free}": NO_ANSWER,
    "--data s3://": NOT_A_URL,
    "--data s4://bricks": NOT_A_URL,
    "--data pipe:cat": NOT_A_URL,
    "--storage s3://key:planted@runs": SECRET,
    "--storage memory::s3://runs": NOT_A_URL,
    "--json s3://runs/doctor.json": OPTION,
    "--json /dev/full": OPTION,
    "--workers 1": USAGE,
    "--worker 2": UNKNOWN_NAME,
    "s3://bricks": USAGE,
}


@pytest.mark.parametrize("line", CASES, ids=lambda line: line.replace("::", ":"))
def test_a_mistake_is_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, line: str, same_words: Callable[..., None]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", None)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    result = cli("doctor", *line.format(free=port).split())
    # What is being begun may stand before the mistake.
    *before, last = result.err.splitlines(keepends=True)
    assert all(said.startswith("connecting to Ray at ") for said in before)
    message = one_line(type(result)(result.code, result.out, last))
    assert re.search(CASES[line], message), message
    assert "planted" not in result.out + result.err
    assert result.out == ""
    same_words(message, free=port)
