"""The model of throughput: its limits, and that it counts what the code really does."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.scale import __main__ as scale
from benchmarks.scale import check, page
from benchmarks.scale.counting import run_of
from benchmarks.scale.facts import Facts
from benchmarks.scale.machine import Links, Machine
from benchmarks.scale.machines import MACHINES
from benchmarks.scale.miniature import Miniature
from benchmarks.scale.operators import counted
from benchmarks.scale.predict import HEALTH_EVERY, PARTS, fresh_share, latest_of, predict
from benchmarks.scale.run import Run, in_memory
from benchmarks.scale.scaling import SCALINGS, limit, strong, weak
from benchmarks.scale.stored import Stored
from distgan.config.load import load_config, preset_names
from distgan.config.schema import Config
from distgan.data.stream import Group
from distgan.distributed import Distributed
from distgan.training.health import WINDOW
from distgan.training.networks import build_networks, build_objective
from distgan.training.optimizers import build_optimizers
from distgan.training.step import Step
from gloo import run_workers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

FACTS = Facts.load(scale.FACTS)
H100 = MACHINES["h100"]
NO_NETWORK = replace(
    H100, ring=Links(0, 0, 0), tree=Links(0, 0, 0), within=math.inf, between=math.inf, jitter=0.0, operator_s=0.0
)
DOUBLINGS = [2**power for power in range(11)]


def small(preset: str, *overrides: str) -> Config:
    widths = ["image_size=16", "latent_dim=8", "generator.width=8", "discriminator.width=8"]
    sizes = ["training.batch_size=8", "data.streams=2", "scale.groups=2"]
    return load_config(preset, [*widths, *sizes, *overrides])


def on_all(scaling: str, run: Run, machine: Machine) -> list[float]:
    """Images a second on 1, 2, 4, ... workers, as many as the batch allows."""
    counts = [workers for workers in DOUBLINGS if scaling != "strong" or workers <= run.batch]
    return [predict(SCALINGS[scaling](run, workers), machine, workers).rate for workers in counts]


def all_reduces_of_a_step(distributed: Distributed, config: Config) -> list[int]:
    """Bytes of every all-reduce that gloo ran in one step, as torch's profiler saw them."""
    networks = build_networks(config, distributed.device)
    optimizers = build_optimizers(config.optimizer, networks.generator, networks.discriminator)
    step = Step(config, networks, build_objective(config), optimizers, distributed)
    step.warm_up()
    shape = (config.training.batch_size // config.scale.groups, *config.image_shape)
    labels = torch.zeros(shape[0], dtype=torch.int64)
    batch = [Group(torch.zeros(shape, dtype=torch.uint8), labels) for _ in step.groups.local]
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as found:
        step.run(lambda: batch, 0, 0)
    shapes = [event.input_shapes for event in found.events() if event.name == "gloo:all_reduce"]
    return [4 * sum(math.prod(tensor) for tensor in tensors if tensor) for tensors in shapes]


@pytest.mark.parametrize(
    ("preset", "overrides"),
    [
        ("dcgan-bricks", ()),
        ("dcgan-cifar", ()),
        ("wgan-gp-faces", ("objective.critic_steps=2",)),
        pytest.param(
            "dcgan-cifar",
            ("generator.width=128", "discriminator.width=256", "image_size=32"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_model_counts_the_all_reduces_that_two_workers_run(preset: str, overrides: tuple[str, ...]) -> None:
    config = small(preset, *overrides)
    run = run_of(config, preset, Stored(1.0, 0.0), data_images=1)
    for found in run_workers(all_reduces_of_a_step, 2, config):
        assert sorted(found) == sorted(run.all_reduces())


def test_one_worker_runs_no_all_reduce() -> None:
    assert run_workers(all_reduces_of_a_step, 1, small("dcgan-bricks")) == [[]]
    for run in FACTS.runs.values():
        assert predict(run, H100, 1).all_reduce == predict(run, H100, 1).stragglers == 0


@pytest.mark.parametrize("preset", ["quickstart", "cgan-fashion"])
def test_the_kept_facts_are_those_of_the_code(preset: str) -> None:
    """Decoding time is a machine's, all else the code's: after a change run `python -m benchmarks.scale facts`."""
    kept = FACTS.runs[preset]
    again = run_of(load_config(preset), preset, Stored(kept.image_bytes, 0.0), kept.data_images)
    # Counters and places within the written file make it some bytes longer or shorter.
    assert again.state_bytes == pytest.approx(kept.state_bytes, rel=0.01)
    # How many operators an update runs changes by a few with its code; the prediction does not.
    for one, stored in zip(again.updates, kept.updates, strict=True):
        assert one.operators == pytest.approx(stored.operators, rel=0.05)
    updates = tuple(
        replace(one, operators=stored.operators) for one, stored in zip(again.updates, kept.updates, strict=True)
    )
    assert replace(again, state_bytes=kept.state_bytes, updates=updates) == kept


def test_presets_are_counted_with_their_parameters_bytes() -> None:
    assert FACTS.runs.keys() <= set(preset_names())
    for name, run in FACTS.runs.items():
        counts = build_networks(load_config(name), torch.device("meta")).parameter_counts
        of = {"both": sum(counts.values()), **{"critic": counts["discriminator"], "generator": counts["generator"]}}
        for update in run.updates:
            assert sum(update.buckets) == sum(update.gpu_buckets) == 4 * of[update.name]


def test_operations_of_a_convolution_are_counted_as_products_and_sums() -> None:
    layer, image = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.zeros(1, 3, 16, 16)
    for without_gradients in (torch.no_grad, torch.inference_mode):
        with without_gradients():
            assert counted(lambda: layer(image))[0] == 2 * 8 * 16 * 16 * 3 * 9


def test_groups_cost_operators_each_and_images_flops() -> None:
    config = small("dcgan-bricks")
    one, three = (Miniature(config, groups) for groups in (1, 3))
    run = run_of(config, "dcgan-bricks", Stored(1.0, 0.0), data_images=1)
    (update,) = run.updates
    flops, operators = counted(three.gradients()["both"])
    assert flops == pytest.approx(3 * counted(one.gradients()["both"])[0])
    assert operators == update.fixed_operators + 3 * update.operators


def test_with_a_perfect_network_and_host_only_compute_is_left() -> None:
    run = replace(FACTS.runs["dcgan-bricks"], every_images=1e18)
    for workers in (1, 2, 8, 64):
        found = predict(strong(run, workers), NO_NETWORK, workers)
        assert found.all_reduce == found.stragglers == 0
        assert found.compute == pytest.approx(run.flops * run.batch / workers / H100.flops)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("machine", MACHINES)
def test_a_faster_network_host_or_extractor_is_never_slower(machine: str, scaling: str) -> None:
    on = MACHINES[machine]
    better = [
        replace(on, within=on.within * 2, between=on.between * 2),
        replace(on, ring=Links(0, 0, 0), tree=Links(0, 0, 0)),
        replace(on, operator_s=on.operator_s / 2),
        replace(on, flops=on.flops * 2),
        replace(on, exact_flops=on.exact_flops * 2),
        replace(on, jitter=0.0),
        replace(on, decode_s=0.0, gather_s=0.0, storage=math.inf),
    ]
    for run in FACTS.runs.values():
        slow = on_all(scaling, run, on)
        for each in better:
            for fast_rate, slow_rate in zip(on_all(scaling, run, each), slow, strict=True):
                assert fast_rate >= slow_rate * (1 - 1e-9)


@pytest.mark.parametrize("machine", MACHINES)
def test_efficiency_never_rises_above_one_nor_with_more_workers_of_a_whole_batch_each(machine: str) -> None:
    for run in FACTS.in_memory().values():
        one = predict(run, MACHINES[machine], 1)
        efficiencies = [predict(weak(run, n), MACHINES[machine], n).efficiency(one) for n in DOUBLINGS]
        assert efficiencies[0] == 1
        assert all(later <= earlier + 1e-9 for earlier, later in pairwise(efficiencies))


def test_an_all_reduce_moves_its_bytes_twice_but_for_a_workers_own_share() -> None:
    machine = replace(H100, ring=Links(0, 0, 0), tree=None, within=1e9)
    assert machine.all_reduce_s(8e9, 8) == pytest.approx(2 * 7 / 8 * 8)
    assert machine.all_reduce_s(8e9, 1) == 0
    hops = replace(machine, ring=Links(0, 1, 100), within=math.inf, between=math.inf)
    assert hops.all_reduce_s(1, 16) == 2 * 14 * 1 + 2 * 100


def test_gradients_hide_behind_the_backward_but_for_the_last_bucket() -> None:
    run = replace(FACTS.runs["sngan-cifar"], every_images=1e18)
    slow_compute = replace(H100, flops=H100.flops / 1000, jitter=0.0)
    exposed = predict(weak(run, 8), slow_compute, 8).all_reduce
    alone = sum(slow_compute.all_reduce_s(size, 8) for size in run.all_reduces(gpu=True))
    last = sum(update.count * slow_compute.all_reduce_s(update.gpu_buckets[-1], 8) for update in run.updates)
    assert exposed == pytest.approx(last)
    assert last < alone


def test_no_core_to_spare_hides_nothing_and_crowds() -> None:
    run = FACTS.runs["quickstart"]
    two_cores = replace(H100, queued=False, tree=None, cores=2, workers_a_node=4, crowding=1.2)
    assert [two_cores.busy(workers) for workers in (1, 2, 4)] == [False, True, True]
    assert [two_cores.slowdown(workers) for workers in (1, 2, 4)] == [1.0, 1.2, 2.4]
    found = predict(strong(run, 4), two_cores, 4)
    assert found.all_reduce == pytest.approx(sum(two_cores.all_reduce_s(size, 4) for size in run.all_reduces()))


def test_parts_add_up_and_more_workers_than_groups_are_refused() -> None:
    run = FACTS.runs["dcgan-bricks"]
    found = predict(strong(run, 64), H100, 64)
    assert set(found.shares()) == set(PARTS)
    assert sum(found.shares().values()) == pytest.approx(1)
    with pytest.raises(ValueError, match="groups"):
        predict(run, H100, 64)
    with pytest.raises(ValueError, match="batch"):
        strong(run, 2 * run.batch)


def test_the_latest_of_many_lies_further_back() -> None:
    assert latest_of(1) == 0
    assert latest_of(2) == pytest.approx(1 / math.sqrt(math.pi), abs=0.03)  # known: 0.564
    assert latest_of(1024) == pytest.approx(3.24, abs=0.1)


def test_data_that_fits_in_memory_is_decoded_once() -> None:
    run = FACTS.runs["sagan-faces128"]  # 10 GB of pixels
    assert fresh_share(run, 1) == 1
    assert fresh_share(in_memory(run), 1) == fresh_share(run, 16)
    assert fresh_share(run, 16) == pytest.approx(run.data_images / run.budget)


def test_a_limit_lies_where_half_is_left() -> None:
    for run in FACTS.runs.values():
        for scaling in SCALINGS:
            one, found = predict(run, H100, 1), limit(run, H100, scaling)
            assert predict(SCALINGS[scaling](run, found.workers), H100, found.workers).efficiency(one) >= 0.5
            if found.reason in PARTS:
                twice = 2 * found.workers
                assert predict(SCALINGS[scaling](run, twice), H100, twice).efficiency(one) < 0.5


def test_weak_scaling_is_a_configuration_that_loads() -> None:
    for name, run in FACTS.runs.items():
        more = weak(run, 1024)
        sizes = [f"training.batch_size={more.batch}", f"data.streams={more.streams}", f"scale.groups={more.groups}"]
        assert load_config(name, [*sizes, "scale.workers=1024"]).scale.groups == more.groups


def test_strong_scaling_is_a_configuration_that_loads() -> None:
    for name, run in FACTS.runs.items():
        more = strong(run, run.batch)
        sizes = [f"data.streams={more.streams}", f"scale.groups={more.groups}", f"scale.workers={run.batch}"]
        assert load_config(name, sizes).scale.groups == run.batch


def test_the_health_of_a_run_is_met_as_often_as_the_model_has_it() -> None:
    assert HEALTH_EVERY == WINDOW


def test_the_page_has_the_tables_of_the_model() -> None:
    """After a change run `python -m benchmarks.scale page`."""
    text = (scale.DOCS / "project" / "scale.md").read_text(encoding="utf-8")
    assert page.renewed(text, FACTS, check.load(scale.CHECK)) == text


def test_predictions_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    scale.main(["predict", "dcgan-bricks", "--machine", "t4", "--scaling", "weak", "--every-kimg", "10000"])
    printed = capsys.readouterr().out
    assert "no GPU was measured" in printed
    assert "1,024" in printed


@pytest.mark.parametrize("wrong", [["--fraction", "0"], ["--machine", "abacus"], ["no-such-preset"]])
def test_what_cannot_be_predicted_is_said_in_a_line(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        scale.main(["predict", *wrong])
    assert ended.value.code == 2
    assert wrong[-1] in capsys.readouterr().err
