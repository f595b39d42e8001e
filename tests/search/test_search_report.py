"""What a search shows while it runs, and what it leaves behind."""

from __future__ import annotations

import csv
import io
import math
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from command_line import Cli
from distgan.config.load import flatten, load_config
from distgan.errors import UserError
from distgan.search.curve_figures import curves_figure
from distgan.search.importance import FEWEST, _generation_shares, importance
from distgan.search.ranking import leaderboard
from distgan.search.record import SearchRecord, Trial
from distgan.search.results import (
    _of_the_best,
    best_yaml,
    draw_pictures,
    leaderboard_csv,
    print_results,
    show_results,
    write_results,
)
from distgan.search.search_console import SearchDisplay
from distgan.search.trial_tables import TrialProgress, trials_table
from distgan.search.trial_text import short_names, value_shown
from distgan.storage.storage import Storage
from runs import checkpoints, run, tiny_config
from search_records import (
    BUDGET,
    METRIC,
    PRESET,
    SPACE,
    curve_of,
    finished,
    make_plan,
    make_record,
    make_trial,
    population,
    with_repetitions,
)

pytestmark = pytest.mark.timeout(60)

ONE_KEY = {"optimizer.generator.lr": "loguniform(1e-5, 1e-3)"}


def three_trials(values: tuple[float, ...] = (30.0, 10.0, 20.0), higher_is_better: bool = False) -> SearchRecord:
    """Trials that ended with these values at 40 kimg, half as good at 20."""
    plan = make_plan(ONE_KEY, higher_is_better=higher_is_better)
    curves = [[(20.0, value / 2 if higher_is_better else value * 2), (40.0, value)] for value in values]
    trials = [make_trial(plan, number, state="budget", curve=curve) for number, curve in enumerate(curves)]
    return make_record(trials, plan, ended="all trials ended")


def best_file(record: SearchRecord, folder: Path) -> Path:
    """The winner's configuration as a file."""
    path = folder / "best.yaml"
    path.write_text(best_yaml(record, leaderboard(record.plan, record.trials)[0]))
    return path


def leaderboard_rows(record: SearchRecord) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(leaderboard_csv(record))))


def shown(record: SearchRecord, width: int, height: int, *progress: tuple[int, TrialProgress]) -> str:
    """The live table as a terminal of this size has it."""
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=True, color_system=None)
    console.print(trials_table(record, dict(progress)))
    return out.getvalue()


def printed(record: SearchRecord, url: str = "runs/rates", width: int = 200, address: str | None = None) -> str:
    out = io.StringIO()
    print_results(record, url, Console(file=out, width=width), address)
    return out.getvalue()


@pytest.mark.parametrize(("higher_is_better", "order"), [(False, ["1", "2", "0"]), (True, ["0", "2", "1"])])
def test_leaderboard_begins_with_the_best(higher_is_better: bool, order: list[str]) -> None:
    rows = leaderboard_rows(three_trials(higher_is_better=higher_is_better))
    assert [row["trial"] for row in rows] == order
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert {row["best_kimg"] for row in rows} == {"40.0"}


def test_repeated_trials_are_ranked_by_the_mean_of_their_seeds(tmp_path: Path) -> None:
    """A lucky first run does not win: trial 1 has 10, 40 and 40, trial 2 has 20, 22 and 24."""
    record = three_trials()
    for number, value in ((1, 40.0), (1, 40.0), (2, 22.0), (2, 24.0)):
        again = record.trials[number].model_copy(
            update={"number": len(record.trials), "repeats": number, "curve": [(40.0, value)], "seed": 7}
        )
        record.trials.append(again)
    rows = leaderboard_rows(record)
    assert [(row["trial"], float(row["value"]), row["runs"]) for row in rows] == [
        ("2", 22.0, "3"),
        ("1", 30.0, "3"),
        ("0", 30.0, "1"),
    ]
    assert float(rows[0]["std"]) == pytest.approx(2.0)
    assert rows[2]["std"] == ""
    text = printed(record)
    assert "22.0 ± 2.00" in text
    assert "seeds" in text
    best = best_file(record, tmp_path)
    assert "22.0 ± 2.00" in best.read_text()
    assert load_config(str(best)).seed == record.trials[2].seed


