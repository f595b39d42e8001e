"""`distgan report`: what a page shows of runs, what it escapes, and that it stays small."""

from __future__ import annotations

import itertools
import json
import re
import sys
import uuid
from pathlib import Path

import pytest

from command_line import Cli, one_line
from distgan.report.page import MOST_BYTES, report_page, watch_report, write_report
from distgan.report.pictures import read_grids
from distgan.report.run_data import read_run
from distgan.storage.claim import CLAIM_NAME, Claim
from distgan.storage.storage import Storage
from packing import gray
from page_reader import EVIL, PageReader
from run_folders import WARNING, evaluation_row, step_row, summary, write_run

pytestmark = pytest.mark.timeout(60)


def read_page(*urls: str) -> PageReader:
    return PageReader.of(report_page([read_run(url) for url in urls]))


@pytest.fixture
def toy(tmp_path: Path) -> Storage:
    folder = Storage.open(str(tmp_path / "runs" / "toy"))
    write_run(folder)
    return folder


def test_a_page_tells_of_a_run(toy: Storage) -> None:
    page = read_page(toy.url)
    for words in (
        "plateau: no better fd_lite0_300 in the last evaluation",
        "757.0 at 8 kimg",
        "415.0 images/s",
        "75.0 % of the time",
        "data wait 0:12",
        "worker 1 was lost: out of memory",
        f"{WARNING.state} from 3 to 6 kimg, 2 times",
        f"Advice: {WARNING.remedy}",
        "keys differ from the preset quickstart: key",
        "objective.label_noise 0.25 0",
        f"distgan train {toy.url}/config.yaml --storage {toy.url.rpartition('/')[0]} --name NEW_NAME",
    ):
        assert words in page.text
    assert page.data["runs"] == ["toy"]
    figures = {figure["title"]: figure for figure in page.data["figures"]}
    assert {"Losses", "Gradient norms", "Throughput", "Diversity"} < set(figures)
    distance = figures["fd_lite0_300 (lower is better)"]
    assert [(one["kind"], one["x"], one["y"]) for one in distance["traces"]] == [
        ("line", [0, 8, 10], [2701, 757, 800]),
        ("best", [8], [757]),
        ("floor", [0, 10], [245, 245]),
    ]
    assert distance["log"]
    assert [trace["term"] for trace in figures["Losses"]["traces"]] == ["discriminator", "generator"]
    assert page.data["grids"][0]["kimg"] == [2.5, 5, 7.5, 10]
    assert all(source.startswith("data:image/png;base64,") for source in page.data["grids"][0]["sources"])


def test_real_images_stand_beside_the_samples(toy: Storage) -> None:
    toy.write_bytes("reals.png", gray(77, "PNG"))
    (shown,) = (found for found in read_page(toy.url).tags_of("img") if found["alt"] == "Real images of toy")
    assert str(shown["src"]).startswith("data:image/")
    toy.write_bytes("reals.png", gray(77, "PNG")[:50])
    assert not [found for found in read_page(toy.url).tags_of("img") if "Real" in str(found["alt"])], "damaged"


def test_it_asks_the_network_for_nothing(toy: Storage) -> None:
    page = read_page(toy.url)
    assert not [value for _, found in page.tags for key, value in found.items() if key in {"src", "href"}]
    policy = next(found["content"] for found in page.tags_of("meta") if "http-equiv" in found)
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data: blob:; ")
    assert "script-src 'sha256-" in policy
    assert all(found["alt"] for found in page.tags_of("img"))


def test_runs_stand_side_by_side(toy: Storage, tmp_path: Path) -> None:
    other = Storage.open(str(tmp_path / "runs" / "other"))
    write_run(other, overrides=("objective.label_noise=0.5",), grids=2)
    page = read_page(toy.url, other.url)
    assert page.data["names"] == ["toy", "other"]
    assert "Differences between the runs key toy other objective.label_noise 0.25 0.5" in page.text
    throughput = next(figure for figure in page.data["figures"] if figure["title"] == "Throughput")
    assert [trace["run"] for trace in throughput["traces"]] == [0, 1]
    assert [grids["kimg"] for grids in page.data["grids"]] == [[2.5, 5, 7.5, 10], [5, 10]]
    assert len(page.tags_of("img")) == 2


def test_runs_of_the_same_name_are_told_apart(toy: Storage, tmp_path: Path) -> None:
    other = Storage.open(str(tmp_path / "elsewhere" / "toy"))
    write_run(other)
    assert read_page(toy.url, other.url).data["names"] == [toy.url, other.url]


