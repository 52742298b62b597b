"""Charts: everything that a result holds is in its chart, whatever it lacks is no reason to fail."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megaphone.bench.catalog import EXPERIMENTS
from megaphone.bench.charts.sheet import Key, Look, Sheet, gid
from megaphone.bench.charts.words import is_paced
from megaphone.bench.plot import DRAWINGS, KINDS, plot
from megaphone.bench.results import Result, read
from megaphone.cli import main
from megaphone.errors import UsageError
from tests.unit.bench import fabricated

SVG = "{http://www.w3.org/2000/svg}"
QUANTILES = ("p50", "p99", "p999", "max")
WINDOWED = ("p50_ms", "p99_ms", "max_ms")
# What the axes of each chart say, with the unit.
LABELS = {
    "machine": [
        "GB/s (more is better)",
        "M/s (more is better)",
        "µs (less is better)",
        "ns (less is better)",
        "ms (less is better)",
    ],
    "marks": ["M records/s", "ms"],
    "bins": ["number of bins", "latency of a record, ms (log)", "2⁴", "2²⁰"],
    "strategies": ["duration of the migration, ms (log)", "highest latency in it, ms (log)"],
    "timeline": ["time since the start of the run, s", "latency, ms (log)"],
    "timeline-nexmark": ["time since the start of the run, s", "latency, ms (log)"],
    "throughput": ["offered rate, M records/s over all workers (log)", "highest latency of a record, ms (log)", "0.25"],
    "memory": ["time since the start of the run, s", "memory, MB"],
    "headline": ["time since the start of the run, s", "latency, ms (log)", "time since the switch, ms", "ratio (log)"],
    "ledger": ["M records/s", "ns per record", "per record", "per 1,000 batches", "per M records"],
    "rivals-count": ["M records/s", "this engine", "ceiling: no exchange"],
    "rivals-transport": ["GB/s", "µs", "this engine"],
    "restart": ["keys in the state (log)", "time without output, ms (log)", "100 k"],
    "nexmark": ["highest rate, M events/s", "p99 at half of it, ms (log)", "query", "q8"],
}


@pytest.fixture(autouse=True)
def _drawing(request: pytest.FixtureRequest) -> None:
    if "without_matplotlib" not in request.fixturenames:
        pytest.importorskip("matplotlib", reason="matplotlib is not installed: the extra plot brings it")


@pytest.fixture
def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def series_of(name: str, row: dict[str, Any]) -> list[str]:
    """Return the series that a row must be seen in."""
    of = row["point"]
    if name == "machine":
        return [gid(figure) for figure in row["figures"]]
    if name == "marks":
        if of["mark"] == "empty time":
            return [gid(*of.values(), "empty_us")]
        return [gid(*of.values(), "p99_ms") if is_paced(row) else gid("rate", *of.values())]
    if name == "ledger":
        parts = ("scatter_ns_per_record", "allocation_ns_per_record", "rest", "system_ns_per_record")
        return [gid(*of.values(), figure) for figure in ("rate_m_s", *parts, "faults_ns_estimated")]
    if name == "rivals":
        figure = "rate_m_s" if of["job"] == "count" else "one_way_us_p99"
        return [] if row["figures"][figure] is None else [gid(*of.values(), figure)]
    if name == "restart":
        return [gid(of["how"])]
    if name == "bins":
        native = ["native"] if of["bins"] == "native" else []
        return [gid(of["backend"], quantile, *native) for quantile in QUANTILES]
    if name == "strategies":
        return [gid(of["varies"], of["strategy"], of["transfer"])]
    if name == "throughput":
        return [gid(of["strategy"])]
    if name == "memory":
        return [gid(*of.values(), account) for account in ("committed", "state", "pinned", "pss")]
    if name == "nexmark":
        return [gid(of["windows"], of["query"], of["style"], figure) for figure in ("highest_m_s", "half_p99_ms")]
    if of["strategy"] == "closed loop":
        return []
    around = []
    if name == "headline":
        around = [gid(of["keys_m"], "switch", of["strategy"], figure) for figure in ("p50_ms", "p99_ms")]
        around += [gid(of["keys_m"], figure) for figure in ("second_p99_ms", "worst_10ms_p99_ms")]
    return [*(gid(*of.values(), figure) for figure in WINDOWED), *around]


def lines_of(sheets: dict[str, Sheet]) -> dict[str, Any]:
    """Return the lines of charts by the name of their series."""
    return {
        str(line.get_gid()): line
        for sheet in sheets.values()
        for panel in sheet.panels
        for line in panel.get_lines()
        if line.get_gid()
    }


def short_of(result: Result, keep: int, *, figures: bool = True, series: bool = True) -> Result:
    """Return a result with its first rows alone, and without what they may lack."""
    rows = json.loads(json.dumps(result.rows[:keep]))
    for row in rows:
        if not figures:
            row["figures"] = dict.fromkeys(row["figures"])
        if not series:
            row["series"] = {}
    return Result(result.head, rows)


def test_every_experiment_has_a_chart() -> None:
    assert DRAWINGS.keys() == EXPERIMENTS.keys()


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_chart_has_every_series_of_its_result_its_title_its_units_and_where_it_comes_from(name: str) -> None:
    result = fabricated.result(name, "full", 2)
    found = set()
    for stem, sheet in DRAWINGS[name](result).items():
        tree = ET.fromstring(sheet.content("svg"))
        texts = {"".join(text.itertext()) for text in tree.iter(f"{SVG}text")}
        found |= {element.attrib["id"] for element in tree.iter() if "id" in element.attrib}
        assert {*LABELS[stem]} <= {line for text in texts for line in [text, *text.split("\n")]}
        written = " ".join(texts)
        for told in ("commit 0123456789ab", "A Processor With 2 Cores", f"bench run {name} --size full", "2025-01-31"):
            assert told in written
        assert "smoke" not in written
        edge = sheet.figure.bbox.width
        assert all(text.get_window_extent().x1 <= edge for text in [*sheet.figure.texts, *sheet.figure.legends])
        assert all(
            panel.get_title(loc="left") or name in ("machine", "nexmark", "restart", "throughput")
            for panel in sheet.panels
        )
    missing = {series for row in result.rows for series in series_of(name, row)} - found
    assert missing == set()


@pytest.mark.parametrize(
    ("name", "across", "upward"),
    [("throughput", "offered_m_s", "max_ms"), ("strategies", "migration_ms", "migration_max_ms")],
)
def test_every_point_is_a_mark_at_its_medians(name: str, across: str, upward: str) -> None:
    result = fabricated.result(name, "full", 3)
    expected: dict[str, list[list[float]]] = {}
    for first in result.rows[: len(result.rows) // 3]:
        rounds = [{**row["point"], **row["figures"]} for row in result.rows if row["point"] == first["point"]]
        assert len(rounds) == 3
        place = [statistics.median(one[figure] for one in rounds) for figure in (across, upward)]
        expected.setdefault(series_of(name, first)[0], []).append(place)
    lines = lines_of(DRAWINGS[name](result))
    assert {series: lines[series].get_xydata().tolist() for series in expected} == expected


def test_a_rival_that_is_not_installed_says_so_in_its_place() -> None:
    sheet = DRAWINGS["rivals"](fabricated.result("rivals", "smoke"))["rivals-count"]
    texts = [text.get_text() for text in sheet.panels[0].texts]
    assert texts.count("not installed") == 1


def test_bins_are_drawn_at_their_exponent_and_native_across() -> None:
    result = fabricated.result("bins", "full", 1)
    lines = lines_of(DRAWINGS["bins"](result))
    assert list(lines["vec-p99"].get_xdata()) == [4, 6, 8, 10, 12, 14, 16, 18, 20]
    (native,) = [row for row in result.rows if row["point"] == {"backend": "vec", "bins": "native"}]
    assert set(lines["vec-p99-native"].get_ydata()) == {native["figures"]["p99_ms"]}


def test_the_windows_of_a_run_are_steps_and_a_missing_one_is_a_gap() -> None:
    result = fabricated.result("timeline", "smoke")
    row = result.rows[0]
    windows = row["series"]["timeline"]
    del windows[2]
    line = lines_of(DRAWINGS["timeline"](result))[series_of("timeline", row)[1]]
    drawn = [value for value in line.get_ydata() if value == value]
    assert drawn == [window[5] for window in windows for _ in range(2)]
    assert [x for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True) if y != y] == [0.5]


def test_of_several_rounds_the_one_with_the_median_of_the_highest_latency_is_drawn() -> None:
    result = fabricated.result("headline", "smoke", 3)
    rows = [row for row in result.rows if row["point"]["strategy"] == "sudden"]
    middle = sorted(rows, key=lambda row: row["figures"]["max_ms"])[1]
    line = lines_of(DRAWINGS["headline"](result))[series_of("headline", middle)[2]]
    assert list(line.get_ydata())[::2] == [window[7] for window in middle["series"]["timeline"]]


def test_the_switch_is_drawn_of_the_round_with_the_median_ratio_and_every_pair_is_a_dot() -> None:
    result = fabricated.result("headline", "full", 3)
    second = {"none": [1.0, 2.0, 4.0], "sudden": [3.0, 2.2, 4.0]}  # ratios 3, 1.1 and 1
    for row in result.rows:
        of = row["point"]["strategy"]
        if of in second:
            row["figures"]["second_p99_ms"] = second[of][row["repeat"]]
    lines = lines_of(DRAWINGS["headline"](result))
    assert list(lines["1000-second_p99_ms"].get_ydata()) == pytest.approx([3.0, 1.1, 1.0])
    assert len(lines["1000-worst_10ms_p99_ms"].get_ydata()) == 3
    for of in second:
        (row,) = [row for row in result.rows if row["point"]["strategy"] == of and row["repeat"] == 1]
        line = lines[f"1000-switch-{of}-p99_ms"]
        drawn = list(zip(line.get_xdata(), line.get_ydata(), strict=True))
        assert drawn == [(one[0], one[2]) for one in row["series"]["slices"]]


def test_growth_is_told_of_a_closed_loop_too() -> None:
    sheet = DRAWINGS["marks"](fabricated.result("marks", "full", 1))["marks"]
    names = [str(text.get_gid()) for text in sheet.panels[1].texts]
    assert any(name.startswith("inserting-closed-loop") and name.endswith("grow_pause_ms") for name in names)


def test_the_originals_rate_stands_where_it_was_measured() -> None:
    content = DRAWINGS["nexmark"](fabricated.result("nexmark", "full", 1))["nexmark"].content("svg").decode()
    assert content.count('id="original-q5-highest_m_s"') == 1
    assert content.count('id="original-q8-half_p99_ms"') == 1


def test_migrations_are_marked_where_they_begin_and_end() -> None:
    result = fabricated.result("timeline", "smoke")
    (sheet,) = [sheet for stem, sheet in DRAWINGS["timeline"](result).items() if stem == "timeline"]
    panel = sheet.axes[1][0]
    (row,) = [row for row in result.rows if row["point"]["strategy"] == "sudden" and "copy" in row["point"].values()]
    across = [np.asarray(line.get_xdata()).tolist() for line in panel.get_lines()]
    upright = sorted(x[0] for x in across if len({*x}) == 1)
    assert upright == sorted(time for move in row["series"]["migrations"] for time in move)
    assert len(panel.patches) == 2


@pytest.mark.parametrize("lacks", ["all rows but one", "figures", "series", "figures and series"])
@pytest.mark.parametrize("name", DRAWINGS)
def test_what_a_result_lacks_is_left_out(name: str, lacks: str) -> None:
    keep = 1 if lacks == "all rows but one" else 100
    less = short_of(
        fabricated.result(name, "smoke", 1), keep, figures="figures" not in lacks, series="series" not in lacks
    )
    sheets = DRAWINGS[name](less)
    assert sheets
    for sheet in sheets.values():
        assert b"</svg>" in sheet.content("svg")


def test_a_single_figure_that_is_missing_leaves_the_others() -> None:
    result = fabricated.result("bins", "full", 1)
    result.rows[2]["figures"]["p99_ms"] = None
    lines = lines_of(DRAWINGS["bins"](result))
    assert list(lines["vec-p99"].get_xdata()) == [4, 6, 10, 12, 14, 16, 18, 20]
    assert len(lines["vec-p50"].get_xdata()) == 9


def test_a_smoke_result_says_so_in_its_chart() -> None:
    (sheet,) = DRAWINGS["bins"](fabricated.result("bins", "smoke")).values()
    assert b"the figures mean little" in sheet.content("svg")


def test_the_same_result_gives_the_same_files() -> None:
    once, again = (DRAWINGS["bins"](fabricated.result("bins", "smoke"))["bins"] for _ in range(2))
    assert [once.content(kind) for kind in KINDS] == [again.content(kind) for kind in KINDS]


@pytest.mark.parametrize("width_inches", [3.0, 9.0, 14.0])
def test_long_texts_and_legends_are_broken_before_the_edge(width_inches: float) -> None:
    told = (
        "Words of the usual lengths, with wide MMM and narrow ill, as many as no line of any chart has room for. " * 5
    )
    keys = [Key(f"a series with number {number}", Look("black")) for number in range(20)]
    sheet = Sheet(fabricated.result("bins", "smoke"), told, [told], keys, panel_inches=(width_inches, 2.0))
    assert all(text.get_window_extent().x1 <= sheet.figure.bbox.width for text in sheet.figure.texts)
    sheet.content("svg")
    (legend,) = sheet.figure.legends
    assert legend.get_window_extent().x1 <= sheet.figure.bbox.width
    assert legend.get_window_extent().y0 >= sheet.panels[0].get_window_extent().y1


def test_the_command_writes_png_and_svg_and_names_the_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    results, charts = tmp_path / "results", tmp_path / "new" / "charts"
    results.mkdir()
    fabricated.folder(results, "smoke")
    assert main(["plot", str(results), "--output", str(charts)]) == 0
    told = capfd.readouterr()
    assert told.err == ""
    assert sorted(told.out.split()) == sorted(str(path) for path in charts.iterdir())
    assert {path.stem for path in charts.iterdir()} == LABELS.keys()
    for stem in LABELS:
        assert (charts / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
        ET.fromstring((charts / f"{stem}.svg").read_bytes())
    assert sorted(path.suffix for path in results.iterdir()) == [".json"] * len(EXPERIMENTS)


def test_without_an_output_charts_stand_beside_the_results(tmp_path: Path) -> None:
    fabricated.result("bins", "smoke").write(tmp_path / "bins.json")
    talk: list[str] = []
    assert plot(tmp_path, talk=talk.append) == [tmp_path / "bins.png", tmp_path / "bins.svg"]
    assert talk == []


def test_an_experiment_without_a_chart_is_named_in_one_line_and_skipped(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = fabricated.result("bins", "smoke")
    result.write(tmp_path / "bins.json")
    result.head["experiment"] = "tides"
    result.write(tmp_path / "tides.json")
    assert read(tmp_path / "tides.json").rows
    assert main(["plot", str(tmp_path)]) == 0
    told = capfd.readouterr()
    assert told.err == f"megaphone: {tmp_path}: experiment 'tides' has no chart: skipped\n"
    assert told.out.split() == [str(tmp_path / "bins.png"), str(tmp_path / "bins.svg")]


def test_a_folder_in_which_nothing_can_be_drawn_is_a_mistake(tmp_path: Path) -> None:
    result = fabricated.result("bins", "smoke")
    Result(result.head, []).write(tmp_path / "bins.json")
    talk: list[str] = []
    with pytest.raises(UsageError, match="nothing to draw"):
        plot(tmp_path, talk=talk.append)
    assert len(talk) == 1
    assert "bins has no rows yet" in talk[0]


def test_rows_of_another_version_are_refused_by_what_they_lack(tmp_path: Path) -> None:
    result = fabricated.result("throughput", "smoke")
    del result.rows[1]["point"]["offered_m_s"]
    result.write(tmp_path / "throughput.json")
    with pytest.raises(UsageError, match="throughput: a row has no 'offered_m_s'.*run the experiment again"):
        plot(tmp_path, talk=print)


def test_an_output_that_cannot_be_written_is_a_mistake(tmp_path: Path) -> None:
    fabricated.result("bins", "smoke").write(tmp_path / "bins.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        plot(tmp_path, tmp_path / "file" / "below", talk=print)


@pytest.mark.usefixtures("without_matplotlib")
def test_without_matplotlib_there_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fabricated.result("bins", "smoke").write(tmp_path / "bins.json")
    assert main(["plot", str(tmp_path)]) == 2
    told = capfd.readouterr()
    said = "plot needs matplotlib, which is not installed: pip install 'megaphone[plot]'"
    assert (told.out, told.err) == ("", f"megaphone: error: {said}\n")


@pytest.mark.usefixtures("without_matplotlib")
def test_nothing_but_drawing_needs_matplotlib() -> None:
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from megaphone.bench import plot\nfrom megaphone.cli import main\n"
        "main(['plot', '--help'])\nassert main(['plot', 'no-such-folder']) == 2\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_rate_is_a_share_of_what_its_own_state_or_a_ring_would_allow() -> None:
    result = fabricated.result("marks", "full", 1)
    for row in result.rows:
        row["figures"]["rate_m_s"] = 10.0
        row["yardstick"] = {"increments_8mb_m_s_2": 100.0, "increments_80mb_prefetch_m_s_2": 50.0,
                            "ring_m_records_s": 20.0}  # fmt: skip
    panel = DRAWINGS["marks"](result)["marks"].panels[0]
    names = [label.get_text() for label in panel.get_yticklabels()]
    told = dict(zip(names, (text.get_text() for text in panel.texts), strict=True))
    for name, share in {"10 M keys": "0.20 of increments in 80 MB", "1 M keys": "0.10 of increments in 8 MB",
                        "exchange": "0.50 of records through a ring"}.items():  # fmt: skip
        (text, *_) = [text for mark, text in told.items() if f" {name}" in mark or mark.startswith(name)]
        assert share in text


def test_what_exchanges_nothing_is_a_ceiling_and_no_rival() -> None:
    sheet = DRAWINGS["rivals"](fabricated.result("rivals", "full", 1))["rivals-count"]
    colours: dict[str, set[Any]] = {}
    for bar in sheet.panels[0].patches:
        rival = str(bar.get_gid()).removesuffix("-rate_m_s").rsplit("-", 1)[-1]
        colours.setdefault(rival, set()).add(bar.get_facecolor())
    assert [len(found) for found in colours.values()] == [1] * len(colours)
    assert colours["plain"] != colours["engine"] != colours["queue"] != colours["plain"]


def test_a_label_keeps_clear_of_the_originals_line() -> None:
    result = fabricated.result("nexmark", "full", 1)
    for row in result.rows:
        row["figures"]["half_p99_ms"] = 5.0  # the original's are 6.0 of q0 and 1.6 of q1
    panel = DRAWINGS["nexmark"](result)["nexmark"].axes[1][0]
    at = {str(text.get_gid()): text.get_verticalalignment() for text in panel.texts}
    assert at["12h-q0-flex-half_p99_ms-label"] == "top"
    assert at["12h-q1-flex-half_p99_ms-label"] == "baseline"


def test_growth_of_a_run_that_loads_first_is_not_told_as_one_of_the_run() -> None:
    result = fabricated.result("marks", "full", 1)
    for row in result.rows:
        row["figures"]["grow_pause_ms"] = 3.0
    told = [str(text.get_gid()) for text in DRAWINGS["marks"](result)["marks"].panels[1].texts
            if str(text.get_gid()).endswith("grow_pause_ms") and text.get_text() != "–"]  # fmt: skip
    assert len(told) == 2
    assert all(name.startswith("inserting") for name in told)


def test_small_batches_have_axes_of_their_own_and_copying_and_allocation_too() -> None:
    result = fabricated.result("ledger", "full", 1)
    for row in result.rows:
        row["figures"]["cpu_ns_per_record"] = 200.0 if row["point"]["batch"] < 4096 else 10.0
    sheet = DRAWINGS["ledger"](result)["ledger"]
    above, below = sheet.axes
    assert above[1].get_xlim()[1] < 20 < 200 < below[1].get_xlim()[1]
    allocation = [panel for panel in above if panel.get_title(loc="left") == "of it allocation"]
    assert [panel.get_xlim()[1] < 1 for panel in allocation] == [True]
    names = [label.get_text() for label in above[0].get_yticklabels()]
    assert [name for name in names if name.startswith("jumbo")] == ["jumbo: batches of 4 slabs, 2 columns, 2 workers"]


def test_a_yardstick_that_a_result_lacks_is_told_in_its_place() -> None:
    result = fabricated.result("machine", "full", 1)
    for row in result.rows:
        del row["figures"]["held_up_ms_p99"]
    texts = [text.get_text() for panel in DRAWINGS["machine"](result)["machine"].panels for text in panel.texts]
    assert texts.count("not in this result") == 1
