"""The report page: one HTML file with everything in it, which asks the network for nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

import distgan
from distgan.errors import UserError
from distgan.report.curves import Figure, figures, thinning
from distgan.report.pictures import Grids, read_grids
from distgan.report.run_data import CONFIG, NothingYetError, RunData, read_run
from distgan.report.search_part import SearchPart, best_runs, search_part
from distgan.report.settings import differences, settings_of
from distgan.search.record import FILE, require_record
from distgan.storage.claim import process_at
from distgan.storage.local_files import is_special, replacing
from distgan.storage.retry import NO_RETRY, Retry
from distgan.storage.storage import Storage, translate_errors
from distgan.text import command, options, plural, printable, without_credentials
from distgan.tracking.formatting import kimg_count, number

if TYPE_CHECKING:
    from distgan.report.neighbors import NeighborRows

MOST_BYTES = 8_000_000

MOST_RUNS = 12

# Between two pages of `--watch`.
WATCH_S = 30.0

_FILES = resources.files("distgan.report")


@dataclass(frozen=True)
class Extras:
    """Sections of a page for which each run's best generator makes images.

    Attributes:
        interpolation: strips of images between latents.
        memorization: samples beside their nearest training images. Reads the whole data set of each run.
        trust_code: networks may be of modules outside distgan.
        trust_addresses: data may be on other hosts, which a checkpoint names.
    """

    interpolation: bool = False
    memorization: bool = False
    trust_code: bool = False
    trust_addresses: bool = False


NO_EXTRAS = Extras()


def write_report(urls: Sequence[str], out: str, extras: Extras = NO_EXTRAS) -> int:
    """Writes a page to the file `out`, in one step; returns its bytes.

    Args:
        urls: folders or URLs of a run, of several, which stand side by side, or of one search.

    Raises UserError for what is no run and no search, or has no metrics yet, and where the file cannot be written.
    """
    path = Path(out).expanduser()
    _check_out(path)
    page = _page(urls, extras).encode()
    with translate_errors(str(path)), replacing(path) as temporary:
        temporary.write_bytes(page)
    return len(page)


def watch_report(
    urls: Sequence[str],
    out: str,
    log: Callable[[str], None],
    extras: Extras = NO_EXTRAS,
    every_s: float = WATCH_S,
    wait: Callable[[float], None] = time.sleep,
) -> int:
    """Writes the page anew until no process trains there any more; returns the bytes of the last one.

    Args:
        log: called with a line for what is waited for: the first row of a run, and after the first page storage that is
            unavailable.
        wait: waits so many seconds.

    Raises UserError as `write_report`.
    """
    retry, size = NO_RETRY, 0
    while True:
        training = retry(lambda: any(process_at(Storage.open(url)) for url in urls))
        try:
            size = retry(lambda: write_report(urls, out, extras))
        except NothingYetError as error:
            if not training:
                raise
            if retry is NO_RETRY:
                log(str(error))
        if not training:
            return size
        wait(every_s)
        retry = Retry(log)


def _page(urls: Sequence[str], extras: Extras) -> str:
    searches = [url for url in urls if Storage.open(url).exists(FILE)]
    if searches:
        if len(urls) > 1:
            raise UserError(f"{searches[0]}: is a search, which has a page of its own; name it alone")
        return search_page(searches[0], extras)
    if len(urls) > MOST_RUNS:
        raise UserError(f"a report shows at most {MOST_RUNS} runs, and not {len(urls)}; name fewer")
    return report_page([read_run(url) for url in urls], extras=extras)


def search_page(url: str, extras: Extras = NO_EXTRAS) -> str:
    """The page of a search, with the runs of its best trials."""
    record = require_record(url)
    return report_page(best_runs(record, Storage.open(url), MOST_RUNS), search_part(record), extras)


def report_page(runs: Sequence[RunData], search: SearchPart | None = None, extras: Extras = NO_EXTRAS) -> str:
    """The page as HTML, of at most `MOST_BYTES` bytes."""
    drawn, made = figures(runs), _Made()
    if extras.interpolation:
        from distgan.report.strips import interpolation_strips

        made.strips = [interpolation_strips(run, trust_code=extras.trust_code) for run in runs]
    if extras.memorization:
        from distgan.report.neighbors import neighbor_rows

        trusted = {"trust_code": extras.trust_code, "trust_addresses": extras.trust_addresses}
        made.neighbors = [neighbor_rows(run, **trusted) for run in runs]
    without = _render(runs, search, drawn, [Grids() for _ in runs], made)
    left = max(0, MOST_BYTES - len(without.encode()) - 20_000) // max(1, len(runs))
    return _render(runs, search, drawn, [read_grids(run, left, len(runs)) for run in runs], made)


@dataclass
class _Made:
    """What was made for a page, by run; empty where it was not asked for."""

    strips: list[str] = field(default_factory=list)
    neighbors: list[NeighborRows] = field(default_factory=list)


def _render(
    runs: Sequence[RunData],
    search: SearchPart | None,
    drawn: Sequence[Figure],
    grids: Sequence[Grids],
    made: _Made,
) -> str:
    style, script, plotly = _text("page.css"), _text("page.js"), _plotly()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.finalize = _shown
    names = _distinct_names(runs)
    policy = [
        "default-src 'none'",
        "img-src data: blob:",
        "style-src 'unsafe-inline'",
        f"script-src {_hash(script)} {_hash(plotly)}",
    ]
    return environment.from_string(_text("page.html")).render(
        title=search.name if search else names[0] if len(runs) == 1 else plural(len(runs), "run"),
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC by distgan {distgan.__version__}",
        policy="; ".join(policy),
        style=Markup(style),
        plotly=Markup(plotly),
        script=Markup(script),
        data=_data(names, search, drawn, grids),
        search=search,
        names=names,
        runs=list(zip(names, runs, [settings_of(run) for run in runs], grids, strict=True)),
        overview=_side_by_side([run.overview() for run in runs]),
        evaluations=[(name, _evaluations(run)) for name, run in zip(names, runs, strict=True)],
        figures=drawn,
        # The first figure of a single run stands beside its samples.
        on_top=len(drawn[:1]) if len(runs) == 1 and search is None else 0,
        strips=list(zip(names, made.strips, strict=False)),
        neighbors=list(zip(names, made.neighbors, strict=False)),
        has_grids=any(each.kimg for each in grids),
        thinning=thinning(runs),
        differences=differences(runs) if len(runs) > 1 else [],
        commands=[(name, _command(run)) for name, run in zip(names, runs, strict=True)],
        kimg_count=kimg_count,
    )


def _data(names: Sequence[str], search: SearchPart | None, drawn: Sequence[Figure], grids: Sequence[Grids]) -> Markup:
    """What the script draws, as JSON that cannot end its element. Plotly reads names as markup: they are escaped."""
    content = {
        "runs": [html.escape(_shown(name)) for name in names],
        "names": [_shown(name) for name in names],
        "figures": [_escaped(figure.as_dict()) for figure in drawn],
        "plots": [] if search is None else [_escaped(plot) for plot in search.plots],
        "grids": [{"kimg": each.kimg, "sources": each.sources} for each in grids],
    }
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_escaped(one) for one in value]
    return html.escape(_shown(value)) if isinstance(value, str) else value


def _shown(value: Any) -> Any:
    """Text from others without secrets of URLs and control characters; lines stay."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "\n".join(printable(line) for line in without_credentials(value).split("\n"))


