"""A search on its page: leaderboard, curves of the trials, parallel axes of the keys, and their importance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distgan.errors import UserError
from distgan.report.run_data import RunData, read_run
from distgan.search import trial_text
from distgan.search.importance import FEWEST, importance
from distgan.search.key_figures import OUTSIDE, key_axes, value_scale
from distgan.search.ranking import Ranked, leaderboard
from distgan.search.record import SearchRecord, Trial, kimg_of, trial_url
from distgan.storage.storage import Storage
from distgan.tracking import formatting

MOST_TRIALS = 100

# Plotly's traces and layout. A text that begins with `--` is a color of the page's style sheet.
_Plot = dict[str, Any]


@dataclass(frozen=True)
class SearchPart:
    """A search on its page.

    Attributes:
        facts: labels and texts.
        columns, rows: of the leaderboard.
        without_value: (trial, state, error) of the trials that are not in it.
        plots: of each figure the title, `text` in words, traces, layout, the unit of its vertical axis and whether that
            is logarithmic.
        notes: sentences on what is left out, and on what is not known.
    """

    name: str
    facts: list[tuple[str, str]]
    columns: list[str]
    rows: list[list[str]]
    without_value: list[tuple[str, str, str]]
    plots: list[_Plot]
    notes: list[str]


def search_part(record: SearchRecord) -> SearchPart:
    """What is shown of a record; of a search of many trials the best ones."""
    ranked = leaderboard(record.plan, record.trials)
    names = trial_text.searched(record.plan)
    shown = ranked[:MOST_TRIALS]
    notes = [f"The best {MOST_TRIALS} of {len(ranked)} trials with a value."] if len(shown) < len(ranked) else []
    plots = [_curves(record, shown), _parallel(record, shown)] if shown else []
    found = importance(record.plan, record.trials)
    if found is None:
        notes.append(f"The importance of the keys is not known: it takes {FEWEST} trials with values that differ.")
    else:
        labels = [trial_text.draw_name(one.name, names) for one in found]
        plots.append(_bars(labels, [one.share for one in found]))
    measured = {one.trial.number for one in ranked}
    return SearchPart(
        name=record.name,
        facts=_facts(record, ranked),
        columns=["rank", "trial", record.plan.metric, "seeds", "at kimg", "state", *names.values()],
        rows=[_row(record, rank, one, list(names)) for rank, one in enumerate(shown, 1)],
        without_value=[
            (trial_text.trial_shown(trial), trial_text.state_shown(trial, record), trial_text.failure(trial))
            for trial in record.trials
            if trial.number not in measured and trial.repeats is None
        ][:MOST_TRIALS],
        plots=plots,
        notes=notes,
    )


def best_runs(record: SearchRecord, search: Storage, most: int) -> list[RunData]:
    """The runs of the best trials, as far as their folders are there."""
    found: list[RunData] = []
    for one in leaderboard(record.plan, record.trials):
        if len(found) == most:
            break
        try:
            found.append(read_run(trial_url(search, one.best_run)))
        except UserError:
            continue
    return found


def _facts(record: SearchRecord, ranked: Sequence[Ranked]) -> list[tuple[str, str]]:
    plan, trials = record.plan, record.trials
    states = Counter(trial_text.state_shown(trial, record).partition(" at ")[0] for trial in trials)
    facts = [
        ("state", f"ended: {record.ended}" if record.ended else "running, or killed"),
        ("metric", f"{plan.metric}, {trial_text.direction(plan)}"),
        ("sampler, scheduler", f"{plan.sampler}, {plan.scheduler}"),
        ("trials", f"{len(trials):,}: " + ", ".join(f"{count} {state}" for state, count in states.most_common())),
        ("trained", f"{formatting.kimg_count(kimg_of(trials))} kimg in all trials"),
        ("time", f"{formatting.duration(sum(trial.seconds for trial in trials))} of all trials together"),
    ]
    if ranked:
        best = ranked[0].best_run
        facts.append(("best", f"{trial_text.best_shown(best, plan.higher_is_better)}, trial {best.number}"))
    return facts


def _row(record: SearchRecord, rank: int, one: Ranked, keys: Sequence[str]) -> list[str]:
    best = one.best_run.best(record.plan.higher_is_better)
    at = "" if best is None else formatting.kimg_count(best[0])
    spread = "" if one.std is None else f" ± {formatting.number(one.std)}"
    fixed = [str(rank), trial_text.trial_shown(one.trial), f"{formatting.number(one.value)}{spread}", str(one.runs), at]
    state = trial_text.state_shown(one.trial, record)
    return [*fixed, state, *(trial_text.key_shown(one.trial, key) for key in keys)]


def _line(rank: int, count: int, trial: Trial, text: str) -> _Plot:
    """The style of a trial's line: the best stands out, others fade with their rank."""
    goodness = 1 - rank / max(count - 1, 1)
    return {
        "type": "scatter",
        "name": f"trial {trial.number}",
        "text": text,
        "line": {"color": "--c1" if rank == 0 else "--c0", "width": 3 if rank == 0 else 1.5},
        "opacity": 1.0 if rank == 0 else 0.3 + 0.5 * goodness**2,
    }


