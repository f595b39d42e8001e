"""The command line: help at once, one line for a mistake, exit codes, and what the light commands print."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from typer.core import TyperCommand, TyperGroup

from distgan import __version__
from distgan.cli import main as cli_main
from distgan.config.load import load_config, preset_names, preset_text
from distgan.data.index import Index
from distgan.data.storage import Storage
from toy_data import pack_numbered

pytestmark = pytest.mark.timeout(60)


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


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return Cli(capsys, monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 grey images of 32x32 pixels."""
    folder = tmp_path_factory.mktemp("data") / "numbered"
    pack_numbered(folder, 100, size=32)
    return folder


def one_line(result: Result) -> str:
    """The message of a mistake, after a check of its form."""
    assert result.code == 2, result
    assert result.err.startswith("distgan: error: "), result.err
    assert result.err.endswith("\n")
    assert result.err.count("\n") == 1, result.err
    assert "Traceback" not in result.out + result.err
    return result.err.removeprefix("distgan: error: ").rstrip("\n")


# Mistakes: arguments, and what their one line says. {data} is a good data set, {tmp} an empty folder.
MISTAKES: list[tuple[str, str]] = [
    ("train quikstart", r"unknown preset 'quikstart'; did you mean 'quickstart'\?"),
    ("train gone.yaml", r"cannot read the configuration gone\.yaml: .*No such file"),
    ("train quickstart sed=1", r"preset quickstart: sed: unknown key; did you mean 'seed'"),
    ("train quickstart training.batchsize=1", r"training\.batchsize: unknown key; did you mean 'training\.batch_size'"),
    ("train quickstart seed", "override 'seed': write KEY=VALUE"),
    ("train quickstart image_size=48", "image_size=48: input should be 16, 32, 64 or 128"),
    ("train quickstart optimizer.generator.lr=nan", r"optimizer\.generator\.lr='nan': input should be"),
    ("train quickstart objective.name=hinge", "unknown objective 'hinge'; there are: bce, wgan_gp"),
    ("train quickstart --workers 5", r"scale\.workers=5 is more than scale\.groups=2"),
    ("train quickstart --workers 0", r"scale\.workers=0: input should be greater than or equal to 1"),
    ("train quickstart training.batch_size=100", "must be a multiple of data.streams=16"),
    ("train quickstart --name a/b", "--name 'a/b': use letters, digits"),
    ("train quickstart --name ..", r"--name '\.\.': use letters, digits"),
    ("train quickstart", r"data\.url is not set: add data\.url=URL"),
    ("train quickstart --no-ray", r"data\.url is not set: add data\.url=URL"),
    ("train quickstart data.url={tmp}/gone", r"gone/index\.json: no index; name the folder"),
    ("train quickstart data.url={tmp}", r"/index\.json: no index; name the folder"),
    ("train quickstart data.url=", "is not a URL"),
    ("train quickstart data.url=ftp-ish://x/y", "ftp-ish"),
    (
        "train quickstart data.url={data} image_size=64",
        r"image_size=64, but the images at .* have 32: set image_size=32",
    ),
    ("train quickstart data.url={data} channels=3", r"channels=3, but the images at .* have 1: set channels=1"),
    (
        "train quickstart data.url={data} data.streams=128 training.batch_size=128",
        r"data\.streams=128 is more than the data set's 100 samples",
    ),
    ("train quickstart data.url={data} evaluation.extractor=fid", "unknown feature extractor 'fid'"),
    ("train quickstart generator.widths=[1,2] --dry-run", "generator: widths has 2 entries, the network has 3 stages"),
    ("train quickstart generator.strides=[3,3] --dry-run", r"generator: strides \[3, 3\] lead from 4 to 36, not to 32"),
    (
        "train wgan-gp-faces discriminator.network=dcgan --dry-run",
        r"discriminator\.network=dcgan normalises over the batch, which objective\.name=wgan_gp forbids",
    ),
    ("train quickstart --dry-run --storage {data}/index.json", "index.json"),
    ("train quickstart --dry-run --storage pipe:ls", "not a URL of a folder"),
    ("presets show quick-start", "unknown preset 'quick-start'; did you mean 'quickstart'"),
    ("sample {tmp}/gone", "gone: no checkpoints there; give a run's folder"),
    ("sample {tmp}/gone --out grid.jpg", r"--out grid\.jpg: grids are written as PNG"),
    ("data info {tmp}", "no index; name the folder"),
    ("data info {data}/index.json", "index.json"),
    ("data verify {tmp}/gone", "no index; name the folder"),
    ("data index {tmp}", r"no \.tar files there"),
    ("data pack {tmp}/gone --format folder --out {tmp}/new", "gone: no such folder of images"),
    ("data pack {data} --format folder --out {tmp}/new", "no image files below it"),
    ("data pack {data} --format idx --out {tmp}/new", r"no \*-images-idx3-ubyte files"),
    ("data pack {data}/index.json --format npz --out {tmp}/new", r"index\.json: not a readable \.npz archive"),
    ("data render bricks --out {data} --samples 2", "holds a data set already; choose another place"),
    ("data render bricks --out {tmp}/new --samples 2 --size 12", "--size 12: bricks are rendered at 16 to 256 pixels"),
    ("data render bricks --out s3://user:secret@bucket/x --samples 2", "no passwords in a URL"),
    ("store up --dir {data}/index.json", "index.json.*cannot hold a store"),
]


