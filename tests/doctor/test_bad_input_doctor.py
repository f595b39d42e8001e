"""What a user may get wrong with `distgan doctor`: one line, exit code 2, and Ray is not started for it."""

from __future__ import annotations

import re
import socket

import pytest

from command_line import Cli, one_line

pytestmark = pytest.mark.timeout(60)

CASES = {
    "--address 10.0.0.1": r"^--address 10\.0\.0\.1: write HOST:PORT",
    "--address ray://10.0.0.1:10001": r"^--address ray://.*: give HOST:PORT of the cluster's head",
    "--address 127.0.0.1:{free}": r"^Ray at 127\.0\.0\.1:\d+: nothing answers there",
    "--data s3://": "^s3://: a name has parts",
    "--data s4://bricks": "^s4://bricks: unknown protocol s4://; did you mean s3://",
    "--data pipe:cat": "shell pipes are never run",
    "--storage s3://key:planted@runs": "no passwords in a URL",
    "--storage memory::s3://runs": "chained URLs",
    "--json s3://runs/doctor.json": "^--json s3://runs/doctor.json: give the name of a file on this machine",
    "--json /dev/full": "^--json /dev/full: give the name of a file",
    "--workers 1": "greater than or equal to 2; see `distgan doctor --help`",
    "--worker 2": "no such option: '--worker'; did you mean '--workers'",
    "s3://bricks": "got unexpected extra argument",
}


@pytest.mark.parametrize("line", CASES)
def test_a_mistake_is_one_line(cli: Cli, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
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
