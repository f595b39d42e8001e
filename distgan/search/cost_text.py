"""The cost of a search as text."""

from __future__ import annotations

from collections.abc import Iterator

from distgan.search.cost import SearchCost
from distgan.text import plural
from distgan.tracking import formatting


def cost_lines(cost: SearchCost) -> Iterator[tuple[str, str]]:
    """Headings and texts: what a search trains, and how long that takes."""
    plan, config, pace = cost.spec.record.plan, cost.spec.config, cost.pace
    population = f" ({plural(cost.spec.record.limits.trials, 'member')})" if plan.is_population else ""
    yield "search", cost.spec.search.url
    yield "trials", f"{cost.trials:,}{population}, drawn by {plan.sampler}, stopped by {plan.scheduler}"
    likely = "" if cost.likely_kimg is None else f", about {formatting.kimg_count(cost.likely_kimg)} with asha"
    yield "kimg", f"at most {formatting.kimg_count(cost.most_kimg)}{likely}"
    threads = plural(pace.threads, "thread")
    yield "step", f"{formatting.number(pace.kimg_s)} s a kimg: 1 worker on {pace.device}, {threads}, measured here"
    every = f"{config.evaluation.every_kimg:g}"
    yield "evaluation", f"{formatting.number(pace.evaluation_s)} s each {every} kimg, measured on {pace.device}"
    most = formatting.duration(cost.seconds(cost.most_kimg))
    about = "" if cost.likely_kimg is None else f", about {formatting.duration(cost.seconds(cost.likely_kimg))}"
    yield "time", f"at most {most}{about}, one trial at a time, without its starts"