def test_best_yaml_is_the_configuration_of_the_winner(tmp_path: Path) -> None:
    record = finished(12)
    winner = record.trials[int(leaderboard_rows(record)[0]["trial"])]
    winner.seed = 5
    best = best_file(record, tmp_path)
    found = load_config(str(best)).model_dump(mode="json")
    base = flatten(record.plan.config)
    assert flatten(found) == {**base, **winner.overrides, "seed": 5}
    comment = best.read_text().split("description:")[0]
    assert all(line.startswith("#") for line in comment.splitlines())
    assert f"search rates, number {winner.number}: {METRIC}" in comment
    assert "distgan train" in comment


def test_best_yaml_has_the_options_of_another_component_and_optimizer(tmp_path: Path) -> None:
    space = {"objective.name": "choice(wgan_gp, hinge)", "optimizer.generator.name": "choice(adam, rmsprop)"}
    plan = make_plan(space)
    overrides = {"objective.name": "hinge", "optimizer.generator.name": "rmsprop"}
    trial = Trial(number=0, draw=overrides, overrides=overrides, seed=0, state="budget", curve=[(20.0, 1.0)])
    found = load_config(str(best_file(make_record([trial], plan), tmp_path)))
    assert found.objective.name == "hinge"
    assert "gp_weight" not in found.objective.options
    assert found.optimizer.generator.name == "rmsprop"
    assert found.optimizer.generator.lr == load_config(PRESET).optimizer.generator.lr


def test_best_yaml_imports_no_module_of_a_user(tmp_path: Path) -> None:
    record = three_trials()
    record.plan.config["generator"] = {"network": "no_such_module:Generator", "width": 8}
    assert "network: no_such_module:Generator" in best_file(record, tmp_path).read_text()


def test_a_damaged_record_is_told_in_one_line() -> None:
    record = three_trials()
    record.trials[1].overrides["optimizer.generator.lr"] = "fast"
    with pytest.raises(UserError, match=r"rates/search.json: trial 1: .*lr"):
        best_yaml(record, leaderboard(record.plan, record.trials)[0])


def test_values_below_a_value_are_told_in_one_line() -> None:
    record = three_trials()
    record.trials[1].overrides["training.kimg.deep.er"] = 1
    record.plan.config["optimizer"] = 3
    with pytest.raises(UserError, match=r"rates/search.json: trial 1: .*kimg"):
        best_yaml(record, leaderboard(record.plan, record.trials)[0])


def test_importance_finds_the_key_that_matters() -> None:
    record = finished(40)
    found = importance(record.plan, record.trials)
    assert found is not None
    assert found[0].name == "optimizer.generator.lr"
    assert found[0].share > 0.5
    assert math.isclose(sum(one.share for one in found), 1.0)
    assert {one.name for one in found} == {*SPACE} - {"optimizer.discriminator.lr"} | {
        "optimizer.discriminator.lr.factor"
    }
    by_name = {one.name: one for one in found}
    counted = [trial for trial in record.trials if trial.curve or trial.state == "diverged"]
    used = sum("objective.gp_weight" in trial.overrides for trial in counted)
    assert by_name["objective.gp_weight"].trials == used < by_name["optimizer.generator.lr"].trials == len(counted)


def test_importance_sees_where_trials_diverge() -> None:
    """They have no value, and count as the worst; that failed ones do not."""
    space = {"optimizer.generator.lr": "loguniform(1e-5, 1e-3)", "objective.gp_weight": "uniform(1, 10)"}
    plan = make_plan(space)
    trials = [make_trial(plan, number, state="budget", curve=[(20.0, 1.0 + number % 3)]) for number in range(30)]
    for trial in trials:
        if trial.overrides["optimizer.generator.lr"] > 1e-4:
            trial.state, trial.curve = "diverged", []
    found = importance(plan, trials)
    assert found is not None
    assert found[0].name == "optimizer.generator.lr"
    assert found[0].trials == 30
    for trial in trials:
        trial.state = "failed" if trial.state == "diverged" else trial.state
    fewer = importance(plan, trials)
    assert fewer is None or fewer[0].trials == sum(bool(trial.curve) for trial in trials)


