"""What a user may get wrong with `distgan submit` and `distgan jobs`, and what a cluster may answer: one line."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pytest
import ray

from circumstances import Make, Place, all_of, files, nothing
from command_line import Cli, one_line

pytestmark = [pytest.mark.timeout(60)]

TRAIN = "-- train quickstart data.url=s3://bricks --storage s3://runs"


class Case(NamedTuple):
    name: str
    line: str
    message: str
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
    Case("nothing answers", LOOK, r"^Ray at {url}: nothing answers there \(.*refused.*\); check the address", closed),
    Case("submit, nothing answers", "submit --address {url} " + TRAIN, "^Ray at {url}: nothing answers there", closed),
    Case("no answer in time", LOOK, r"nothing answers there \(.*timed out.*\)", silent),
    Case("no such host", "jobs list --address http://no-such-host.invalid:8265", "nothing answers there"),
    Case("a web page", LOOK, r"does not answer as Ray's dashboard does \(status 200\)", answers(200, b"<html>")),
    Case("another server's JSON", LOOK, r"does not answer as Ray's dashboard does", answers(200, [1])),
    Case("a login page", LOOK, r"does not answer as Ray's dashboard does \(status 302\)", answers(302, b"")),
    Case("no such page", LOOK, r"\(status 404\); check the address; it is that of the dashboard", answers(404, b"")),
    Case("no token", LOOK, "it asks for a token and there is none here; set RAY_AUTH_TOKEN", answers(401, b"no")),
    Case("a wrong token", LOOK, "the token is not that of this cluster; look at token_file", answers(403, b"no")),
    Case("another Ray", LOOK, "the cluster runs Ray 1.2.3, and here is 2", answers(200, OTHER_VERSION)),
    Case(
        "the cluster refuses",
        LOOK,
        r"^Ray at {url}: refused: ValueError: no agent\.$",
        answers(500, b"Traceback (most recent call last):\n  File x\nValueError: no agent", ray.__version__),
    ),
    Case("no cluster is named", f"submit {TRAIN}", "^no cluster is named: give --address http://HEAD:8265"),
    Case("two clusters are named", "jobs list --address http://h:1 --cluster lab", "give one of them"),
    Case(
        "an address of Ray's own", "jobs list --address ray://h:10001", "write the URL of Ray's dashboard, as in http"
    ),
    Case("no port", "jobs list --address http://h:port", "write the URL of Ray's dashboard"),
    Case("port 0", "jobs list --address http://h:99999", "write the URL of Ray's dashboard"),
    Case("no host", "jobs list --address http://", "write the URL of Ray's dashboard"),
    Case(
        "a password in the address", "jobs list --address http://me:secret@h:8265", "^--address: no passwords in a URL"
    ),
    Case(
        "no profiles",
        "jobs list --cluster lab",
        "clusters.toml: cannot read the clusters' profiles: No such file",
        variables(DISTGAN_CLUSTERS="clusters.toml"),
    ),
    Case(
        "a folder of profiles",
        "jobs list --cluster lab",
        "cannot read the clusters' profiles: Is a directory",
        variables(DISTGAN_CLUSTERS="."),
    ),
    Case(
        "no such profile",
        "jobs list --cluster lba",
        "no cluster 'lba'; did you mean 'lab'?",
        profiles("[lab]\naddress = 'http://h:8265'"),
    ),
    Case(
        "a profile of the environment",
        "jobs list",
        "no cluster 'x'; there are: lab",
        all_of(profiles("[lab]\naddress = 'http://h:8265'"), variables(DISTGAN_CLUSTER="x")),
    ),
    Case("profiles are no TOML", "jobs list --cluster lab", "not valid TOML: ", profiles("[lab")),
    Case("a profile without address", "jobs list --cluster lab", r"\[lab\]: add address = ", profiles("[lab]")),
    Case(
        "an unknown key",
        "jobs list --cluster lab",
        r"\[lab\]: unknown key 'adress'; did you mean 'address'\?",
        profiles("[lab]\nadress = 'http://h:8265'"),
    ),
    Case(
        "a token in a profile",
        "jobs list --cluster lab",
        r"\[lab\]: token: name a file that only you can read",
        profiles("[lab]\naddress = 'http://h:8265'\ntoken = 'abc'"),
    ),
    Case(
        "a number for an address",
        "jobs list --cluster lab",
        r"\[lab\]: address: write a text",
        profiles("[lab]\naddress = 1"),
    ),
    Case(
        "pip is no list",
        "jobs list --cluster lab",
        r"\[lab\]: pip: write a list",
        profiles("[lab]\naddress = 'http://h'\npip = 'x'"),
    ),
    Case("a value outside a profile", "jobs list --cluster lab", "is a value outside a section", profiles("lab = 1")),
    Case(
        "no token file",
        "jobs list --cluster lab",
        "token_file .*/no: cannot be read: No such file",
        profiles("[lab]\naddress = 'http://h:8265'\ntoken_file = 'no'"),
    ),
    Case(
        "an empty token file",
        "jobs list --cluster lab",
        "token_file .*: it holds no token",
        all_of(files(token=b"\n"), profiles("[lab]\naddress = 'http://h:8265'\ntoken_file = 'token'")),
    ),
    Case(
        "a token that is none",
        LOOK,
        "^RAY_AUTH_TOKEN: it holds no token, which is one word",
        all_of(variables(RAY_AUTH_TOKEN="two words"), answers(200, {})),
    ),
    Case(
        "a bad job id",
        "jobs status --address {url} a/b",
        "there is no job 'a/b'; `distgan jobs list --address http://[^ ]+` shows them",
        answers(200, {}, ray.__version__),
    ),
    Case("no command", "submit --address http://h --", "missing argument|what to submit"),
    Case(
        "an unknown command",
        f"{AT_H} -- trian quickstart",
        "'trian' is no command that can be submitted; did you mean 'train'",
    ),
    Case("a command for here", f"{AT_H} -- store up", "'store' is no command that can be submitted; there are"),
    Case("an unknown option", f"{AT_H} -- train quickstart --wrokers 2", "no such option: '--wrokers'; did you mean"),
    Case("an unknown data command", f"{AT_H} -- data pakc", "no such command 'pakc'"),
    Case(
        "an unknown preset",
        HERE.replace("quickstart", "quickstrat"),
        "unknown preset 'quickstrat'; did you mean 'quickstart'",
    ),
    Case(
        "the default storage",
        f"{AT_H} -- train quickstart data.url=s3://bricks",
        "a submitted command needs --storage: ",
    ),
    Case(
        "a relative storage",
        HERE.replace("s3://runs", "mine"),
        "--storage 'mine' is a relative path: the cluster's nodes do not have it; give an s3:// URL",
    ),
    Case("relative data", HERE.replace("s3://bricks", "bricks"), "data.url 'bricks' is a relative path"),
    Case(
        "relative data of a measurement",
        f"{AT_H} -- evaluate s3://run --data bricks",
        "--data 'bricks' is a relative path",
    ),
    Case(
        "a relative folder to pack",
        f"{AT_H} -- data pack photos --format folder --size 32 --out s3://b",
        "SOURCE 'photos' is a relative path",
    ),
    Case(
        "a file that does not travel",
        HERE.replace("quickstart", "recipe.yaml"),
        "recipe.yaml is on this machine, and the cluster does not have it: add --working-dir .",
        files(recipe_yaml=b"{}"),
    ),
    Case(
        "a file that is not here",
        HERE.replace("quickstart", "recipe.yaml"),
        "cannot read the configuration recipe.yaml: there is no such file here",
    ),
    Case(
        "a file that is ignored",
        HERE.replace("submit", "submit --working-dir .").replace("quickstart", ".recipe.yaml"),
        r"\.recipe\.yaml is not among the files of --working-dir \. that are shipped",
        files(_recipe_yaml=b"{}"),
    ),
    Case(
        "code that does not travel",
        HERE + " generator.network=mine:Net",
        "mine:Net is on this machine, .*: add --working-dir .",
        files(mine_py=b""),
    ),
    Case(
        "a space that does not travel",
        f"{AT_H} -- tune quickstart data.url=s3://b --storage s3://r --space space.yaml",
        "space.yaml is on this machine",
        files(space_yaml=b"{}"),
    ),
    Case("an address inside", HERE + " --address 10.0.0.1:6379", "leave out its --address"),
    Case("a password in the command", HERE.replace("s3://bricks", "s3://me:secret@bricks"), "^no passwords in a URL"),
    Case(
        "no working folder",
        HERE.replace("submit", "submit --working-dir no"),
        "--working-dir no: there is no such folder",
    ),
    Case(
        "a large working folder",
        HERE.replace("submit", "submit --working-dir big"),
        r"--working-dir big: 200\.0 MB would be shipped, and 100\.0 MB may be; the largest things in it: pictures/",
        a_large_folder,
    ),
    Case(
        "no env file",
        HERE.replace("submit", "submit --env-file no.env"),
        r"^--env-file no\.env: cannot be read: No such file",
    ),
    Case(
        "an env file that is none",
        HERE.replace("submit", "submit --env-file x.env"),
        r"^--env-file x\.env, line 2: write NAME=VALUE, one variable a line$",
        files(x_env=b"A=1\nplanted-secret\n"),
    ),
    Case(
        "an open quote",
        HERE.replace("submit", "submit --env-file x.env"),
        r"^--env-file x\.env, line 1: the quote is not closed; end the value with \"$",
        files(x_env=b'A="planted-secret\n'),
    ),
    Case(
        "an env file of bytes",
        HERE.replace("submit", "submit --env-file x.env"),
        "not text in UTF-8",
        files(x_env=b"\xff\xfe"),
    ),
    Case("a bad requirement", HERE.replace("submit", "submit --pip=-r"), "--pip '-r': write a requirement"),
    Case(
        "a password in a requirement",
        HERE.replace("submit", "submit --pip x@https://a:b@h/x.whl"),
        "--pip: no passwords in a URL",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_bad_input_is_one_line(
    case: Case, cli: Cli, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    place = Place(request.getfixturevalue("tmp_path"), request, monkeypatch)
    for name in (
        "RAY_ADDRESS",
        "RAY_API_SERVER_ADDRESS",
        "RAY_AUTH_TOKEN",
        "RAY_AUTH_TOKEN_PATH",
        "DISTGAN_CLUSTER",
        "DISTGAN_CLUSTERS",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(place.tmp))
    case.make(place)
    started = time.monotonic()
    message = one_line(cli(*(part.format(**place.words) for part in case.line.split())))
    assert re.search(case.message.replace("{url}", place.words.get("url", "")), message), message
    assert "secret" not in message
    assert time.monotonic() - started < 20
