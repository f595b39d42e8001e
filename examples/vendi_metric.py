"""A metric of your own: the Vendi score, how many different images there seem to be among the samples.

    distgan evaluate RUN --metrics vendi_metric:Vendi
    distgan train quickstart data.url=URL "evaluation.metrics=[vendi_metric:Vendi]"

Python must find this file: run the command in its folder, or name the folder in PYTHONPATH.
"""

from __future__ import annotations

import torch

from distgan.evaluation.metrics.metric import Metric, MetricInputs


class Vendi(Metric):
    """exp of the entropy of the eigenvalues of K / n, with K the cosine similarities of n samples' features.

    From 1, all samples alike, to n, all orthogonal. Friedman and Dieng, "The Vendi Score: A Diversity Evaluation Metric
    for Machine Learning" (2023). K / n = X Xᵀ has the eigenvalues of XᵀX and zeros.
    """

    name = "vendi"
    higher_is_better = True
    needs = ("features",)

    def compute(self, inputs: MetricInputs) -> float:
        features = torch.nn.functional.normalize(inputs.fake_features.double()) / len(inputs.fake_features) ** 0.5
        eigenvalues = torch.linalg.eigvalsh(features.T @ features).clamp(min=0)
        return float(torch.special.entr(eigenvalues).sum().exp())