def _side_by_side(overviews: Sequence[list[tuple[str, str]]]) -> list[tuple[str, list[str]]]:
    labels = dict.fromkeys(label for rows in overviews for label, _ in rows)
    return [(label, [dict(rows).get(label, "") for rows in overviews]) for label in labels]


def _evaluations(run: RunData) -> list[tuple[str, str, str]]:
    """(kimg, metric, value) of each evaluation."""
    rows = []
    for row in run.of("evaluation"):
        value = row.get("value")
        shown = number(value) if isinstance(value, float | int) else "not finite"
        rows.append((kimg_count(row["kimg"]), f"{row.get('metric')}", shown))
    return rows


def _command(run: RunData) -> str:
    """The command that trains the run anew from its configuration."""
    folder, _, _ = run.storage.url.rpartition("/")
    local = run.storage.is_local
    file = f"{run.storage.url}/{CONFIG}" if local else CONFIG
    return command("train", file, *options(storage=folder or "/", name="NEW_NAME"))


def _distinct_names(runs: Sequence[RunData]) -> list[str]:
    """The names of runs; their URLs where two have the same name."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [run.storage.url for run in runs]


def _text(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise UserError("plotly is missing: add it with `pip install 'distgan[report]'`") from None
    found: str = get_plotlyjs()
    return found


def _hash(script: str) -> str:
    """The source expression of a Content Security Policy for an inline script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _check_out(path: Path) -> None:
    """Before the runs are read."""
    if not path.parent.is_dir():
        raise UserError(f"--out {path}: there is no folder {path.parent}; make it, or name another file")
    if is_special(path):
        raise UserError(f"--out {path}: is a folder, a device or the like; name a file, as report.html")