def test_importance_compares_members_with_their_own_generation() -> None:
    """Later generations are better for their training alone, and have the rate drawn from another part of its range."""
    plan = make_plan(ONE_KEY | {"objective.gp_weight": "uniform(1, 10)"}, scheduler="pbt")
    trials = [make_trial(plan, number, generation=number // 10, state="budget") for number in range(30)]
    for trial in trials:
        trial.draw["optimizer.generator.lr"] = 10.0 ** (-5 + trial.generation / 2)
        trial.overrides = dict(trial.draw)
        trial.curve = [(20.0, 1000.0 - 400 * trial.generation + trial.draw["objective.gp_weight"])]
    found = importance(plan, trials)
    assert found is not None
    assert found[0].name == "objective.gp_weight"


def test_importance_of_few_or_equal_trials_is_not_told() -> None:
    record = finished(FEWEST - 1)
    assert importance(record.plan, record.trials) is None
    equal = three_trials((5.0,) * 20)
    assert importance(equal.plan, equal.trials) is None
    assert "not known" in printed(equal)


RECORDS = {
    "thirty": lambda: finished(30),
    "one": lambda: finished(1),
    "none": lambda: make_record([], make_plan()),
    "zero": lambda: three_trials((0.0, 0.0)),
    "population": lambda: population(4, 3),
    "repeated": lambda: with_repetitions(finished(30), [1, 5], 3),
    "failed": lambda: make_record(
        [make_trial(make_plan(), number, state="failed") for number in range(3)], make_plan()
    ),
    "running": lambda: make_record([make_trial(make_plan(), 0, state="begun", curve=[(20.0, 5.0)])], make_plan()),
}


@pytest.mark.parametrize("name", RECORDS)
def test_pictures_of_all_kinds_of_searches(name: str) -> None:
    pictures = dict(draw_pictures(RECORDS[name]()))
    assert list(pictures) == ["curves.png", "parallel.png", "keys.png"]
    for content in pictures.values():
        image = Image.open(io.BytesIO(content)).convert("L")
        assert image.width >= 700
        assert image.height >= 400
        dark = np.asarray(image) < 200
        assert dark.mean() > 0.0005
        assert not dark[:2].any(), "nothing is cut off at the border"
        assert not dark[:, :2].any()


def test_pictures_of_many_trials_show_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distgan.search.results._MOST_DRAWN", 5)
    record = with_repetitions(finished(30), [1, 5], 2)
    shown = _of_the_best(record)
    assert shown.name == "rates: the best 5 of 32 trials"
    first = [one.trial.number for one in leaderboard(record.plan, record.trials)]
    assert [one.number for one in shown.trials] == sorted([*first[:3], 30, 31])
    assert _of_the_best(finished(5)).name == "rates"


@pytest.mark.timeout(30)
def test_twenty_thousand_trials_are_ranked_in_time() -> None:
    """Also where all are of one generation, or repeat one trial."""
    plan = make_plan(ONE_KEY)
    one = make_trial(plan, 0, state="budget", curve=[(20.0, 1.0)])
    trials = [one.model_copy(update={"number": number, "curve": [(20.0, float(number))]}) for number in range(20_000)]
    assert [ranked.trial.number for ranked in leaderboard(plan, trials)] == list(range(20_000))
    assert _generation_shares(trials, {number: float(number) for number in range(20_000)})[15_000] == 0.75
    repeated = [one, *(trial.model_copy(update={"repeats": 0}) for trial in trials[1:])]
    assert [ranked.runs for ranked in leaderboard(plan, repeated)] == [20_000]


def test_pictures_show_a_child_from_where_its_parent_ended() -> None:
    record = population(4, 2)
    child = next(trial for trial in record.trials if trial.parent is not None)
    parent = record.trials[child.parent or 0]
    drawn = [line.get_xydata().tolist() for line in curves_figure(record).axes[0].lines]
    assert [list(point) for point in [parent.curve[-1], *child.curve]] in drawn


def test_short_names_are_as_short_as_they_are_clear() -> None:
    keys = ["optimizer.generator.lr", "objective.gp_weight", "discriminator.width", "a.b"]
    known = [*keys, "optimizer.discriminator.lr", "generator.width", "c.a.b"]
    assert list(short_names(keys, known).values()) == ["generator.lr", "gp_weight", "discriminator.width", "a.b"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.000123456, "0.000123"),
        (1.23456e-5, "1.23e-5"),
        (4096, "4096"),
        (0.5, "0.5"),
        (True, "true"),
        ([1, 2], "[1, 2]"),
        ("hinge", "hinge"),
        (None, "null"),
    ],
)
def test_values_have_three_digits(value: object, text: str) -> None:
    assert value_shown(value) == text


def test_live_table_has_a_row_a_trial() -> None:
    record = finished(30)
    record.ended = None
    record.trials[3].state, record.trials[3].curve = "begun", record.trials[3].curve[:2]
    text = shown(record, 200, 100, (3, TrialProgress(47.3, 415.0)))
    rows = {line.split()[0]: line for line in text.splitlines() if line.split()[:1] and line.split()[0].isdigit()}
    assert rows.keys() == {str(number) for number in range(30)}
    assert "47.3" in rows["3"]
    assert "running, 415.0/s" in rows["3"]
    assert "stopped at 20 kimg" in rows["0"]
    assert "failed" in rows["12"]
    assert "–" in rows["0"], "critic_steps is 1, so gp_weight is not set"  # noqa: RUF001
    assert "1 running" in text


