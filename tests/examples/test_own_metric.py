"""A metric in a module of a user's own (examples/vendi_metric.py): computed, monitored, and not run for a stranger."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from distgan.config.load import load_config
from distgan.errors import UserError
from distgan.evaluation.feature_statistics import GaussianStatistics
from distgan.evaluation.metrics.metric import MeanStd, Metric, MetricInputs
from distgan.evaluation.metrics.registry import compute_metrics, metric_name, parse_metrics
from distgan.inference.evaluation import EvaluationReport, evaluate
from distgan.inference.evaluation_plan import EvaluationOptions, plan_evaluation
from distgan.inference.generator import load_generator
from distgan.training.starting_point import find_checkpoint
from runs import ALONE, run, tiny_config

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("one_thread")]

EXAMPLES = str(Path(__file__).parents[2] / "examples")
VENDI = "vendi_metric:Vendi"
KEYS = [f"evaluation.metrics=[{VENDI}]", f"evaluation.monitor={VENDI}", "evaluation.every_kimg=0.016"]


class Listed(Metric):
    name = "listed"

    def compute(self, inputs: MetricInputs) -> float:
        return [1.0]  # type: ignore[return-value]


class Raising(Listed):
    def compute(self, inputs: MetricInputs) -> float:
        raise KeyError("no such layer")


class Infinite(Listed):
    def compute(self, inputs: MetricInputs) -> MeanStd:  # type: ignore[override]
        return MeanStd(1.0, math.inf)


class Taken(Listed):
    name = "kid"


class NoMetric:
    name = "none"


@pytest.fixture(autouse=True)
def examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Python finds the examples; the module is imported anew."""
    monkeypatch.setattr(sys, "path", [*sys.path, EXAMPLES])
    sys.modules.pop("vendi_metric", None)
    yield
    sys.modules.pop("vendi_metric", None)


@pytest.fixture(scope="module")
def trained(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two steps that monitors the metric."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, EXAMPLES])
        run(tiny_config("quickstart", data, 2, *KEYS), str(folder))
    return folder / "run"


def inputs_of(fake: torch.Tensor) -> MetricInputs:
    nothing = GaussianStatistics(torch.zeros(1), torch.zeros(1, 1), 0)
    return MetricInputs(nothing, nothing, fake, torch.empty(0))


def report_of(url: str, options: EvaluationOptions | None = None) -> EvaluationReport:
    return evaluate(plan_evaluation(url, options or EvaluationOptions()), ALONE)


def test_the_example_is_the_formula() -> None:
    fake = torch.randn(7, 20, generator=torch.Generator().manual_seed(0))
    rows = (fake / fake.norm(dim=1, keepdim=True)).double().numpy()
    eigenvalues = np.linalg.eigvalsh(rows @ rows.T / 7)
    wanted = math.exp(-sum(value * math.log(value) for value in eigenvalues))
    found = compute_metrics([VENDI], inputs_of(fake))
    assert found.values == {VENDI: pytest.approx(wanted, rel=1e-6)}
    assert found.seconds.keys() == {"vendi"}
    alike, orthogonal = torch.ones(5, 9), torch.eye(9)
    assert compute_metrics([VENDI], inputs_of(alike)).values[VENDI] == pytest.approx(1)
    assert compute_metrics([VENDI], inputs_of(orthogonal)).values[VENDI] == pytest.approx(9)
    assert metric_name(VENDI, "fd_lite0", 2048) == "vendi_lite0_2k"
    assert parse_metrics(f"kid,{VENDI}").metrics == ("kernel", VENDI)


def test_a_run_is_judged_by_it(trained: Path) -> None:
    first, second = find_checkpoint(str(trained), "last").manifest.progress["evaluations"]
    best = max((first, second), key=lambda one: one["more"][VENDI])
    assert find_checkpoint(str(trained), trust_code=True).manifest.progress["step"] == best["step"]
    report = report_of(str(trained), EvaluationOptions(metrics=f"frechet,{VENDI}", trust_code=True))
    assert [one.name for one in report.metrics] == ["fd_lite0_16", "vendi_lite0_16"]
    assert report.metrics[1].value == best["more"][VENDI]


def test_it_is_not_run_for_who_does_not_trust_it(trained: Path) -> None:
    """The best checkpoint is its choice; another one needs no trust, since samples and other metrics do not."""
    for call in (load_generator, report_of):
        with pytest.raises(UserError, match=r"a module outside distgan \(vendi_metric:Vendi\) says which .*--t"):
            call(str(trained))
    assert len(load_generator(str(trained), "last").sample(2)) == 2
    report_of(str(trained), EvaluationOptions(checkpoint="last"))
    assert "vendi_metric" not in sys.modules


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Raising", r"it raised KeyError: 'no such layer' \(test_own_metric.py, line \d+\)"),
        ("Listed", r"it computed \[1.0\]; return a finite float, or a MeanStd"),
        ("Infinite", "it computed MeanStd.*; return a finite float"),
        ("Taken", "another metric is called 'kid'"),
        ("NoMetric", "it must be a subclass of distgan.evaluation.metrics.metric.Metric"),
    ],
)
def test_one_that_is_wrong_is_one_line(name: str, message: str) -> None:
    with pytest.raises(UserError, match=rf"evaluation.metrics=test_own_metric:{name}: {message}") as raised:
        compute_metrics([f"test_own_metric:{name}"], inputs_of(torch.ones(2, 2)))
    assert "\n" not in str(raised.value)


def test_one_that_is_not_there_is_told_when_the_configuration_is_read() -> None:
    with pytest.raises(UserError, match=r"evaluation\.metrics: nowhere:Vendi: there is no module 'nowhere'"):
        load_config("quickstart", ["evaluation.metrics=[nowhere:Vendi]"])