@pytest.mark.parametrize(("line", "message"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_one_line(cli: Cli, data: Path, tmp_path: Path, line: str, message: str) -> None:
    arguments = [part.format(data=data, tmp=tmp_path) for part in line.split()]
    assert re.search(message, one_line(cli(*arguments)))
    assert not (tmp_path / "new" / "index.json").exists()


USAGE = [
    ("train", "PRESET_OR_FILE"),
    ("trian quickstart", "No such command 'trian'"),
    ("train quickstart --wrokers 2", "No such option"),
    ("train quickstart --workers two", "valid integer"),
    ("data pack x --out y", "--format"),
    ("data pack x --out y --format zip", "zip"),
    ("data render bricks --out y --size 4", "greater than or equal to 8"),
    ("sample x --count 0", "greater than or equal to 1"),
]


@pytest.mark.parametrize(("line", "message"), USAGE, ids=[line for line, _ in USAGE])
def test_a_wrong_usage_is_explained(cli: Cli, line: str, message: str) -> None:
    result = cli(*line.split())
    assert result.code == 2
    assert message in result.err
    assert "--help" in result.err
    assert "Traceback" not in result.err
    assert result.out == ""


# S3.


def test_a_bucket_that_does_not_exist(cli: Cli, object_store: object) -> None:
    for command in (
        "data info s3://not-there/x",
        "data render bricks --samples 2 --out s3://not-there/x",
        "train quickstart data.url=s3://not-there/x",
        "train quickstart --dry-run --storage s3://not-there/x",
    ):
        assert re.search("s3://not-there: the bucket does not exist; create it", one_line(cli(*command.split())))


def test_wrong_s3_credentials(cli: Cli, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        assert "the secret key is wrong; check AWS_SECRET_ACCESS_KEY" in one_line(cli("data", "info", bucket))
        assert "the secret key is wrong" in one_line(cli("train", "quickstart", "--dry-run", "--storage", bucket))
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        assert "the access key is not known; check AWS_ACCESS_KEY_ID" in one_line(cli("data", "info", bucket))
    assert "no index" in one_line(cli("data", "info", bucket))


def test_a_data_set_in_s3_is_checked(cli: Cli, bucket: str, tmp_path: Path) -> None:
    url = f"{bucket}/bricks"
    result = cli("data", "render", "bricks", "--out", url, "--samples", "40", "--size", "16")
    assert result.code == 0, result
    assert f"{url}: 40 images, 1x16x16" in result.out
    assert cli("data", "verify", url).out == f"{url}: 40 samples, all as the index says\n"
    storage = Storage.open(url)
    index = Index.load(storage)
    name = index.header.shards[0].name
    shard = bytearray(storage.read_bytes(name))
    shard[int(index.offsets[0]) + 60] ^= 1
    storage.write_bytes(name, bytes(shard))
    result = cli("data", "verify", url)
    assert one_line(result) == f"{url}: faults found: 2; upload or pack those shards again"
    assert "SHA-256 differs" in result.out


# What works.


def test_version(cli: Cli) -> None:
    assert cli("--version") == Result(0, f"distgan {__version__}\n", "")


def commands(group: TyperGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], TyperCommand]]:
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, (*path, name))
        else:
            assert isinstance(command, TyperCommand)
            yield (*path, name), command


def all_commands() -> dict[str, TyperCommand]:
    group = typer.main.get_command(cli_main.app)
    assert isinstance(group, TyperGroup)
    return {" ".join(path): command for path, command in commands(group)}


def test_the_commands_are_known() -> None:
    assert {
        "train", "sample", "presets list", "presets show", "data render bricks", "data pack", "data index", "data info",
        "data verify", "store up", "store down", "store status",
    } <= all_commands().keys()  # fmt: skip


@pytest.mark.parametrize("path", all_commands())
def test_every_command_and_parameter_has_help(cli: Cli, path: str) -> None:
    command = all_commands()[path]
    assert command.help
    for parameter in command.params:
        if parameter.name not in {"help", "name"}:
            assert getattr(parameter, "help", None), f"{path}: {parameter.name}"
    shown = cli(*path.split(), "--help")
    assert shown.code == 0
    assert f"Usage: distgan {path}" in " ".join(shown.out.split())
    for parameter in command.params:
        for option in parameter.opts:
            if option.startswith("--"):
                assert option in shown.out


@pytest.mark.parametrize("group", ["", "data", "data render", "presets", "store"])
def test_a_group_alone_shows_its_help(cli: Cli, group: str) -> None:
    shown = cli(*group.split())
    assert "Usage: distgan" in shown.out + shown.err
    assert "Commands" in shown.out + shown.err


