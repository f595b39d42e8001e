"""The Inception Score: how sure a classifier is of each image, and how much its answers differ.

Salimans et al., "Improved Techniques for Training GANs" (2016).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from distgan.errors import UserError
from distgan.evaluation.metrics.metric import MeanStd, Metric, MetricInputs

SPLITS = 10

# torch-fidelity's.
_SEED = 2020


class InceptionScore(Metric):
    """Mean and standard deviation over 10 splits of the images; from 1 up to the number of classes."""

    name = "inception_score"
    aliases = ("is",)
    higher_is_better = True
    needs = ("logits",)
    min_images = SPLITS
    inception_label = "is"

    def compute(self, inputs: MetricInputs) -> MeanStd:
        return inception_score(inputs.logits)


def inception_score(logits: Tensor, splits: int = SPLITS) -> MeanStd:
    """Of logits (N, classes), N at least `splits`: exp of the mean KL(p(y|x) || p(y)) of each split.

    The logits are permuted first, always in the same way: splits of a folder that is sorted by class would have few
    classes each. The splits are those of `numpy.array_split`.
    """
    if len(logits) < splits:
        raise UserError(f"an Inception Score of {splits} splits needs as many images, not {len(logits)}")
    order = torch.from_numpy(np.random.RandomState(_SEED).permutation(len(logits)))
    scores = []
    for part in torch.tensor_split(logits[order.to(logits.device)].double().log_softmax(1), splits):
        marginal = part.exp().mean(0)
        divergence = (part.exp() * (part - marginal.log())).nan_to_num(0.0).sum(1)
        scores.append(divergence.mean().exp())
    values = torch.stack(scores)
    return MeanStd(float(values.mean()), float(values.std(correction=0)))
