"""The model card of an exported generator, in the form of the Hugging Face hub."""

from __future__ import annotations

from distgan.inference.exported import WEIGHTS, ExportedConfig
from distgan.tracking.formatting import kimg_count, number

# Where the card stands; a push writes the model's URL there.
PLACE = "THIS_FOLDER"

FILL_IN = "fill in"


def model_card(config: ExportedConfig) -> str:
    """Markdown: what the generator was trained with and how well, how it is loaded, and a license to fill in."""
    _, channels, size, _ = config.images
    recipe = config.config
    task = "" if config.num_classes is not None else "\npipeline_tag: unconditional-image-generation"
    labels = "" if config.num_classes is None else f", of {config.num_classes} classes"
    return f"""---
library_name: distgan{task}
tags: [gan, {recipe["generator"]["network"]!s:.60}]
license: other
---

# A generator of {size}x{size} images{labels}

Trained by distgan {config.distgan} for {kimg_count(config.kimg)} kimg with the objective
`{recipe["objective"]["name"]}`; this is the moving average of the generator's weights at step {config.step:,}.
The recipe is {recipe["description"]}. `config.json` has all its keys.

- data set: {FILL_IN} what it was trained on, and its license
- license: {FILL_IN}, here and above

{_measured(config)}
## Use

It maps latents, normal numbers (N, {config.latents[1]}){_labels(config)}, to images (N, {channels}, {size}, {size}) in
[-1, 1].

{_usage(config)}"""


def _measured(config: ExportedConfig) -> str:
    if not config.metrics:
        return "This checkpoint was not evaluated.\n"
    rows = "\n".join(f"| `{name}` | {number(value)} |" for name, value in config.metrics.items())
    return f"| metric | value |\n| --- | --- |\n{rows}\n"


def _labels(config: ExportedConfig) -> str:
    if config.num_classes is None:
        return ""
    names = f" ({', '.join(config.classes)})" if 0 < len(config.classes) <= 20 else ""
    return f", and labels, int64 (N,) from 0 to {config.num_classes - 1}{names}"


def _usage(config: ExportedConfig) -> str:
    parts = []
    labels = config.num_classes is not None
    if WEIGHTS in config.files:
        parts.append(f"""```python
import distgan

distgan.load_generator("{PLACE}").sample(64).grid().save("grid.png")
```
""")
    if "model.onnx" in config.files:
        more = ', "labels": np.zeros(64, np.int64)' if labels else ""
        parts.append(f"""```python
import numpy as np
import onnxruntime

latents = np.random.default_rng(0).standard_normal((64, {config.latents[1]}), np.float32)
images, = onnxruntime.InferenceSession("model.onnx").run(None, {{"latents": latents{more}}})
```
""")
    if "model.pt2" in config.files:
        more = ", torch.zeros(64, dtype=torch.int64)" if labels else ""
        parts.append(f"""```python
import torch

images = torch.export.load("model.pt2").module()(torch.randn(64, {config.latents[1]}){more})
```
""")
    return "\n".join(parts)