def test_help_is_light() -> None:
    """Help, presets as written, and the parsing of `train` need neither torch nor Ray."""
    script = """
import sys
from distgan.cli.main import main
for line in ("--help", "train --help", "data render bricks --help", "presets show quickstart"):
    sys.argv = ["distgan", *line.split()]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, line
print(sorted({"torch", "ray", "numpy", "s3fs", "matplotlib"} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
    assert run.stderr == ""


def test_the_module_runs_and_exits_with_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "distgan", "train", "quikstart"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=50, cwd=tmp_path, check=False)
    one_line(Result(run.returncode, run.stdout, run.stderr))
    assert list(tmp_path.iterdir()) == []


def test_our_own_mistakes_keep_their_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr("distgan.config.load.preset_text", broken)
    monkeypatch.setattr(sys, "argv", ["distgan", "presets", "show", "quickstart"])
    with pytest.raises(ZeroDivisionError):
        cli_main.main()


def test_ctrl_c_exits_with_130(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(name: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("distgan.config.load.preset_text", stopped)
    assert cli("presets", "show", "quickstart").code == 130


def test_presets(cli: Cli) -> None:
    listed = cli("presets", "list")
    assert listed.code == 0
    for name in preset_names():
        (row,) = [line for line in listed.out.splitlines() if f" {name} " in line]
        assert load_config(name).generator.network in row
        assert load_config(name).discriminator.network in row
        assert cli("presets", "show", name) == Result(0, preset_text(name), "")


DRY_RUNS = {
    "dcgan-bricks": (
        "generator: 3,574,656 parameters",
        "discriminator: 2,763,520 parameters",
        "1 x 128",
        "93,750 steps",
    ),
    "wgan-gp-faces": (
        "generator: 3,806,083 parameters",
        "discriminator: 2,764,737 parameters",
        "3 x 512",
        "3,298 steps",
    ),
}


@pytest.mark.parametrize("name", DRY_RUNS)
def test_a_dry_run_prints_counts_and_plan(cli: Cli, name: str) -> None:
    shown = cli("train", name, "--dry-run", "--workers", "3", "training.log_every=7")
    assert shown.code == 0, shown
    for words in DRY_RUNS[name]:
        assert words in shown.out
    assert "log_every: 7" in shown.out
    assert re.search(r"groups a worker\s+│ 1 to 2", shown.out)
    assert re.search(r"goes on from\s+│ the beginning", shown.out)
    assert "512x4x4" in shown.out


def test_a_dry_run_with_data_counts_epochs(cli: Cli, data: Path, tmp_path: Path) -> None:
    shown = cli("train", "quickstart", "--dry-run", f"data.url={data}", "training.kimg=1")
    assert "100 images at" in shown.out
    assert "10.0 epochs" in shown.out
    assert not (tmp_path / "runs" / "quickstart").exists()


def test_data_info(cli: Cli, data: Path) -> None:
    shown = cli("data", "info", str(data))
    assert shown.code == 0
    assert shown.out.splitlines()[0] == f"{data}: 100 images, 1x32x32"
    assert "3 classes, 100 labelled" in shown.out
    assert Index.load(Storage.open(str(data))).hash in shown.out


def test_pack_and_index_from_the_command_line(cli: Cli, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=np.zeros((5, 8, 8), np.uint8), labels=np.arange(5))
    packed = cli("data", "pack", "d.npz", "--format", "npz", "--out", "shards", "--size", "16", "--channels", "1")
    assert packed.code == 0, packed
    assert "5 images, 1x16x16" in packed.out
    assert json.loads((tmp_path / "shards" / "index.json").read_text())["classes"] == list("01234")
    (tmp_path / "shards" / "index.json").unlink()
    indexed = cli("data", "index", "shards")
    assert (indexed.code, indexed.out) == (0, packed.out)


def test_a_tiny_run_ends_with_its_summary(cli: Cli, data: Path, tmp_path: Path) -> None:
    tiny = ["generator.width=4", "discriminator.width=4", "training.batch_size=16", "training.kimg=0.032"]
    tiny += ["evaluation.at_start=false", "evaluation.samples=16", "evaluation.real_samples=16", "scale.threads=1"]
    threads = torch.get_num_threads()
    try:
        run = cli("train", "quickstart", f"data.url={data}", "--no-ray", "--name", "tiny", *tiny)
    finally:
        torch.set_num_threads(threads)
    assert run.code == 0, run
    assert f"run: {tmp_path}/runs/tiny" in run.out
    assert (tmp_path / "runs" / "tiny" / "summary.json").exists()
    sampled = cli("sample", "runs/tiny", "--count", "4", "--seed", "1", "--out", "out/four.png")
    assert sampled.code == 0, sampled
    assert "4 samples of" in sampled.out
    assert (tmp_path / "out" / "four.png").read_bytes().startswith(b"\x89PNG")
    changed = [*tiny[1:], "generator.width=8"]
    assert "generator.width" in one_line(cli("train", "quickstart", f"data.url={data}", "--name", "tiny", *changed))
