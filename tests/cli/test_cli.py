"""The command line: help at once, exit codes, and what the light commands print (mistakes: test_bad_input.py)."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
import yaml
from PIL import Image
from typer.core import TyperCommand, TyperGroup

from command_line import Cli, Result, one_line
from distgan import __version__
from distgan.cli import main as cli_main
from distgan.config.load import load_config, preset_names, preset_text
from distgan.data.index import Index
from distgan.errors import UserError
from distgan.launch.local import check_device
from distgan.storage.storage import Storage
from distgan.training.starting_point import find_checkpoint
from packing import gray, write_foreign
from processes import TINY, listening
from toy_data import pack_numbered

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 gray images of 32x32 pixels."""
    folder = tmp_path_factory.mktemp("data") / "numbered"
    pack_numbered(folder, 100, size=32)
    return folder


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


def test_help_lists_commands_in_the_order_in_which_they_are_needed(cli: Cli) -> None:
    order = [
        "data",
        "train",
        "sample",
        "evaluate",
        "export",
        "push",
        "report",
        "runs",
        "tune",
        "presets",
        "keys",
        "submit",
        "jobs",
        "doctor",
        "store",
    ]
    group = typer.main.get_command(cli_main.app)
    assert isinstance(group, TyperGroup)
    assert set(group.commands) == set(order)
    rows = re.findall(r"^│ (\w+) ", cli("--help").out, flags=re.MULTILINE)
    assert [row for row in rows if row in order] == order


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
    assert "Commands" in shown.out + shown.err or "Configuration" in shown.out + shown.err


def test_help_is_light() -> None:
    """Help, presets as written, and the parsing of `train` need neither torch nor Ray nor anything else of weight."""
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


def test_processes_that_encode_images_do_without_torch() -> None:
    """They import the module of `pack`, each anew."""
    script = "import sys, distgan.data.pack; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=True)
    assert run.stdout.strip() == "False"


def test_what_looks_at_data_or_checks_a_configuration_is_as_light_as_is_said(data: Path) -> None:
    """As the README has it: `data info` and `data verify` without torch, the checks of a configuration without Ray."""
    script = """
import sys
from distgan.cli.main import main
url = sys.argv[1]
lines = {"data info": "torch", "data verify": "torch", "train quickstart --dry-run": "ray"}
for line, heavy in lines.items():
    sys.argv = ["distgan", *line.split(), url if heavy == "torch" else f"data.url={url}"]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, line
    assert not {heavy, "ray"} & set(sys.modules), line
"""
    subprocess.run([sys.executable, "-c", script, str(data)], capture_output=True, timeout=50, check=True)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [(["--name", "first"], "quickstart, run first in runs: loading torch"), (["--dry-run"], "# dry run of quickstart")],
)
def test_the_first_words_of_a_run_come_before_torch(arguments: list[str], line: str) -> None:
    script = """
import sys
from distgan.cli.main import main
sys.modules["torch"] = None
main()
"""
    command = [sys.executable, "-c", script, "train", "quickstart", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert run.stdout.startswith(line)
    assert run.stdout.count("\n") == 1
    assert "import of torch halted" in run.stderr


def test_the_first_words_of_a_run_repeat_no_password(cli: Cli) -> None:
    for arguments in (["s3://me:secret@b/config.yaml"], ["quickstart", "--storage", "s3://me:secret@b/runs"]):
        for dry in ([], ["--dry-run"]):
            result = cli("train", *arguments, *dry)
            assert result.code == 2
            assert "secret" not in result.out + result.err


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
        assert words in shown.err
    assert "log_every: 7" in shown.out
    assert re.search(r"groups per worker\s+│ 1 to 2", shown.err)
    assert re.search(r"starts from\s+│ random weights", shown.err)
    assert "512x4x4" in shown.err


def test_a_range_of_workers_and_one_number_after_it(cli: Cli, tmp_path: Path) -> None:
    shown = cli("train", "quickstart", "--dry-run", "--workers", "1:2")
    assert re.search(r"workers\s+│ 1 to 2 ", shown.err), shown
    (tmp_path / "f.yaml").write_text(shown.out)
    config = load_config(str(tmp_path / "f.yaml"))
    assert (config.scale.min_workers, config.scale.workers) == (1, 2)
    again = cli("train", str(tmp_path / "f.yaml"), "--dry-run", "--workers", "2")
    assert "min_workers: null" in again.out


def test_what_a_dry_run_prints_is_a_configuration(cli: Cli, data: Path, tmp_path: Path) -> None:
    given = ["--workers", "2", "training.log_every=7", f"data.url={data.name}", "data.cache_dir=cache"]
    (tmp_path / data.name).symlink_to(data)
    printed = cli("train", "quickstart", "--dry-run", *given)
    assert printed.code == 0, printed
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "f.yaml").write_text(printed.out)
    config = load_config(str(tmp_path / "again" / "f.yaml"))
    assert (config.scale.workers, config.training.log_every) == (2, 7)
    assert (config.data.url, config.data.cache_dir) == (f"{tmp_path}/{data.name}", f"{tmp_path}/cache")
    again = cli("train", "again/f.yaml", "--dry-run")
    assert yaml.safe_load(again.out) == yaml.safe_load(printed.out)


