"""`distgan push` and `hf://USER/NAME`, against a stand-in of the hub on this machine."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from command_line import Cli, one_line
from distgan.errors import DamagedError, UserError
from distgan.inference.export import export_generator
from distgan.inference.exported import CARD, CONFIG, WEIGHTS
from distgan.inference.generator import load_generator
from distgan.inference.hub import hub_model
from distgan.inference.push import push_generator
from distgan.storage.storage import Storage
from model_hub import READ, WRITE, ModelHub, model_hub
from run_folders import write_run
from runs import pack_bricks, run, script_distances, tiny_config

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]

NAME, URL = "ada/bricks", "hf://ada/bricks"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two steps, evaluated at its end."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        script_distances(patch, 12.5)
        run(tiny_config("quickstart", pack_bricks(folder / "data", samples=80), 2), str(folder))
    return folder / "run"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelHub]:
    """A hub, and a token that may write."""
    with model_hub(monkeypatch, str(tmp_path / "cache")) as hub:
        monkeypatch.setenv("HF_TOKEN", WRITE)
        yield hub


@pytest.fixture
def pushed(hub: ModelHub, trained: Path) -> ModelHub:
    push_generator(str(trained), NAME)
    return hub


def test_a_run_goes_there_and_back_to_the_bit(hub: ModelHub, trained: Path, cli: Cli) -> None:
    done = cli("push", str(trained), NAME, "--private", "--format", "safetensors,torch-export")
    assert (done.code, done.err) == (0, ""), done
    first, second = done.out.splitlines()
    assert first == f"{hub.url}/{NAME}: {WEIGHTS}, model.pt2, {CONFIG}, {CARD} of step-000000002, fd_lite0_16 12.5"
    assert "license" in second
    assert [one["visibility"] for one in hub.created] == ["private"]
    assert hub.models[NAME].keys() == {".gitattributes", WEIGHTS, "model.pt2", CONFIG, CARD}
    assert f'load_generator("{URL}")' in hub.models[NAME][CARD].decode()
    assert len(hub.commits) == 1
    wanted = load_generator(str(trained))
    for url in (URL, f"{URL}@main", f"{URL}@{hub.commit_of(NAME)}", f"{URL}/"):
        found = load_generator(url)
        assert np.array_equal(found.sample(9, seed=3).images, wanted.sample(9, seed=3).images)
        assert found.checkpoint == url.rstrip("/")
    assert cli("sample", URL, "--count", "9", "--seed", "3", "--out", "nine.npy").code == 0
    assert np.array_equal(np.load("nine.npy"), wanted.sample(9, seed=3).images)


def test_an_exported_folder_goes_as_it_is(hub: ModelHub, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    hub.models[NAME] = {".gitattributes": b"", "model.onnx": b"of a former push"}
    export_generator(str(trained), str(folder))
    card = (folder / CARD).read_text().replace("license: other", "license: mit").replace("fill in", "bricks")
    (folder / CARD).write_text(card)
    (folder / "notes.txt").write_text("mine")
    done = push_generator(str(folder), f"hf://{NAME}")
    assert not done.to_fill_in
    files = hub.models[NAME]
    assert files.keys() == {".gitattributes", WEIGHTS, CONFIG, CARD}
    assert files[WEIGHTS] == (folder / WEIGHTS).read_bytes()
    assert "license: mit" in files[CARD].decode()
    for option, given in (("--format", {"formats": ["onnx"]}), ("--checkpoint", {"checkpoint": "last"})):
        with pytest.raises(UserError, match=f"^{option}: .* is uploaded as it is; leave {option} out$"):
            push_generator(str(folder), NAME, **given)  # type: ignore[arg-type]


def test_a_folder_with_other_files_is_not_pushed(hub: ModelHub, trained: Path, tmp_path: Path) -> None:
    """A pickle among them would be run by whoever loads it."""
    folder = tmp_path / "exported"
    export_generator(str(trained), str(folder))
    config = json.loads((folder / CONFIG).read_text())
    data = b"a pickle"
    (folder / "state.pt").write_bytes(data)
    listed = {"state.pt": {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
    (folder / CONFIG).write_text(json.dumps(config | {"files": config["files"] | listed}))
    with pytest.raises(DamagedError, match=r"lists 'state\.pt'; export it again"):
        push_generator(str(folder), NAME)
    (folder / CONFIG).write_text(json.dumps(config))
    (folder / WEIGHTS).write_bytes(bytes((folder / WEIGHTS).stat().st_size))
    with pytest.raises(DamagedError, match=f"{WEIGHTS} is not the file that was exported"):
        push_generator(str(folder), NAME)
    assert hub.models == {}


def test_a_cached_model_needs_no_hub(pushed: ModelHub, trained: Path) -> None:
    wanted = load_generator(str(trained)).sample(2).images
    load_generator(URL)
    before = len([one for one in pushed.requests if one.startswith("GET")])
    load_generator(URL)
    assert len([one for one in pushed.requests if one.startswith("GET")]) == before
    pushed.status = 418
    assert np.array_equal(load_generator(URL).sample(2).images, wanted)


def test_names(hub: ModelHub) -> None:
    for name in ("bricks", "ada/bricks/more", "", "ada/", "/bricks", "ada/bri cks", "ada/b--c", "../x", "ada/x.git"):
        with pytest.raises(UserError, match="not a name on the hub; write USER/NAME"):
            push_generator("nothing", name)
        with pytest.raises(UserError, match="not a name on the hub; write USER/NAME"):
            load_generator(f"hf://{name}")
    with pytest.raises(UserError, match="no revision after the @"):
        load_generator(f"{URL}@")
    assert hub_model("hf://datasets/ada/bricks") is None
    assert hub_model("runs/first") is None
    assert hub.requests == []


def without_weights(hub: ModelHub) -> None:
    del hub.models[NAME][WEIGHTS]


def changed(**values: object) -> Callable[[ModelHub], None]:
    def change(hub: ModelHub) -> None:
        hub.models[NAME][CONFIG] = json.dumps(json.loads(hub.models[NAME][CONFIG]) | values).encode()

    return change


WRONG: dict[str, tuple[str, Callable[[ModelHub], None], str]] = {
    "no such model": ("hf://ada/nothing", lambda hub: None, "no such model on the hub, or a private one; check"),
    "no such revision": (f"{URL}@v2", lambda hub: None, "the model has no such revision; name a branch"),
    "no config.json": (URL, lambda hub: hub.models[NAME].pop(CONFIG) and None, "it has no config.json, so distgan"),
    "another library's": (URL, lambda hub: hub.models[NAME].update({CONFIG: b"{}"}), "no generator that distgan"),
    "a later version": (URL, changed(format="distgan-generator-2"), "is not one that distgan .* writes: format: "),
    "no weights": (URL, without_weights, "not found in the model's files"),
    "programs only": (URL, changed(files={}), "for distgan export it with --format safetensors"),
    "other weights": (URL, lambda hub: hub.models[NAME].update({WEIGHTS: b"x"}), "is not the file that was exported"),
    "more weights": (
        URL,
        lambda hub: hub.models[NAME].update({WEIGHTS: bytes(10**6)}),
        "has 1,000,000 bytes, and such a file",
    ),
    "a large config": (URL, lambda hub: hub.models[NAME].update({CONFIG: bytes(2**24 + 1)}), "has 16,777,217 bytes"),
    "no right": (URL, lambda hub: setattr(hub, "status", 403), r"the token has no right to that \(HTTP 403\)"),
    "a refusal": (URL, lambda hub: setattr(hub, "status", 418), r"the server refuses \(HTTP 418\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_loaded_is_one_line(case: str, pushed: ModelHub, cli: Cli) -> None:
    url, do, line = WRONG[case]
    do(pushed)
    with pytest.raises(UserError, match=f"^{url}.*: .*{line}"):
        load_generator(url)
    assert one_line(cli("sample", url, "--count", "1")).startswith(url)


def test_who_may_push(hub: ModelHub, trained: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for token, line in (
        (None, "you are not logged in to the hub; run `hf auth login`, or set HF_TOKEN"),
        ("hf_nobodys", "the hub does not accept the token (HTTP 401); "),
        (READ, "the token has no right to that (HTTP 403); "),
    ):
        if token is None:
            monkeypatch.delenv("HF_TOKEN")
        else:
            monkeypatch.setenv("HF_TOKEN", token)
        assert one_line(cli("push", str(trained), NAME)).startswith(f"{URL}: {line}")
    assert hub.models == {}
    monkeypatch.setenv("HF_TOKEN", "hf_nobodys")
    with pytest.raises(UserError, match="does not accept the token"):
        load_generator(URL)


def test_a_run_that_cannot_be_pushed(hub: ModelHub, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoints there"):
        push_generator(str(tmp_path / "nothing"), NAME)
    write_run(Storage.open(str(tmp_path / "run")))
    with pytest.raises(UserError, match="no checkpoints there"):
        push_generator(str(tmp_path / "run"), NAME)
    assert hub.requests == []


def test_a_hub_that_is_away(pushed: ModelHub, trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    monkeypatch.setattr(_http.time, "sleep", lambda _: None)  # its retries take half a minute
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    for do in (lambda: load_generator(URL), lambda: push_generator(str(trained), NAME)):
        with pytest.raises(UserError, match=f"^{URL}: the hub cannot be reached; check the network and HF_ENDPOINT$"):
            do()


def test_without_its_package(trained: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub.utils", None)
    line = "the hub needs huggingface_hub; pip install 'distgan[hub]'"
    assert one_line(cli("push", str(trained), NAME)) == f"{URL}: {line}"
    assert one_line(cli("sample", URL)) == f"{URL}: {line}"