def test_what_others_wrote_is_text(tmp_path: Path) -> None:
    folder = Storage.open(str(tmp_path / "<b onclick=alert(3)>&name"))
    rows = [step_row(1.0, **{f"loss/{EVIL}": 1.0}), evaluation_row(1.0, 5.0, metric=EVIL)]
    rows += [{"event": "warning", "step": 1, "kimg": 1.0, "state": "diverged", "seen": EVIL, "remedy": EVIL}]
    secret = f"{EVIL} at https://me:hunter2@host/x"
    write_run(
        folder,
        rows=rows,
        end={"reason": "error", "error": secret, "attempts": [{"workers": 2, "kimg": 0.0, "failure": EVIL}]},
    )
    folder.write_bytes("config.yaml", f"description: '{EVIL}'\n'{EVIL}': '{EVIL}'\n".encode())
    page = read_page(folder.url)
    assert len(page.tags_of("script")) == 3
    assert not [found for _, found in page.tags if "onerror" in found or "onclick" in found]
    assert "ended by an error: </script><script>alert(1)</script>" in page.text
    assert "hunter2" not in page.text
    shown = [page.data["runs"], page.data["figures"]]
    assert "<" not in json.dumps(shown)
    assert page.text.count("<img src=x onerror=alert(2)>") > 6


def test_values_of_other_kinds_are_left_out(toy: Storage) -> None:
    rows = [step_row(1.0, images_per_second="fast"), step_row(2.0, **{"loss/generator": [1]}) | {"kimg": None}]
    rows += [evaluation_row(1.0, None), evaluation_row(2.0, 3.0, metric={"a": 1}, best="x")]
    write_run(toy, rows=rows, end={"reason": 1, "attempts": 3, "health": "ill"})
    toy.write_bytes("config.yaml", b"a: [")
    page = read_page(toy.url)
    assert "its config.yaml cannot be read" in page.text.lower()
    assert "no summary" in page.text


def test_a_run_without_a_curve_has_a_page(tmp_path: Path) -> None:
    folder = Storage.open(str(tmp_path / "toy"))
    write_run(folder, rows=[{"event": "step", "step": 1, "kimg": 1.0}])
    assert "Curves" in report_page([read_run(folder.url)])


def test_a_run_that_goes_on(toy: Storage) -> None:
    with (Path(toy.root) / "metrics.jsonl").open("ab") as file:
        file.write(b'{"event": "step", "step": 110, "kimg": 11.0, "loss/gen')
    Claim.new("trains this run").model_copy(update={"machine": "another"}).write(toy)
    page = read_page(toy.url)
    assert re.search(r"training \(process \d+ on ", page.text)
    assert "the session before: plateau" in page.text
    toy.delete("summary.json")
    assert "400.0 images/s at the last logged step" in read_page(toy.url).text


def test_the_page_follows_a_run_to_its_end(toy: Storage, tmp_path: Path) -> None:
    out, end = tmp_path / "page.html", toy.read_bytes("summary.json")
    rows = toy.read_bytes("metrics.jsonl")
    toy.delete("summary.json")
    toy.write_bytes("metrics.jsonl", b"")
    claim = Claim.new("trains this run").model_copy(update={"machine": "another"})
    claim.write(toy)
    seen: list[str] = []
    said: list[str] = []

    def wait(_: float) -> None:
        seen.append(PageReader.of(out.read_text()).text if out.exists() else "nothing")
        if len(seen) == 2:
            toy.write_bytes("metrics.jsonl", rows)
        if len(seen) == 4:
            toy.write_bytes("summary.json", end)
            toy.delete(CLAIM_NAME)

    watch_report([toy.url], str(out), said.append, wait=wait)
    assert ["training (process" in text for text in seen] == [False, False, True, True]
    assert len(said) == 1
    assert "state ended stopped plateau" in PageReader.of(out.read_text()).text


def test_it_stays_small(toy: Storage) -> None:
    """Grids that do not fit are thinned out evenly; points of long curves are means."""
    write_run(toy, rows=[step_row(kimg / 100) for kimg in range(1, 5001)], grids=40, size=300)
    run = read_run(toy.url)
    page = report_page([run])
    assert len(page.encode()) < MOST_BYTES
    assert "of 40 grids, evenly chosen" in page
    reader = PageReader.of(page)
    kimg = reader.data["grids"][0]["kimg"]
    assert (kimg[0], kimg[-1]) == (0.25, 10)
    gaps = [round((after - before) / 0.25) for before, after in itertools.pairwise(kimg)]
    assert max(gaps) - min(gaps) <= 1
    losses = next(figure for figure in reader.data["figures"] if figure["title"] == "Losses")
    assert len(losses["traces"][0]["x"]) == 1667
    assert losses["traces"][0]["x"][:2] == [0.03, 0.06]
    assert "means of up to 3 rows" in reader.text


