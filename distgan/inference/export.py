"""Writes a trained generator for use elsewhere: safetensors, ONNX, or a program of torch.export."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from distgan.config.plugins import error_text
from distgan.config.schema import Config
from distgan.errors import UserError
from distgan.inference.exported import (
    CARD,
    CONFIG,
    WEIGHTS,
    ExportedConfig,
    config_bytes,
    described,
    example_inputs,
    find_generator,
    weights_bytes,
)
from distgan.inference.model_card import model_card
from distgan.inference.sampling import CPU, average_generator, checkpoint_config
from distgan.storage.storage import Storage
from distgan.training.checkpoints import Checkpoint

ExportFormat = Literal["safetensors", "onnx", "torch-export"]

FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)

# The file of each format.
FILES: dict[ExportFormat, str] = {"safetensors": WEIGHTS, "onnx": "model.onnx", "torch-export": "model.pt2"}

# The largest difference between a written program and the network, in images of [-1, 1].
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Export:
    """What was exported.

    Attributes:
        url: of the folder.
        files: their names.
        difference: the largest one between a program's images and the network's, of the formats that are programs.
    """

    url: str
    files: list[str]
    config: ExportedConfig
    difference: dict[str, float]


def export_generator(
    source: str,
    out: str,
    formats: Sequence[ExportFormat] = ("safetensors",),
    checkpoint: str | None = None,
    *,
    trust_code: bool = False,
) -> Export:
    """Writes the averaged generator of a run or checkpoint into the new folder `out`, or below a URL.

    The folder has a file for each format, `config.json` and a model card, `README.md`. Programs are run once and
    compared with the network.

    Args:
        source: folder or URL of a run, a checkpoint or an exported generator.
        formats: `safetensors` for `load_generator`; `onnx`, one file with its weights; `torch-export`, for
            `torch.export.load`. Both programs take any number of latents.
        checkpoint: `best`, `last` or a checkpoint's name, where `source` is a run.
        trust_code: modules outside distgan that the checkpoint names may be imported.

    Raises UserError where there is no checkpoint, `out` is not empty, or the network cannot be written so.
    """
    folder = Storage.open(out)
    if folder.list():
        raise UserError(f"{out}: the folder is not empty; give the name of a new one")
    found = find_generator(source, checkpoint, trust_code=trust_code)
    config = checkpoint_config(found, trust_code=trust_code)
    generator = average_generator(config, found, CPU)
    files: dict[str, bytes] = {}
    difference: dict[str, float] = {}
    for one in dict.fromkeys(formats):
        if one == "safetensors":
            files[FILES[one]] = weights_bytes(found.tensors["ema"])
        else:
            write, load = _PROGRAMS[one]
            files[FILES[one]], difference[one] = _program(one, generator.float(), config, write, load)
    return _write(folder, found, config, files, difference)


def _write(
    folder: Storage, checkpoint: Checkpoint, config: Config, files: dict[str, bytes], difference: dict[str, float]
) -> Export:
    description = described(checkpoint, config, files)
    written = {**files, CONFIG: config_bytes(description), CARD: model_card(description).encode()}
    for name, data in written.items():
        folder.write_bytes(name, data)
    return Export(folder.url, list(written), description, difference)


Inputs = tuple[Tensor, ...]

Run = Callable[[Inputs], Tensor]


def _program(
    kind: str,
    generator: nn.Module,
    config: Config,
    write: Callable[[nn.Module, Inputs, Path], None],
    load: Callable[[Path], Run],
) -> tuple[bytes, float]:
    """The file, and how far its images are from the network's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program"
        try:
            with _quiet():
                write(generator, example_inputs(config, 2, CPU), path)
                inputs = example_inputs(config, 5, CPU)
                found = load(path)(inputs)
        except ImportError as error:
            raise UserError(f"--format {kind} needs {error.name}; pip install 'distgan[export]'") from None
        except Exception as error:
            raise UserError(f"--format {kind}: torch cannot export this generator: {error_text(error):.300}") from error
        with torch.inference_mode():
            wanted = generator(*inputs)
        difference = float((found - wanted).abs().max())
        if not difference < _TOLERANCE:
            raise UserError(
                f"--format {kind}: the exported generator's images differ from the network's by {difference:.2g}, more "
                f"than {_TOLERANCE}; its network does something that depends on the number of images"
            )
        return path.read_bytes(), difference


def _any_count(inputs: Inputs) -> tuple[dict[int, torch.export.Dim], ...]:
    """The first dimension of each input is the number of images, and any."""
    count = torch.export.Dim("N")
    return tuple({0: count} for _ in inputs)


def _write_onnx(generator: nn.Module, inputs: Inputs, path: Path) -> None:
    import onnxscript  # noqa: F401 - torch's own error for it has three lines

    torch.onnx.export(
        generator,
        inputs,
        str(path),
        dynamo=True,
        external_data=False,
        input_names=["latents", "labels"][: len(inputs)],
        output_names=["images"],
        dynamic_shapes=_any_count(inputs),
        verbose=False,
    )


def _load_onnx(path: Path) -> Run:
    import onnxruntime  # type: ignore[import-untyped]

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(inputs: Inputs) -> Tensor:
        (images,) = session.run(None, {name: one.numpy() for name, one in zip(names, inputs, strict=True)})
        return torch.from_numpy(images)

    return run


def _write_program(generator: nn.Module, inputs: Inputs, path: Path) -> None:
    program = torch.export.export(generator, inputs, dynamic_shapes=_any_count(inputs))
    program.example_inputs = None  # they would be saved as a pickle
    with path.open("wb") as file:
        content = io.BytesIO()
        torch.export.save(program, content)
        file.write(content.getvalue())


def _load_program(path: Path) -> Run:
    program = torch.export.load(io.BytesIO(path.read_bytes())).module()

    def run(inputs: Inputs) -> Tensor:
        images: Tensor = program(*inputs)
        return images.detach()

    return run


_PROGRAMS = {
    "onnx": (_write_onnx, _load_onnx),
    "torch-export": (_write_program, _load_program),
}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' remarks on their own ways."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