@pytest.mark.parametrize("width", [100, 80, 60, 40])
@pytest.mark.parametrize("build", [lambda: finished(30), lambda: with_repetitions(finished(30), [1, 5], 3)])
def test_tables_fit_into_narrow_terminals(width: int, build) -> None:  # type: ignore[no-untyped-def]
    record = build()
    for text in (shown(record, width, 24), printed(record, width=width).split("importance")[0]):
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
    assert len(shown(record, width, 24).splitlines()) < 24


def test_low_terminal_shows_running_and_best_trials_and_counts_the_others() -> None:
    record = finished(30)
    record.ended = None
    for number in (0, 9):
        record.trials[number].state = "begun"
    text = shown(record, 120, 14)
    below = text.split("─\n")[1].splitlines()
    trials = [int(line.split()[0]) for line in below[:-1]]
    assert {0, 9, 27, 5} <= {*trials}
    assert trials == sorted(trials)
    assert below[-1].startswith(f"{30 - len(trials)} trials not shown: ")
    assert len(text.splitlines()) < 14


class PlainDisplay:
    """What a display writes where there is no terminal."""

    def __init__(self) -> None:
        self._out = io.StringIO()
        self.display = SearchDisplay(Console(file=self._out, width=80))

    def update(self, record: SearchRecord) -> list[str]:
        """The lines of an update with a copy of the record, as it stands."""
        before = len(self._out.getvalue())
        self.display.update(record.model_copy(deep=True), {0: TrialProgress(1.0, 2.0)})
        return self._out.getvalue()[before:].splitlines()


def test_plain_lines_tell_each_thing_once() -> None:
    plan = make_plan(ONE_KEY)
    record = make_record([], plan)
    plain = PlainDisplay()
    with plain.display:
        (beginning,) = plain.update(record)
        assert beginning.startswith("rates: begins; 30 trials of 240 kimg, drawn by random, stopped by asha")
        record.trials += [make_trial(plan, number) for number in range(2)]
        assert plain.update(record) == []
        record.trials[0].state = "begun"
        (line,) = plain.update(record)
        assert line.startswith("trial 0 begins: generator.lr=")
        record.trials[0].add_evaluation(20.0, 30.0)
        record.trials[1].state = "begun"
        lines = plain.update(record)
        assert lines[0] == f"trial 0 at 20 kimg: {METRIC} 30.0 (best of the search so far)"
        assert lines[1].startswith("trial 1 begins")
        assert plain.update(record) == []
        record.trials[1].add_evaluation(20.0, 40.0)
        assert plain.update(record) == [f"trial 1 at 20 kimg: {METRIC} 40.0"]
        record.trials[1].state = "stopped"
        record.trials[0].state, record.trials[0].note = "failed", "RuntimeError: out\nof memory"
        assert plain.update(record) == [
            "trial 0 ended: failed at 20 kimg: RuntimeError: out of memory; best 30.0 at 20 kimg",
            "trial 1 ended: stopped at 20 kimg; best 40.0 at 20 kimg",
        ]
        record.ended = "all trials ended"
        (end,) = plain.update(record)
        assert end == f"rates: ended (all trials ended) with 2 trials, 40 kimg trained; best {METRIC} 30.0: trial 0"
        assert plain.update(record) == []


def test_plain_lines_of_a_search_that_goes_on() -> None:
    """What was before is not told again."""
    plan = make_plan(ONE_KEY)
    trials = [make_trial(plan, 0, state="budget"), make_trial(plan, 1, state="begun"), make_trial(plan, 2)]
    trials[0].curve, trials[1].curve = curve_of(trials[0], BUDGET), [(20.0, 10.0)]
    record = make_record(trials, plan)
    plain = PlainDisplay()
    first, second = plain.update(record)
    assert first.startswith("rates: resumes, 1 trial has ended")
    assert second.startswith("trial 1 resumes at 20 kimg")
    record.trials[1].add_evaluation(40.0, 11.0)
    assert plain.update(record) == [f"trial 1 at 40 kimg: {METRIC} 11.0"]