def test_where_few_grids_fit_all_are_compressed(toy: Storage) -> None:
    write_run(toy, grids=20, size=100)
    run = read_run(toy.url)
    few = read_grids(run, 150_000)
    assert few.converted
    assert few.note.endswith("compressed with loss; the files in samples/ are exact")
    assert all(source.startswith("data:image/webp;base64,") for source in few.sources)
    assert sum(map(len, few.sources)) < 150_000
    assert not read_grids(run, 300_000).converted
    smaller = read_grids(run, 30_000)
    assert smaller.shrunk > 1
    assert len(smaller.sources) >= 12
    assert " of their size; " in smaller.note or " at half size; " in smaller.note
    assert read_grids(run, 100).sources == []


def test_a_run_at_a_url(tmp_path: Path) -> None:
    folder = Storage.open(f"memory://{uuid.uuid4().hex}/toy")
    write_run(folder)
    out = tmp_path / "report.html"
    out.write_text("old")
    size = write_report([folder.url], str(out))
    assert out.stat().st_size == size
    assert list(tmp_path.iterdir()) == [out]
    assert "--storage memory://" in out.read_text()


def test_a_run_in_a_bucket(bucket: str) -> None:
    write_run(Storage.open(bucket).child("toy"))
    assert read_page(f"{bucket}/toy").data["runs"] == ["toy"]


def test_the_command(cli: Cli, toy: Storage, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert re.fullmatch(r".*page.html: \d\.\d MB\n", cli("report", toy.url, "--out", str(out)).out)
    gone = one_line(cli("report", f"{toy.url}-gone", "--out", str(out)))
    assert gone.endswith("toy-gone: the folder does not exist; check the name")
    assert "no such file as metrics.jsonl" in one_line(cli("report", str(tmp_path), "--out", str(out)))
    toy.write_bytes("metrics.jsonl", b'{"event": "checkpoint", "step": 0, "kimg": 0.0, "name": "x"}\n{"ev')
    assert "no step and no evaluation yet" in one_line(cli("report", toy.url, "--out", str(out)))
    assert "there is no folder" in one_line(cli("report", toy.url, "--out", str(tmp_path / "no" / "x.html")))
    assert "name a file" in one_line(cli("report", toy.url, "--out", str(tmp_path)))
    assert "at most 12 runs" in one_line(cli("report", *[toy.url] * 13, "--out", str(out)))


def test_a_watch_ends_with_ctrl_c(cli: Cli, toy: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("distgan.report.page.watch_report", interrupted)
    assert cli("report", toy.url, "--out", str(tmp_path / "page.html"), "--watch").code == 130


def test_without_plotly_the_extra_is_named(cli: Cli, toy: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    assert "distgan[report]" in one_line(cli("report", toy.url))


def test_the_error_of_a_run(toy: Storage) -> None:
    write_run(toy, end={"reason": "error", "error": "the bucket is full", "attempts": []})
    assert "ended by an error: the bucket is full" in read_page(toy.url).text
    write_run(toy, end=summary(reason="budget"))
    assert "image budget reached" in read_page(toy.url).text


def test_a_floor_far_below_the_curve_does_not_flatten_it(toy: Storage) -> None:
    write_run(toy, end=summary(floor=45.0))
    page = read_page(toy.url)
    distance = next(figure for figure in page.data["figures"] if figure["title"].startswith("fd_lite0_300"))
    assert [one["kind"] for one in distance["traces"]] == ["line", "best"]
    assert "fd_lite0_300 floor 45.0" in page.text


def test_memory_and_waits_have_curves(toy: Storage) -> None:
    measured = {"seconds/data_wait": 0.25, "memory/host_mb": 700.0, "memory/gpu_mb": 900.0, "data/memory_hits": 0.5}
    write_run(toy, rows=[step_row(kimg, **measured, **{"data/bytes_read": 1e6 * kimg}) for kimg in (1, 2)])
    figures = {figure["title"]: figure for figure in read_page(toy.url).data["figures"]}
    assert figures["Wait of a step for data"]["traces"][0]["y"] == [0.25, 0.25]
    assert figures["Samples from memory"]["traces"][0]["y"] == [0.5, 0.5]
    assert figures["Read of the data set by all workers"]["traces"][0]["y"] == [1e6, 2e6]
    assert [trace["term"] for trace in figures["Peak memory of rank 0"]["traces"]] == ["gpu_mb", "host_mb"]


def test_the_page_of_a_resumed_run_has_its_present_numbers(toy: Storage) -> None:
    write_run(toy, end=summary(kimg=9.0))
    assert "trained 9 kimg" not in read_page(toy.url).text
    assert "trained 10 of 240 kimg" in read_page(toy.url).text
