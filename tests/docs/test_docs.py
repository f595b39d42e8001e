"""The commands and the Python code of the documentation: all are checked, and those without a marker are run."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from PIL import Image

import distgan
from benchmarks.scale.__main__ import main as benchmarks_scale
from command_line import Cli
from distgan import api
from distgan.cli.main import UsageError, app, main
from distgan.config.describe import list_keys
from distgan.config.load import preset_names
from distgan.config.plugins import SOURCES
from distgan.errors import UserError
from distgan.evaluation.metrics.registry import parse_metrics
from distgan.search.parsing import parse_entry
from distgan.search.space_files import default_entries, read_entries
from doc_blocks import PAGES, ROOT, Block, blocks, commands, inline_code
from processes import TINY

pytestmark = pytest.mark.timeout(60)

BLOCKS = [block for page in PAGES for block in blocks(page)]

LANGUAGES = {"bash", "python", "text", "toml", "yaml", "{toctree}", "{include}"}

# Other tests run the blocks of these pages: tests/data/test_data_docs.py, tests/end_to_end/test_readme.py.
RUN_ELSEWHERE = {ROOT / "docs" / "guides" / "data-formats.md", ROOT / "README.md"}

RUN = [
    page
    for page in PAGES
    if page not in RUN_ELSEWHERE
    and any(block.language in ("bash", "python") and not block.why_not_run for block in blocks(page))
]


@cache
def known_keys() -> set[str]:
    """All configuration keys, their sections, and the parts of schedules."""
    keys = [key.key for key in list_keys()]
    keys += [f"{key.key}.until_kimg" for key in list_keys() if "schedule" in key.allowed]
    return {".".join(key.split(".")[:depth]) for key in keys for depth in range(1, 5)}


@cache
def root() -> Any:
    """The command line as a tree of commands."""
    return typer.main.get_command(app)


@pytest.fixture
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder. Modules in it and in `examples` can be imported, and are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    for folder in (ROOT / "examples", tmp_path):
        monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).parent in (ROOT / "examples", tmp_path):
            del sys.modules[name]


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_and_keys_exist(page: Path, own_modules: Path) -> None:
    found = blocks(page)
    for block in found:
        if block.file_name:
            (own_modules / block.file_name).write_text(block.text)
    for block in found:
        try:
            check_block(block)
        except Exception as error:
            raise AssertionError(f"{block}: {error}") from error
    for code in inline_code(page):
        check_inline(code)


@pytest.mark.parametrize(
    "wrong",
    [
        "distgan trian quickstart",
        "distgan train quickstart --no-rai",
        "distgan train dcgan data.url=bricks",
        "distgan train quickstart data.ulr=bricks",
        "distgan train quickstart training.kimg=many",
        "distgan train --from-trial search training.kmig=3",
        "distgan submit -- train quickstart --naem first",
        "distgan tune quickstart --space 'optimizer.generator.lr=loguniform(1)'",
        "distgan evaluate runs/first --metrics fd_lite1",
        "distgan data pack photos --format foldr --out mine",
        "distgan presets show quikstart",
        "distgan keys nothing",
        "torchrun --nproc-per-node 2 -m distgan train quickstart --workres 2",
        "sbatch --nodes=4 cluster/slurm/train.sbatch nothing",
        "cluster/local/begin 3",
        "make deom",
        "python -m benchmarks.nothing",
        "python examples/nothing.py",
        "x=1 distgan sample runs/first --cont 3 > grid.txt && echo",
    ],
)
def test_wrong_commands_are_found(wrong: str, own_modules: Path) -> None:
    with pytest.raises(Exception, match=r"\S") as found:
        check_block(Block(ROOT / "docs" / "page.md", 1, "bash", wrong, None))
    assert isinstance(found.value, AssertionError | UserError | UsageError), found.value


@pytest.mark.parametrize(
    "wrong", ["distgan nothing", "distgan train --nothing", "distgan data pakc", "training.kmig", "data.nothing=3"]
)
def test_wrong_inline_code_is_found(wrong: str) -> None:
    with pytest.raises(AssertionError):
        check_inline(wrong)


def check_block(block: Block) -> None:
    """Raises where a block names a command, an option, a preset, a key or a file that does not exist."""
    assert block.language in LANGUAGES, f"the language {block.language!r} of the block"
    if block.language == "python":
        compile(block.text, str(block), "exec")
    if block.language != "bash":
        return
    for command in commands(block.text):
        check_command(command.words)


def check_command(words: list[str]) -> None:
    program, rest = Path(words[0]), words[1:]
    if "distgan" in rest and rest[rest.index("distgan") - 1] == "-m":
        check_distgan(rest[rest.index("distgan") + 1 :])
    elif program.name == "distgan":
        check_distgan(rest)
    elif program.name == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(rest) <= set(targets), f"make {rest}"
    elif program.name.startswith("python") and rest[0] == "-m":
        assert find_spec(rest[1]), rest[1]
    elif program.name.startswith("python") and rest[0].endswith(".py"):
        assert (ROOT / rest[0]).is_file(), rest[0]
    elif program.name == "sbatch":
        script = next(index for index, word in enumerate(rest) if word.endswith(".sbatch"))
        assert (ROOT / rest[script]).is_file(), rest[script]
        check_distgan([Path(rest[script]).stem, *rest[script + 1 :]])
    elif program.parts[0] == "cluster":
        assert (ROOT / program).is_file(), program


def check_distgan(words: list[str]) -> None:
    """Raises where `distgan` would refuse to parse these words, or its configuration."""
    if words == ["--version"]:
        return
    name, command, rest = find_command(words)
    if name == "distgan submit" and "--" in rest:
        command.make_context(name, list(rest))
        check_distgan(rest[rest.index("--") + 1 :])
        return
    given = command.make_context(name, list(rest)).params
    if name in ("distgan train", "distgan tune"):
        check_configuration(given["config"], list(given["overrides"] or ()))
    if name == "distgan tune" and not given["results"]:
        entries = read_entries(given["space"]) if given["space"] else default_entries(given["config"])
        for key, expression in entries.items():
            parse_entry(key, expression)
            assert key in known_keys(), key
    if name == "distgan evaluate" and given["metrics"]:
        parse_metrics(given["metrics"])
    if name == "distgan data pack":
        SOURCES.resolve(given["format"] if "format" in given else given["format_name"])
    if name == "distgan presets show":
        assert given["name"] in preset_names(), given["name"]
    if name == "distgan keys":
        list_keys(given["wanted"])


def find_command(words: list[str]) -> tuple[str, Any, list[str]]:
    """The command that words begin with: its whole name, the command, and the words after it."""
    name, command = "distgan", root()
    context = command.make_context(name, [], resilient_parsing=True)
    words = list(words)
    while hasattr(command, "list_commands") and words:
        found = command.get_command(context, words[0])
        assert found is not None, f"{name} has no command {words[0]!r}"
        name, command = f"{name} {words.pop(0)}", found
    return name, command, words


def check_configuration(preset_or_file: str | None, overrides: list[str]) -> None:
    if preset_or_file is not None and "=" in preset_or_file:  # in the place of a preset, after --from-trial
        preset_or_file, overrides = None, [preset_or_file, *overrides]
    if preset_or_file in preset_names():
        api.load_config(preset_or_file, overrides)
    elif preset_or_file is not None and (ROOT / preset_or_file).is_file():
        api.load_config(ROOT / preset_or_file, overrides)
    else:
        assert preset_or_file is None or preset_or_file.endswith(".yaml"), preset_or_file
        for override in overrides:
            assert override.partition("=")[0] in known_keys(), override


def check_inline(code: str) -> None:
    """Raises where inline code names a command, an option or a key that does not exist."""
    words = code.split()
    if words[0] == "distgan" and len(words) > 1 and re.fullmatch("[a-z]+", words[1]):
        name, command, _ = find_command(list(takewhile(re.compile("[a-z]+").fullmatch, words[1:])))
        options = {option for parameter in command.params for option in parameter.opts}
        for word in words if "--" not in words else words[: words.index("--")]:
            assert not word.startswith("--") or word in options, f"{code}: {name} has no option {word}"
    key = re.match(r"[a-z_]+(\.[a-z_0-9]+)+(?==|$)", code)
    sections = {"generator", "discriminator", "objective", "optimizer", "ema", "training", "data", "evaluation"}
    sections |= {"health", "checkpoint", "scale", "placement"}
    if key and key[0].partition(".")[0] in sections and not key[0].endswith((".py", ".md", ".svg")):
        assert key[0] in known_keys(), code


def test_links_lead_to_files_and_headings() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
            path, _, anchor = target.partition("#")
            if "://" in target:
                continue
            file = page.parent / path if path else page
            assert file.exists(), f"{page}: {target}"
            if anchor:
                assert anchor in headings(file), f"{page}: {target}"


def headings(page: Path) -> set[str]:
    lines = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.fixture(scope="module")
def reader_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pages take for granted, in miniature: data sets, photographs, a run, samples."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "examples").symlink_to(ROOT / "examples")
    rng = np.random.default_rng(0)
    for name, size, channels in (("photos", 40, 3), ("portraits", 64, 3)):
        for number in range(48):
            place = folder / name / f"class {number % 2}" / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (size, size, channels), np.uint8)).save(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("OMP_NUM_THREADS", "1")  # two threads of several test processes wait for each other
        for command in (
            "data render bricks --out bricks --samples 4096 --size 32",
            "data pack portraits --format folder --size 64 --out faces",
            "train quickstart data.url=bricks --no-ray --name first",
            "sample runs/first --count 4096 --out samples.npz",
        ):
            patch.setattr(sys, "argv", ["distgan", *in_miniature(command.split())])
            with pytest.raises(SystemExit) as ended:
                main()
            assert not ended.value.code, command
    return folder


def in_miniature(words: list[str]) -> list[str]:
    """The same command with few images and small networks."""
    if words[0] == "train":
        given = {name: value for name, _, value in (word.partition("=") for word in words)}
        small = dict(word.split("=") for word in TINY if not word.startswith("image_size")) | SMALLER
        small["training.kimg"] = f"{max(float(given.get('training.kimg', 240)) / 800, 0.2):g}"
        if "evaluation.patience" in given:
            del small["evaluation.patience"]
        return [*words, *(f"{key}={value}" for key, value in small.items())]
    return ["96" if word.isdigit() and int(word) > 1000 else word for word in words]


SMALLER = {"training.batch_size": "16", "evaluation.every_kimg": "0.2", "evaluation.samples": "64"}
SMALLER |= {"evaluation.real_samples": "64", "checkpoint.every_kimg": "null"}


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", RUN, ids=page_name)
def test_blocks_run(
    page: Path, cli: Cli, own_modules: Path, reader_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the page, each command and each Python block, in miniature."""
    shutil.copytree(reader_folder, own_modules, symlinks=True, dirs_exist_ok=True)
    load_config = distgan.load_config

    def small(preset: Any, *overrides: Any, **sections: Any) -> Any:
        return load_config(load_config(preset, *overrides, **sections), in_miniature(["train"])[1:])

    monkeypatch.setattr(distgan, "load_config", small)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    names: dict[str, Any] = {}
    for block in blocks(page):
        if block.why_not_run:
            continue
        if block.file_name:
            (own_modules / block.file_name).write_text(block.text)
        elif block.language == "python":
            exec(compile(block.text, str(block), "exec"), names)
        elif block.language == "bash":
            run_shell(block, cli)


def run_shell(block: Block, cli: Cli) -> None:
    for command in commands(block.text):
        program, *rest = command.words
        if program == "export" and rest == ["PYTHONPATH=$PWD/examples"]:
            continue  # in sys.path
        if program == "python" and rest[:2] == ["-m", "benchmarks.scale"]:
            benchmarks_scale(rest[2:])
            continue
        assert program == "distgan", f"{block}: {program} is not run here; mark the block"
        if rest[0] == "data" and "--out" in rest:
            shutil.rmtree(rest[rest.index("--out") + 1], ignore_errors=True)  # the reader's own from another page
        done = cli(*in_miniature(rest))
        assert done.code == 0, f"{block}: {command.words}: {done}"
        if command.output:
            Path(command.output).write_text(done.out)


def test_blocks_without_a_marker_are_run() -> None:
    """Every page whose blocks are not all marked is run above or by another test."""
    unmarked = {block.page for block in BLOCKS if block.language in ("bash", "python") and not block.why_not_run}
    assert unmarked == {*RUN, *(page for page in RUN_ELSEWHERE if page in unmarked)}