@pytest.mark.parametrize("started", [[], ["--no-ray"]])
def test_gpus_that_are_not_there_are_missed_by_a_dry_run_too(
    cli: Cli, started: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    command = ["train", "quickstart", "scale.device=cuda", *started]
    said = "scale.device=cuda: this machine has no usable GPU; use scale.device=auto or cpu"
    assert one_line(cli(*command, "--dry-run")) == one_line(cli(*command)) == said


def test_the_gpus_of_a_cluster_are_not_known_before_the_start(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["train", "quickstart", "scale.device=cuda", "--dry-run"]
    shown = cli(*command, "--address", "head:6379")
    assert shown.code == 0, shown
    assert "whether Ray at head:6379 has a GPU for each worker is known at the start only" in shown.err
    monkeypatch.setenv("RAY_ADDRESS", "other:6379")
    assert "whether Ray at other:6379" in cli(*command).err


@pytest.mark.parametrize(("gpus", "workers", "device"), [(0, 1, "cpu"), (1, 1, "cuda"), (1, 2, "cpu"), (2, 2, "cuda")])
def test_auto_takes_gpus_where_each_worker_has_one(
    gpus: int, workers: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    assert check_device("auto", workers, None, no_ray=False) == device
    assert check_device("cpu", workers, "head:6379", no_ray=False) == "cpu"
    if gpus < workers:
        with pytest.raises(UserError, match=r"scale\.device=cuda.*this machine has"):
            check_device("cuda", workers, "local", no_ray=False)


def test_a_dry_run_with_data_counts_epochs(cli: Cli, data: Path, tmp_path: Path) -> None:
    shown = cli("train", "quickstart", "--dry-run", f"data.url={data}", "training.kimg=1")
    assert "100 images at" in shown.err
    assert "10.0 epochs" in shown.err
    assert not (tmp_path / "runs" / "quickstart").exists()


def test_data_info(cli: Cli, data: Path) -> None:
    shown = cli("data", "info", str(data))
    assert shown.code == 0
    assert shown.out.splitlines()[0] == f"{data}: 100 images, 1x32x32"
    assert "3 classes, 100 labeled" in shown.out
    assert Index.load(Storage.open(str(data))).hash in shown.out


def test_a_data_set_in_a_bucket(cli: Cli, bucket: str) -> None:
    url = f"{bucket}/bricks"
    result = cli("data", "render", "bricks", "--out", url, "--samples", "40", "--size", "16")
    assert result.code == 0, result
    assert f"{url}: 40 images, 1x16x16" in result.out
    assert cli("data", "verify", url).out == f"{url}: 40 samples, all as the index says\n"


def test_pack_and_index_from_the_command_line(cli: Cli, tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", images=np.zeros((5, 8, 8), np.uint8), labels=np.arange(5))
    packed = cli("data", "pack", "d.npz", "--format", "npz", "--out", "shards", "--size", "16", "--channels", "1")
    assert packed.code == 0, packed
    assert "5 images, 1x16x16" in packed.out
    assert json.loads((tmp_path / "shards" / "index.json").read_text())["classes"] == list("01234")
    (tmp_path / "shards" / "index.json").unlink()
    indexed = cli("data", "index", "shards")
    assert (indexed.code, indexed.out) == (0, packed.out)


def test_index_and_info_say_where_labels_lie_sorted(cli: Cli, tmp_path: Path) -> None:
    labels = [number // 20 for number in range(60)]
    write_foreign(tmp_path / "sorted.tar", [{"png": gray(n, "PNG"), "cls": label} for n, label in enumerate(labels)])
    for command in ("index", "info"):
        told = [line for line in cli("data", command, ".").out.splitlines() if "sorted" in line]
        assert len(told) == 1
        assert re.fullmatch(r"warning: the labels are sorted, .*`distgan data pack`.* data\.streams .*", told[0])


def test_the_configuration_of_a_run_in_a_bucket(cli: Cli, bucket: str) -> None:
    url = f"{bucket}/first/config.yaml"
    assert one_line(cli("train", url)).startswith(f"{url}: no such file")
    printed = cli("train", "quickstart", "--dry-run", "seed=7").out
    Storage.open(bucket).write_bytes("first/config.yaml", printed.encode())
    again = cli("train", url, "--dry-run", "training.kimg=9").out
    assert yaml.safe_load(again)["seed"] == 7
    assert yaml.safe_load(again)["training"]["kimg"] == 9
    Storage.open(bucket).write_bytes("first/config.yaml", b"generator: {network: 'os:system'}")
    assert "os:system" in one_line(cli("train", url, "--dry-run"))
    Storage.open(bucket).write_bytes("first/config.yaml", b"seed: \xff")
    assert "utf-8" in one_line(cli("train", url))


def test_what_is_left_out_is_said(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(9):
        image = Image.new("L", (20, 10), 9)
        image.save(tmp_path / "photos" / f"{number}.png")
        (tmp_path / "photos" / f"{number}.txt").write_text("")
    for number in range(7):
        (tmp_path / "photos" / f"bad-{number}.jpg").write_bytes(b"x")
    (tmp_path / "photos" / "film.m\udce9").write_bytes(b"")
    pack = ["data", "pack", "photos", "--format", "folder", "--size", "16", "--fit", "pad", "--background", "#808080"]
    failed = one_line(cli(*pack, "--out", "new/one"))
    assert re.fullmatch(r"photos/bad-\d\.jpg: not a readable image: unknown format; --bad skip leaves .*", failed)
    assert not (tmp_path / "new").exists()
    lines = cli(*pack, "--out", "new/one", "--bad", "skip").out.splitlines()
    assert lines[0] == "new/one: 9 images, 3x16x16"
    assert lines[4] == "7 bad samples left out:"
    assert all(
        re.fullmatch(r"  photos/bad-\d\.jpg: not a readable image: unknown format", line) for line in lines[5:10]
    )
    assert lines[10:] == ["  and 2 more", r"10 files left out: 9 .txt, 1 .m\udce9"]
    shutil.copytree(tmp_path / "new" / "one", tmp_path / "again")
    with tarfile.open(tmp_path / "again" / "shard-00000.tar", "a") as archive:
        archive.add(tmp_path / "photos" / "bad-0.jpg", "bad-0.jpg")
    assert "; --bad skip leaves such samples out" in one_line(cli("data", "index", "again"))
    indexed = cli("data", "index", "again", "--bad", "skip").out.splitlines()
    assert indexed[0] == "again: 9 images, 3x16x16"
    assert indexed[4:] == [
        "1 bad sample left out:",
        "  shard-00000.tar: bad-0.jpg: not a readable image: unknown format",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], ["2 images are not square and were stretched; --fit crop or --fit pad keeps the proportions"]),
        (["--fit", "crop"], []),
        (["--fit", "pad"], []),
        (["--crop", "9"], []),
    ],
)
def test_stretched_images_are_counted(cli: Cli, tmp_path: Path, arguments: list[str], said: list[str]) -> None:
    (tmp_path / "photos").mkdir()
    for size in ((20, 10), (9, 20), (10, 10), (10, 11)):
        Image.new("L", size).save(tmp_path / "photos" / f"{size[0]}x{size[1]}.png")
    result = cli("data", "pack", "photos", "--format", "folder", "--size", "16", "--out", "packed", *arguments)
    assert (result.code, result.out.splitlines()[4:]) == (0, said)


def test_a_tiny_run_ends_with_its_summary(cli: Cli, data: Path, tmp_path: Path) -> None:
    tiny = ["generator.width=4", "discriminator.width=4", "training.batch_size=16", "training.kimg=0.032"]
    tiny += ["evaluation.at_start=false", "evaluation.samples=16", "evaluation.real_samples=16", "scale.threads=1"]
    command = ["train", "quickstart", f"data.url={data}", "--no-ray", "--name", "tiny", *tiny]
    run = cli(*command)
    assert run.code == 0, run
    assert f"run: {tmp_path}/runs/tiny" in run.out
    summary = (tmp_path / "runs" / "tiny" / "summary.json").read_bytes()
    assert json.loads(summary)["seconds"]["training"] > 0
    assert cli(*command).code == 0
    assert (tmp_path / "runs" / "tiny" / "summary.json").read_bytes() == summary
    written = tmp_path / "runs" / "tiny" / "config.yaml"
    assert load_config(str(written)) == load_config("quickstart", [f"data.url={data}", *tiny])
    assert cli("train", str(written), "--no-ray", "--name", "anew").code == 0
    states = [find_checkpoint(f"runs/{name}").tensors["ema"] for name in ("tiny", "anew")]
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key])
    sampled = cli("sample", "runs/tiny", "--count", "4", "--seed", "1", "--out", "out/four.png")
    assert sampled.code == 0, sampled
    assert "4 samples of" in sampled.out
    assert (tmp_path / "out" / "four.png").read_bytes().startswith(b"\x89PNG")
    changed = [*tiny[1:], "generator.width=8"]
    assert "generator.width" in one_line(cli("train", "quickstart", f"data.url={data}", "--name", "tiny", *changed))


def test_a_run_of_one_process_listens_nowhere(
    cli: Cli, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, write = listening(os.getpid()), Storage.write_bytes
    found: list[set[tuple[str, str]]] = []

    def watched(self: Storage, name: str, content: bytes) -> None:
        found.append(listening(os.getpid()))
        write(self, name, content)

    monkeypatch.setattr(Storage, "write_bytes", watched)
    budget = ["image_size=32", "training.kimg=0.064", "evaluation.every_kimg=0.064", "checkpoint.every_kimg=0.032"]
    command = ["train", "quickstart", f"data.url={data}", *TINY, *budget, "--no-ray", "--storage", str(tmp_path)]
    assert cli(*command).code == 0
    assert len(found) > 2
    assert all(one <= before for one in found)
