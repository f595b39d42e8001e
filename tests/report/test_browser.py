"""The page of a run in headless Chromium, without a network."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from browser import CHROMIUM, Page, browser_page
from distgan.report.page import write_report
from distgan.search.ranking import leaderboard
from distgan.storage.storage import Storage
from run_folders import write_run
from search_records import finished

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Chromium"),
]

SOURCE = "document.querySelector('img[data-grid]').src"
PRESS = "document.getElementById('grid').value = {}; document.getElementById('grid').dispatchEvent(new Event('input'))"

WAIT = "new Promise(done => {{ const look = () => {} ? done() : setTimeout(look, 20); look() }})"


def test_a_page_in_a_browser(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_run(Storage.open(str(tmp_path / name)))
    out = tmp_path / "report.html"
    write_report([str(tmp_path / "first"), str(tmp_path / "second")], str(out))

    async def look() -> list[str]:
        async with browser_page(tmp_path / "profile") as page:
            await page.open(out)
            await check(page)
            return page.problems

    assert asyncio.run(look()) == []


def test_the_page_of_a_search_in_a_browser(tmp_path: Path) -> None:
    search = Storage.open(str(tmp_path / "rates"))
    record = finished(20)
    record.save(search)
    out = tmp_path / "report.html"
    write_report([search.url], str(out))

    async def look() -> list[str]:
        async with browser_page(tmp_path / "profile") as page:
            await page.open(out)
            drawn = "document.querySelectorAll('[data-plot]')[{}].querySelectorAll('.{}').length"
            ranked = len(leaderboard(record.plan, record.trials))
            assert await page.evaluate(drawn.format(0, "scatter")) == ranked
            assert await page.evaluate(drawn.format(1, "scatter")) == ranked
            assert await page.evaluate(drawn.format(2, "bars .point")) == 5
            await page.set_width(390)
            await page.evaluate(WAIT.format("document.documentElement.scrollWidth <= 390"))
            return page.problems

    assert asyncio.run(look()) == []


async def check(page: Page) -> None:
    last = await page.evaluate(SOURCE)
    await page.evaluate(PRESS.format(0))
    first = await page.evaluate(SOURCE)
    assert first != last
    assert first.startswith("data:image/png;base64,")
    assert await page.evaluate("document.querySelector('img[data-grid]').naturalWidth") == 8
    assert await page.evaluate("document.getElementById('kimg').textContent") == "2.5 kimg"
    assert await page.evaluate("[...document.querySelectorAll('.plot')].every(plot => plot.querySelector('.point'))")
    await page.evaluate("Plotly.Fx.hover(document.querySelector('.plot'), [{curveNumber: 0, pointNumber: 1}])")
    await page.evaluate(WAIT.format("document.querySelector('.plot .hoverlayer').textContent.includes('757')"))
    for width in (390, 1280):
        await page.set_width(width)
        await page.evaluate(WAIT.format(f"document.documentElement.scrollWidth <= {width}"))
    await page.evaluate("document.getElementById('play').click()")
    assert await page.evaluate("document.getElementById('play').textContent") == "Pause"
