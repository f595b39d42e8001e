"""What a user may get wrong with `distgan submit` and `distgan jobs`, and what a cluster may answer: one line."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pytest
import ray

from circumstances import Make, Place, all_of, files, nothing
from command_line import Cli, one_line
from messages import MISSING, NAMED, NO_ANSWER, NOT_A_URL, OPTION, UNKNOWN_NAME

pytestmark = [pytest.mark.timeout(60)]

TRAIN = "-- train quickstart data.url=s3://bricks --storage s3://runs"


class Case(NamedTuple):
    name: str
    line: str
    kind: str = NAMED
    make: Make = nothing


def dashboard(status: int, body: object, version: str | None, place: Place) -> None:
    """`{url}`: what answers everything so, except for its version, if it has one."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = {"ray_version": version} if version and self.path == "/api/version" else body
            content = told if isinstance(told, bytes) else json.dumps(told).encode()
            self.send_response(200 if told is not body else status)
            self.send_header("Content-Length", str(len(content)))
            if status in {301, 302}:
                self.send_header("Location", "/login")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    place.finally_do(lambda: (server.shutdown(), thread.join(), server.server_close()))
    place.words["url"] = f"http://127.0.0.1:{server.server_port}"


def answers(status: int, body: object, version: str | None = None) -> Make:
    return partial(dashboard, status, body, version)


def closed(place: Place) -> None:
    """`{url}`, where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        place.words["url"] = f"http://127.0.0.1:{server.getsockname()[1]}"


def silent(place: Place) -> None:
    """`{url}`, where something accepts and says nothing; with less patience than usual."""
    from distgan.launch.jobs import client

    server = socket.create_server(("127.0.0.1", 0))
    place.finally_do(server.close)
    place.words["url"] = f"http://127.0.0.1:{server.getsockname()[1]}"
    place.patch.setattr(client, "_TIMEOUT_S", (0.5, 0.5))


def profiles(text: str) -> Make:
    """The user's file of clusters."""

    def make(place: Place) -> None:
        (place.tmp / "clusters.toml").write_text(text)
        place.patch.setenv("DISTGAN_CLUSTERS", str(place.tmp / "clusters.toml"))

    return make


def variables(**values: str) -> Make:
    def make(place: Place) -> None:
        for name, value in values.items():
            place.patch.setenv(name, value)

    return make


def a_large_folder(place: Place) -> None:
    """200 MB in `big`, most of it in one file of no content."""
    folder = place.tmp / "big"
    (folder / "pictures").mkdir(parents=True)
    with (folder / "pictures" / "all.npz").open("wb") as file:
        file.truncate(190_000_000)
    with (folder / "more.npz").open("wb") as file:
        file.truncate(10_000_000)


AT_H = "submit --address http://h"
LOOK = "jobs list --address {url}"
HERE = f"submit --address http://127.0.0.1:9 {TRAIN}"
OTHER_VERSION = {"version": "4", "ray_version": "1.2.3", "ray_commit": "x", "session_name": "y"}