def _curves(record: SearchRecord, ranked: Sequence[Ranked]) -> _Plot:
    traces, names = [], trial_text.searched(record.plan)
    for rank, one in reversed(list(enumerate(ranked))):
        x, y = zip(*one.trial.curve, strict=True) if one.trial.curve else ((), ())
        text = trial_text.values_shown(one.trial, names)
        traces.append(
            _line(rank, len(ranked), one.trial, text)
            | {"x": list(x), "y": list(y), "mode": "lines+markers", "marker": {"size": 5}}
            | {"hovertemplate": "%{y:,.4~g} at %{x:,.4~g} kimg<br>%{text}"}
        )
    scale = value_scale([value for one in ranked for _, value in one.trial.curve])
    return {
        "title": f"Trials: {record.plan.metric} ({trial_text.direction(record.plan)})",
        "text": f"{record.plan.metric} of each trial against kimg; the best trial is orange",
        "traces": traces,
        "log": scale.is_log,
        "layout": {"hovermode": "closest", "showlegend": False},
        "unit": record.plan.metric,
    }


def _parallel(record: SearchRecord, ranked: Sequence[Ranked]) -> _Plot:
    """Parallel axes: one for each searched key and one for the value."""
    keys, value = key_axes(record), value_scale([one.value for one in ranked])
    titles = [*(key.name for key in keys), record.plan.metric]
    traces, names = [], trial_text.searched(record.plan)
    for rank, one in reversed(list(enumerate(ranked))):
        line = [*(key.spread(one.trial) for key in keys), value.position(one.value)]
        text = f"{formatting.number(one.value)}: {trial_text.values_shown(one.trial, names)}"
        traces.append(
            _line(rank, len(ranked), one.trial, text)
            | {"x": list(range(len(titles))), "y": line, "mode": "lines", "hovertemplate": "%{text}"}
        )
    ticks = [*(key.ticks for key in keys), value.ticks]
    return {
        "title": "Searched keys",
        "text": "each trial as a line through its values of the searched keys; the best trial is orange",
        "traces": traces,
        "log": False,
        "wide": True,
        "layout": {
            "hovermode": "closest",
            "showlegend": False,
            "dragmode": False,
            "margin": {"l": 50, "r": 50, "t": 70, "b": 10},
            "xaxis": {
                "tickvals": list(range(len(titles))),
                "ticktext": titles,
                "side": "top",
                "range": [-0.3, len(titles) - 0.6],
                "zeroline": False,
                "gridcolor": "--dim",
            },
            "yaxis": {"visible": False, "range": [OUTSIDE - 0.1, 1.08]},
            "annotations": [
                {"x": place, "y": at, "text": label, "showarrow": False, "xanchor": "right", "bgcolor": "--back"}
                | {"font": {"size": 11, "color": "--dim"}, "xshift": -4}
                for place, some in enumerate(ticks)
                for at, label in some
            ],
        },
        "unit": "",
    }


def _bars(labels: Sequence[str], shares: Sequence[float]) -> _Plot:
    texts = [f"{share:.0%}" for share in shares]
    return {
        "title": "Importance of the keys (PED-ANOVA)",
        "text": "; ".join(f"{label} {text}" for label, text in zip(labels, texts, strict=True)),
        "traces": [
            {"type": "bar", "orientation": "h", "x": list(shares), "y": list(labels), "text": texts}
            | {"marker": {"color": "--c0"}, "textposition": "auto", "hoverinfo": "none", "name": ""}
        ],
        "log": False,
        "layout": {
            "showlegend": False,
            "dragmode": False,
            "xaxis": {"title": {"text": "share"}, "tickformat": ".0%", "gridcolor": "--line", "rangemode": "tozero"},
            "yaxis": {"autorange": "reversed", "automargin": True, "type": "category"},
        },
        "unit": "",
    }
