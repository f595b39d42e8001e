"""The discriminator's gap to held-out images, and augmentation that adapts to it: formulas, resumes, workers."""

from __future__ import annotations

import copy
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from distgan.config.load import load_config
from distgan.config.schema import Config
from distgan.data.dataset import Dataset
from distgan.data.preview import choose_samples
from distgan.distributed import Distributed
from distgan.errors import UserError
from distgan.losses.bce import BinaryCrossEntropy
from distgan.losses.rng import derive_seed
from distgan.losses.rpgan import RelativisticPairing
from distgan.losses.wgan import Wasserstein
from distgan.training import health as rules
from distgan.training import held_out as held_out_module
from distgan.training import loop as loop_module
from distgan.training.adaptive_augmentation import AdaptiveProbability, sign_accuracy
from distgan.training.events import StepMetrics
from distgan.training.health import WARM_UP, WINDOW, FailureMode, Health
from distgan.training.held_out import HeldOutImages, overfitting_gap
from distgan.training.progress import Progress
from gloo import run_workers
from runs import ALONE, BATCH, assert_same_bits, newest, pack_bricks, run, tiny_config
from steps import Batches, build_step, state_of, train_steps
from tape import TapeGraphs

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of bricks that the data set `data` does not have: fewer than are asked for."""
    return pack_bricks(tmp_path_factory.mktemp("held-out"), seed=1, samples=100)


@pytest.mark.parametrize(
    ("train", "held", "fake", "gap"),
    [
        (3.0, 3.0, -1.0, 0.0),
        (3.0, 2.0, -1.0, 0.25),
        (3.0, -1.0, -1.0, 1.0),
        (3.0, -2.0, -1.0, 1.0),
        (3.0, 3.5, -1.0, 0.0),
        (103.0, 102.0, 99.0, 0.25),
        (1.0, 0.0, 1.0, 0.0),
        (0.0, -1.0, 1.0, 0.0),
        (float("nan"), 0.0, 0.0, 0.0),
        (float("inf"), 0.0, 0.0, 0.0),
    ],
)
def test_the_gap_is_the_share_of_the_way_to_generated_images(
    train: float, held: float, fake: float, gap: float
) -> None:
    assert overfitting_gap(train, held, fake) == gap


def gap_config(data: str, held_out: str, *overrides: str) -> Config:
    dropout = "discriminator.dropout=0.5"
    return tiny_config(
        "quickstart", data, 1, f"data.held_out={held_out}", dropout, "training.precision=float64", *overrides
    )


def means_of(distributed: Distributed, config: Config) -> tuple[list[float], bool]:
    """The mean logits after two steps, and whether measuring them has changed networks, modes or random numbers."""
    step, networks = build_step(config, distributed)
    train_steps(step, Batches(config, step.groups.local), 0, 2)
    sets = [config.data, config.data.model_copy(update={"url": config.data.held_out})]
    images = HeldOutImages(config, step, *(Dataset.open(each, config.image_shape) for each in sets))
    before, random = state_of(networks), torch.get_rng_state()
    modes = [module.training for module in networks.discriminator.modules()]
    found: list[list[float]] = []
    with patch.object(held_out_module, "overfitting_gap", lambda *means: found.append(list(means))):
        images.gap(2, 2 * BATCH)
        images.gap(2, 2 * BATCH)
    after = state_of(networks)
    same = all(torch.equal(after[name], value) for name, value in before.items())
    same &= torch.equal(random, torch.get_rng_state()) and found[0] == found[1]
    return found[0], same and modes == [module.training for module in networks.discriminator.modules()]


def test_logits_are_measured_in_evaluation_mode_and_changes_nothing(data: str, held_out: str) -> None:
    """Against the literal formula, with as many latents as there are images."""
    config = gap_config(data, held_out, "training.batch_size=32")
    found, unchanged = means_of(ALONE, config)
    assert unchanged
    step, networks = build_step(config)
    train_steps(step, Batches(config, step.groups.local), 0, 2)
    networks.discriminator.eval()
    networks.generator.eval()
    means = []
    for url in (data, held_out):
        dataset = Dataset.open(config.data.model_copy(update={"url": url}), config.image_shape)
        chosen = choose_samples(dataset.index, None, 128, derive_seed(0, "gap images"))
        images = np.stack([image for _, image in dataset.images(np.sort(chosen))])
        means.append(networks.discriminator(torch.from_numpy(images).double() / 127.5 - 1).mean().item())
    latents = [step.inputs.contexts(2, 32)[chunk].normal("gap latents", 64, config.latent_dim) for chunk in range(2)]
    fake = networks.discriminator(networks.generator(torch.cat(latents))).mean().item()
    assert found == pytest.approx([*means, fake], abs=1e-9)
    assert len(set(found)) == 3


def test_logits_are_the_same_for_every_number_of_workers(data: str, held_out: str) -> None:
    config = gap_config(data, held_out, "training.augment=[ada]", "training.batch_size=64")
    alone, found = means_of(ALONE, config), run_workers(means_of, 2, config)
    assert all(unchanged for _, unchanged in (alone, *found))
    assert found[0][0] == found[1][0] == pytest.approx(alone[0], abs=1e-9)


def test_a_discriminator_overfits_after_four_windows() -> None:
    health = Health()
    gaps = [0.9, 0.6, 0.6, 0.6, 0.4, 0.6, 0.6, 0.6, 0.5, 0.9]
    begun: list[list[FailureMode]] = [
        health.add_gap(gap, WARM_UP + number * WINDOW, number) for number, gap in enumerate(gaps)
    ]
    assert begun == [[], [], [], [], [], [], [], [], ["discriminator overfits"], []]
    assert "50% of the way" in health.episodes["discriminator overfits"].seen


def adapting(target: float = 0.6, kimg: float = 1.0, bound: str = "1") -> Config:
    return load_config(
        "quickstart",
        [
            "training.augment=[ada]", f"training.augment_target={target}", f"training.augment_target_kimg={kimg}",
            f"training.augment_probability={bound}",
        ],
    )  # fmt: skip


def test_the_probability_moves_by_the_sign_of_real_logits() -> None:
    """An accuracy of 0.8 is a mean sign of 0.6."""
    config, adapted = adapting(), AdaptiveProbability()
    found = []
    for accuracy in (0.9, 0.7, 0.7, 0.8, 0.81, 0.95):
        for part in (accuracy - 0.05, accuracy + 0.05):
            adapted.add_steps([{"accuracy/real": part}] * 25, "accuracy/real")
        adapted.end_window(config, 400, 1.0, None)
        found.append(round(adapted.probability, 9))
    assert found == [0.4, 0.0, 0.0, 0.0, 0.4, 0.8]
    adapted.end_window(adapting(bound="{from: 0, to: 0.5, until_kimg: 2, shape: linear}"), 400, 1.0, 0.9)
    assert adapted.probability == 0.25
    adapted.end_window(config, 400, 1.0, 0.61)
    assert adapted.probability == 0.65


def test_which_signs_show_overfitting() -> None:
    assert sign_accuracy(BinaryCrossEntropy()) == "accuracy/real"
    assert sign_accuracy(RelativisticPairing()) == "accuracy/pairs"
    assert sign_accuracy(Wasserstein()) is None


def test_graphs_follow_the_adapted_probability() -> None:
    config = tiny_config(
        "quickstart", "none", 1, "training.augment=[translation]", "training.augment_target=0.6",
        "training.cuda_graphs=on", "optimizer.generator.lr=0.0009765625", "optimizer.discriminator.lr=0.0009765625",
    )  # fmt: skip
    states = []
    for graphs in (TapeGraphs(), None):
        step, networks = build_step(config, graph_backend=graphs)
        if graphs is not None:
            step.warm_up()
            assert graphs.captured
        batches, kept = Batches(config, step.groups.local), []
        for number, probability in enumerate((0.0, 1.0, 0.5)):
            assert step.adapted_probability is not None
            step.adapted_probability.value = probability
            train_steps(step, batches, number, 1)
            kept.append(state_of(networks))
        states.append(kept)
    for one, other in zip(*states, strict=True):
        assert all(torch.equal(value, other[name]) for name, value in one.items())


# Whole runs, with windows of five updates.

SHORT = 5
ADAPTED = [
    "training.augment=[translation]", "training.augment_target=0.5", "training.augment_target_kimg=0.4",
    "training.precision=float64",
    "training.log_every=1",
]  # fmt: skip


def probabilities(distributed: Distributed, config: Config, storage: str, name: str, *stops: int) -> list[float]:
    """Those that a run reports which is stopped after some steps, and resumed each time.

    So few steps leave no gap: here it is 1 where logits of training and held-out images differ at all.
    """
    with (
        patch.object(rules, "WINDOW", SHORT),
        patch.object(loop_module, "WINDOW", SHORT),
        patch.object(held_out_module, "overfitting_gap", lambda train, held, _: float(train != held)),
    ):
        sessions = [run(config, storage, name, distributed=distributed, stop_at=at)[1] for at in (*stops, None)]
    rows = [row for recorder in sessions for row in recorder.of(StepMetrics)]
    return [row.terms["augmentation/probability"] for row in rows]


@pytest.mark.parametrize("measure", ["signs", "held-out images"])
def test_an_adapted_run_is_resumed_to_the_bit_by_any_number_of_workers(
    measure: str, data: str, held_out: str, tmp_path: Path
) -> None:
    """Where it goes on measuring by the same images: other ones are refused."""
    address = {"signs": "null", "held-out images": held_out}
    config = tiny_config("quickstart", data, 18, *ADAPTED, f"data.held_out={address.pop(measure)}")
    storage = str(tmp_path)
    whole = probabilities(ALONE, config, storage, "whole")
    assert len(set(whole)) > 2
    assert probabilities(ALONE, config, storage, "stopped", 7, 10) == whole
    assert run_workers(probabilities, 2, config, storage, "two") == [whole, []]
    one, other, two = (newest(storage, name) for name in ("whole", "stopped", "two"))
    assert_same_bits(one, other)
    kept = one[1]["augmentation"]
    assert (kept["probability"], kept["updates"]) == (whole[-1], 3 if measure == "signs" else 0)
    assert two[1]["augmentation"] == pytest.approx(kept)
    (others,) = address.values()
    again = tiny_config("quickstart", data, 30, *ADAPTED, f"data.held_out={others}")
    with pytest.raises(UserError, match=r"has adapted the augmentation to .* set data\.held_out"):
        run(again, storage, "whole")


def test_a_run_without_either_is_kept_as_before(data: str, tmp_path: Path) -> None:
    progress = Progress()
    assert {"gap", "augmentation"}.isdisjoint(progress.as_dict())
    progress.gap, progress.augmentation = 0.25, AdaptiveProbability(0.5)
    assert Progress.from_dict(copy.deepcopy(progress.as_dict())) == progress