def test_plain_lines_of_repetitions_and_generations() -> None:
    record = with_repetitions(three_trials(), [1], 2)
    record.plan = record.plan.model_copy(update={"scheduler": "pbt"})
    record.trials.append(make_trial(record.plan, 4, state="begun", generation=1, parent=0))
    plain = PlainDisplay()
    plain.update(record.model_copy(update={"trials": record.trials[:3], "ended": None}))
    lines = plain.update(record.model_copy(update={"ended": None}))
    assert lines[0].startswith("trial 3 begins as trial 1 with seed 1: generator.lr=")
    assert lines[-1].startswith("trial 4 begins from trial 0, generation 1: generator.lr=")


def test_terminal_shows_a_table_and_why_a_trial_failed() -> None:
    out = io.StringIO()
    record = three_trials()
    record.ended, record.trials[2].state = None, "begun"
    with SearchDisplay(Console(file=out, width=100, height=30, force_terminal=True, color_system=None)) as display:
        display.update(record.model_copy(deep=True), {})
        record.trials[2].state, record.trials[2].note = "failed", "out of memory"
        display.update(record.model_copy(deep=True), {})
        display.message("a word")
    text = out.getvalue()
    assert text.count("trial 2 ended: failed at 40 kimg: out of memory") == 1
    assert "a word" in text
    assert "trial 0 at 20 kimg" not in text
    assert "failed at 40 kimg" in text.split("a word")[1]


def test_results_say_what_it_cost_and_how_to_go_on() -> None:
    text = printed(three_trials())
    assert "120 kimg trained in 3 trials, 17% of the 720 that all of them to the end take" in text
    assert "  distgan train runs/rates/best.yaml --storage runs --name rates-best\n" in text
    assert "  distgan train --from-trial runs/rates training.kimg=480 --storage runs\n" in text
    far = printed(three_trials(), "s3://runs/my rates", address="10.0.0.1:6379")
    place = "--storage s3://runs --address 10.0.0.1:6379"
    assert f"  distgan train 's3://runs/my rates/best.yaml' {place} --name rates-best\n" in far
    assert f"  distgan train --from-trial 's3://runs/my rates' training.kimg=480 {place}\n" in far
    record = three_trials()
    record.plan.config["data"]["url"] = "s3://bricks"
    assert "--from-trial runs/rates training.kimg=480 data.url=s3://bricks --storage runs\n" in printed(record)
    failed = printed(RECORDS["failed"]())
    assert "no trial has a value" in failed
    assert "distgan train" not in failed


def test_results_of_a_folder(tmp_path: Path) -> None:
    record = finished(30)
    storage = Storage.open(str(tmp_path / "rates"))
    record.save(storage)
    out = io.StringIO()
    show_results(storage.url, Console(file=out, width=200))
    assert sorted(storage.list()) == sorted(
        ["search.json", "leaderboard.csv", "best.yaml", "curves.png", "parallel.png", "keys.png"]
    )
    assert "importance of the keys (PED-ANOVA):\n  generator.lr " in out.getvalue()
    assert "8 trials more in leaderboard.csv" in out.getvalue()
    with pytest.raises(UserError, match="no search there"):
        show_results(str(tmp_path / "other"), Console(file=out))


@pytest.mark.slow
def test_the_commands_that_are_printed_work(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a winner that has come to the end of its budget, in a storage whose name a shell would take apart."""
    storage = f"{tmp_path}/my searches"
    config = tiny_config("quickstart", data, 2)
    plan = make_plan({"seed": "choice(0, 1)"}, source="quickstart", config=config.model_dump(mode="json"))
    trial = Trial(
        number=0, draw={}, overrides={}, seed=config.seed, state="budget", curve=[(config.training.kimg, 9.0)]
    )
    run(config, f"{storage}/rates/trials", trial.name)
    record = make_record([trial], plan, ended="all trials ended")
    search = Storage.open(storage).child("rates")
    record.save(search)
    write_results(record, search)
    lines = [line.strip() for line in printed(record, search.url).splitlines() if line.startswith("  distgan ")]
    assert len(lines) == 2
    for line in lines:
        result = Cli(capsys, monkeypatch)(*shlex.split(line)[1:], "--no-ray")
        assert result.code == 0, result
    reached = {name: checkpoints(storage, name).newest_manifest() for name in ("rates-best", "rates-0000")}
    kimg = {name: manifest.kimg for name, manifest in reached.items() if manifest is not None}
    assert kimg == pytest.approx({"rates-best": config.training.kimg, "rates-0000": 2 * config.training.kimg})