CASES = [
    Case("nothing answers", LOOK, NO_ANSWER, closed),
    Case("submit, nothing answers", "submit --address {url} " + TRAIN, NO_ANSWER, closed),
    Case("no answer in time", LOOK, NO_ANSWER, silent),
    Case("no such host", "jobs list --address http://no-such-host.invalid:8265", NO_ANSWER),
    Case("a web page", LOOK, NO_ANSWER, answers(200, b"<html>")),
    Case("another server's JSON", LOOK, NO_ANSWER, answers(200, [1])),
    Case("a login page", LOOK, NO_ANSWER, answers(302, b"")),
    Case("no such page", LOOK, NO_ANSWER, answers(404, b"")),
    Case("no token", LOOK, make=answers(401, b"no")),
    Case("a wrong token", LOOK, make=answers(403, b"no")),
    Case("another Ray", LOOK, make=answers(200, OTHER_VERSION)),
    Case(
        "the cluster refuses",
        LOOK,
        r": refused: ValueError: no agent\.$",
        answers(500, b"Traceback (most recent call last):\n  File x\nValueError: no agent", ray.__version__),
    ),
    Case("no cluster is named", f"submit {TRAIN}"),
    Case("two clusters are named", "jobs list --address http://h:1 --cluster lab"),
    Case("an address of Ray's own", "jobs list --address ray://h:10001", OPTION),
    Case("no port", "jobs list --address http://h:port", OPTION),
    Case("port 0", "jobs list --address http://h:99999", OPTION),
    Case("no host", "jobs list --address http://", OPTION),
    Case("a password in the address", "jobs list --address http://me:secret@h:8265", OPTION),
    Case("no profiles", "jobs list --cluster lab", make=variables(DISTGAN_CLUSTERS="clusters.toml")),
    Case("no profiles of the user", "jobs list --cluster lab", make=variables(XDG_CONFIG_HOME="config")),
    Case("a folder of profiles", "jobs list --cluster lab", make=variables(DISTGAN_CLUSTERS=".")),
    Case("no such profile", "jobs list --cluster lba", UNKNOWN_NAME, profiles("[lab]\naddress = 'http://h:8265'")),
    Case(
        "a profile of the environment",
        "jobs list",
        UNKNOWN_NAME,
        all_of(profiles("[lab]\naddress = 'http://h:8265'"), variables(DISTGAN_CLUSTER="x")),
    ),
    Case("profiles are no TOML", "jobs list --cluster lab", make=profiles("[lab")),
    Case("a profile without address", "jobs list --cluster lab", make=profiles("[lab]")),
    Case("an unknown key", "jobs list --cluster lab", UNKNOWN_NAME, profiles("[lab]\nadress = 'http://h:8265'")),
    Case(
        "a token in a profile",
        "jobs list --cluster lab",
        make=profiles("[lab]\naddress = 'http://h:8265'\ntoken = 'abc'"),
    ),
    Case("a number for an address", "jobs list --cluster lab", make=profiles("[lab]\naddress = 1")),
    Case("pip is no list", "jobs list --cluster lab", make=profiles("[lab]\naddress = 'http://h'\npip = 'x'")),
    Case("a value outside a profile", "jobs list --cluster lab", make=profiles("lab = 1")),
    Case(
        "no token file",
        "jobs list --cluster lab",
        MISSING,
        profiles("[lab]\naddress = 'http://h:8265'\ntoken_file = 'no'"),
    ),
    Case(
        "an empty token file",
        "jobs list --cluster lab",
        make=all_of(files(token=b"\n"), profiles("[lab]\naddress = 'http://h:8265'\ntoken_file = 'token'")),
    ),
    Case("a token that is none", LOOK, make=all_of(variables(RAY_AUTH_TOKEN="two words"), answers(200, {}))),
    Case("a bad job id", "jobs status --address {url} a/b", make=answers(200, {}, ray.__version__)),
    Case("no command", "submit --address http://h --"),
    Case("an unknown command", f"{AT_H} -- trian quickstart", UNKNOWN_NAME),
    Case("a command for here", f"{AT_H} -- store up", UNKNOWN_NAME),
    Case("an unknown option", f"{AT_H} -- train quickstart --wrokers 2", UNKNOWN_NAME),
    Case("no --", "submit --cluster train train quickstart --wait --workers=2 --storage s3://me:secret@r", OPTION),
    Case("no --, an option in between", f"{AT_H} evaluate --metric fid s3://run --cluster lab", OPTION),
    Case("an unknown option of submit", f"{AT_H} --wokring-dir . train quickstart", UNKNOWN_NAME),
    Case("an unknown option and no command", f"{AT_H} trian quickstart --workers 2", UNKNOWN_NAME),
    Case("an unknown data command", f"{AT_H} -- data pakc", UNKNOWN_NAME),
    Case("an unknown preset", HERE.replace("quickstart", "quickstrat"), UNKNOWN_NAME),
    Case("the default storage", f"{AT_H} -- train quickstart data.url=s3://bricks", NOT_A_URL),
    Case("a relative storage", HERE.replace("s3://runs", "mine"), NOT_A_URL),
    Case("relative data", HERE.replace("s3://bricks", "bricks"), NOT_A_URL),
    Case("relative data of a measurement", f"{AT_H} -- evaluate s3://run --data bricks", NOT_A_URL),
    Case("a relative folder to pack", f"{AT_H} -- data pack photos --format folder --size 32 --out s3://b", NOT_A_URL),
    Case("a file that does not travel", HERE.replace("quickstart", "recipe.yaml"), make=files(recipe_yaml=b"{}")),
    Case("a file that is not here", HERE.replace("quickstart", "recipe.yaml")),
    Case(
        "a file that is ignored",
        HERE.replace("submit", "submit --working-dir .").replace("quickstart", ".recipe.yaml"),
        make=files(_recipe_yaml=b"{}"),
    ),
    Case("code that does not travel", HERE + " generator.network=mine:Net", make=files(mine_py=b"")),
    Case(
        "a space that does not travel",
        f"{AT_H} -- tune quickstart data.url=s3://b --storage s3://r --space space.yaml",
        make=files(space_yaml=b"{}"),
    ),
    Case("an address inside", HERE + " --address 10.0.0.1:6379"),
    Case("a password in the command", HERE.replace("s3://bricks", "s3://me:secret@bricks")),
    Case("no working folder", HERE.replace("submit", "submit --working-dir no"), OPTION),
    Case("a large working folder", HERE.replace("submit", "submit --working-dir big"), OPTION, a_large_folder),
    Case("no env file", HERE.replace("submit", "submit --env-file no.env"), MISSING),
    Case(
        "an env file that is none",
        HERE.replace("submit", "submit --env-file x.env"),
        make=files(x_env=b"A=1\nplanted-secret\n"),
    ),
    Case("an open quote", HERE.replace("submit", "submit --env-file x.env"), make=files(x_env=b'A="planted-secret\n')),
    Case("an env file of bytes", HERE.replace("submit", "submit --env-file x.env"), OPTION, files(x_env=b"\xff\xfe")),
    Case("a bad requirement", HERE.replace("submit", "submit --pip=-r"), OPTION),
    Case("a password in a requirement", HERE.replace("submit", "submit --pip x@https://a:b@h/x.whl"), OPTION),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_bad_input_is_one_line(
    case: Case,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    same_words: Callable[..., None],
) -> None:
    place = Place(request.getfixturevalue("tmp_path"), request, monkeypatch)
    for name in (
        "RAY_ADDRESS",
        "RAY_API_SERVER_ADDRESS",
        "RAY_AUTH_TOKEN",
        "RAY_AUTH_MODE",
        "RAY_AUTH_TOKEN_PATH",
        "DISTGAN_CLUSTER",
        "DISTGAN_CLUSTERS",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(place.tmp))
    case.make(place)
    started = time.monotonic()
    message = one_line(cli(*(part.format(**place.words) for part in case.line.split())))
    assert re.search(case.kind, message), message
    assert "secret" not in message
    assert time.monotonic() - started < 20
    same_words(message, **place.words, tmp=place.tmp)
