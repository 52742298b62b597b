"""Promises beside what was measured: on which side of a number, what is lacking, and documents that agree with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from megaphone.bench import documents, results
from megaphone.bench.catalog import EXPERIMENTS
from megaphone.bench.documents import TABLES, content, fill, region
from megaphone.bench.experiment import Pair
from megaphone.bench.results import Result
from megaphone.bench.targets import HEADER, TARGETS, Measured, Target, lines_of, markdown_of, measured
from megaphone.cli import main
from megaphone.errors import UsageError
from tests.unit.bench import fabricated
from tests.unit.bench.test_catalog import REPORT, Anything

ROOT = Path(__file__).resolve().parents[3]
FULL = ROOT / "docs" / "results" / "full"
RATE = Target(what="a rate", experiment="marks", of={"mark": "exchange"}, figure="rate_m_s", bound="at least",
              reach=100, stretch=200, unit="M/s", digits=1)  # fmt: skip
DELAY = replace(RATE, bound="at most", figure="p99_ms", reach=2, stretch=1, unit="ms", digits=3)
COPIES = replace(RATE, bound="exactly", figure="copies_per_record", reach=1, stretch=None, unit="", digits=3)
PAIR = Pair("p99_ms", {"strategy": "sudden"}, {"strategy": "none"})
TIMES = Target(what="times", experiment="headline", of={"strategy": "sudden"}, figure=PAIR, reach=1.2, stretch=1.05)


def of_exchange(figure: str, values: list[float | None], size: Any = "full") -> dict[str, Result]:
    """Return a result whose exchange has these figures, a round each."""
    whole = fabricated.result("marks", size, 1)
    (row,) = [row for row in whole.rows if row["point"]["mark"] == "exchange"]
    rows = [{**row, "repeat": turn, "figures": {figure: value}} for turn, value in enumerate(values)]
    return {"marks": Result(whole.head, rows)}


@pytest.mark.parametrize(
    ("target", "value", "verdict"),
    [
        (RATE, 99.9, "missed"), (RATE, 100.0, "reached"), (RATE, 199.9, "reached"), (RATE, 200.0, "stretch reached"),
        (DELAY, 2.001, "missed"), (DELAY, 2.0, "reached"), (DELAY, 1.001, "reached"), (DELAY, 1.0, "stretch reached"),
        (COPIES, 1.0004, "reached"), (COPIES, 1.0006, "missed"), (COPIES, 0.9994, "missed"), (COPIES, 2.0, "missed"),
        (replace(RATE, reach=None), 199.0, "stretch missed"), (replace(RATE, reach=None), 200.0, "stretch reached"),
    ],
)  # fmt: skip
def test_a_figure_is_on_one_side_of_its_bounds_or_on_the_other(target: Target, value: float, verdict: str) -> None:
    assert measured(target, of_exchange(str(target.figure), [value] * 3)).verdict == verdict


@pytest.mark.parametrize(
    ("target", "values", "verdict"),
    [
        (RATE, [90.0], "not decided (1 run)"), (RATE, [114.0], "not decided (1 run)"), (RATE, [84.0], "missed"),
        (RATE, [116.0], "reached"), (RATE, [210.0], "reached"), (RATE, [240.0], "stretch reached"),
        (DELAY, [1.9], "not decided (1 run)"), (DELAY, [0.9], "reached"), (DELAY, [2.4], "missed"),
        (COPIES, [1.0], "reached"), (COPIES, [1.1], "missed"),
        (RATE, [99.0, 120.0, 130.0], "reached, not in all runs"),
        (RATE, [99.0, 90.0, 130.0], "missed, not in all runs"),
        (RATE, [120.0, 130.0, 140.0], "reached"), (RATE, [190.0, 210.0, 220.0], "stretch reached, not in all runs"),
        (replace(RATE, reach=None), [190.0, 195.0, 220.0], "stretch missed, not in all runs"),
        (replace(RATE, reach=None), [190.0], "not decided (1 run)"),
    ],
)  # fmt: skip
def test_a_verdict_says_how_sure_it_is(target: Target, values: list[float | None], verdict: str) -> None:
    assert measured(target, of_exchange(str(target.figure), values)).verdict == verdict


@pytest.mark.parametrize(
    ("values", "verdict", "told"),
    [
        ([1.06, 1.07, 1.08, 1.09, 1.1, 1.15, 1.19], "reached", "1.06–1.19 (median 1.06–1.19)"),
        ([1.06, 1.07, 1.08, 1.09, 1.1, 1.15, 44.0], "not decided (7 pairs)", "1.06–44.00 (median 1.06–44.00)"),
        # The sign test leaves out the farthest on each side: one pair in nine does not count.
        ([1.06, 1.07, 1.08, 1.09, 1.1, 1.15, 1.16, 1.17, 44.0], "reached", "1.06–44.00 (median 1.07–1.17)"),
        ([1.06, 1.07, 44.0], "reached, not in all runs", "1.06–44.00"),
        ([1.3, 1.4, 1.5, 1.6, 1.7, 1.8], "missed", "1.30–1.80 (median 1.30–1.80)"),
    ],
)
def test_of_pairs_the_interval_of_their_median_decides(values: list[float], verdict: str, told: str) -> None:
    found = Measured(TIMES, values, "", "")
    assert (found.verdict, found.cells()[4]) == (verdict, told)


def test_a_result_that_lacks_points_is_said_to() -> None:
    whole = fabricated.result("nexmark", "full", 1)
    less = {"nexmark": Result(whole.head, whole.rows[:18]), "bins": fabricated.result("bins", "full", 1)}
    said = f"incomplete: 18 of {len(whole.rows)} points of nexmark"
    assert lines_of(less)[-1] == said
    assert any(line.startswith(said.capitalize()) for line in markdown_of(less))
    assert documents.nexmark_of(less)[-1] == said
    assert not any("ncomplete" in line for line in [*lines_of({"nexmark": whole}), *markdown_of({"nexmark": whole})])


def test_the_median_counts_and_the_spread_is_told() -> None:
    found = measured(RATE, of_exchange("rate_m_s", [50.0, 300.0, 120.0]))
    assert found.cells() == [
        "a rate", "≥ 100 M/s", "≥ 200 M/s", "120.0 M/s", "50.0–300.0", "3", "reached, not in all runs",
    ]  # fmt: skip
    assert found.command.startswith("megaphone exchange --records ")


def test_a_share_is_of_the_yardstick_of_its_minute() -> None:
    whole = of_exchange("rate_m_s", [65.0, 65.0, 65.0])
    for row, beside in zip(whole["marks"].rows, (130.0, 65.0, 260.0), strict=True):
        row["yardstick"] = {"increments_80mb_prefetch_m_s_2": beside}
    target = replace(RATE, beside="increments_80mb_prefetch_m_s_2", reach=0.4, stretch=0.7, unit="", digits=2)
    found = measured(target, whole)
    assert found.values == [0.5, 1.0, 0.25]
    assert found.verdict == "reached, not in all runs"


@pytest.mark.parametrize(("moved", "verdict"), [(1.21, "missed"), (1.2, "reached"), (1.05, "stretch reached")])
def test_a_pair_counts_by_the_median_of_its_ratios(moved: float, verdict: str) -> None:
    whole = fabricated.result("headline", "full", 3)
    for row in whole.rows:
        of = row["point"]["strategy"]
        slow_minute = 10.0 ** row["repeat"]
        row["figures"] = {"p99_ms": slow_minute * (moved if of == "sudden" else 1.0)}
    found = measured(TIMES, {"headline": whole})
    assert found.values == pytest.approx([moved] * 3)
    assert found.verdict == verdict
    assert found.command == whole.head["command"]


def test_what_was_not_measured_says_why_and_how_it_would_be() -> None:
    rows = of_exchange("rate_m_s", [None, None])
    cases = {
        "no result of marks": ({}, RATE),
        "the result has no run of it": (rows, replace(RATE, of={"mark": "closed loop"})),
        "its runs have no rate_m_s": (rows, RATE),
        "its runs have no p99_ms": (of_exchange("rate_m_s", [1.0]), DELAY),
        "its runs have no rate_m_s and nothing": (of_exchange("rate_m_s", [1.0]), replace(RATE, beside="nothing")),
        "the result of marks is of the smoke size": (of_exchange("rate_m_s", [999.0], "smoke"), RATE),
        "no round has p99_ms of both runs": ({"headline": one_sided()}, TIMES),
    }  # fmt: skip
    for why, (found, target) in cases.items():
        told = measured(target, found)
        assert (told.why, told.verdict, told.cells()[3:6]) == (why, "not measured", ["–", "–", "0"])
        assert told.command


def one_sided() -> Result:
    whole = fabricated.result("headline", "full", 2)
    return Result(whole.head, [row for row in whole.rows if row["point"]["strategy"] == "sudden"])


def test_what_the_machine_had_no_memory_for_says_so() -> None:
    whole = fabricated.result("headline", "full", 1)
    (closed,) = [t for t in TARGETS if t.experiment == "headline" and t.of.get("strategy") == "closed loop"]
    name = next(p.name for p in EXPERIMENTS["headline"].points("full") if p.parameters["strategy"] == "closed loop")
    head = {**whole.head, "left_out": {name: "needs 8.0 GB, of which 4.0 GB could be had"}}
    told = measured(closed, {"headline": Result(head, [])})
    assert (told.verdict, told.why) == ("not measured", "needs 8.0 GB, of which 4.0 GB could be had")


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.what)
def test_every_promise_is_a_figure_of_points_that_are_run(target: Target) -> None:
    experiment = EXPERIMENTS[target.experiment]
    of = [point.parameters for point in experiment.points("full") if target.of.items() <= point.parameters.items()]
    if isinstance(target.figure, Pair):
        assert target.figure in experiment.pairs
        of = [parameters for parameters in of if target.figure.over.items() <= parameters.items()]
    else:
        assert target.figure in experiment.figures(Anything(REPORT))
    assert len(of) == 1
    if target.beside:
        assert experiment.beside[str(target.figure)] == target.beside
    if target.reach is not None and target.stretch is not None:
        assert target.holds(target.stretch, target.reach)


def test_every_promise_is_measured_by_a_whole_run() -> None:
    whole = {name: fabricated.result(name, "full", 2) for name in {target.experiment for target in TARGETS}}
    told = [measured(target, whole) for target in TARGETS]
    assert {one.target.what: one.why for one in told if one.why} == {}
    assert len({one.target.what for one in told}) == len(TARGETS)


def test_the_table_has_a_line_for_each_promise_for_people_and_for_documents(tmp_path: Path) -> None:
    whole = {name: fabricated.result(name, "full", 2) for name in ("marks", "headline")}
    lines, rows = lines_of(whole), markdown_of(whole)
    assert len(lines) == len(TARGETS) + 1
    assert len(rows) == len(TARGETS) + 4
    assert {row.count(" | ") for row in [rows[0], *rows[2:-2]]} == {len(HEADER) - 1}
    assert "no result of nexmark: `megaphone bench run nexmark --size full`" in rows[-5]
    assert not any(tmp_path.iterdir())


DOCUMENT = (
    "# Figures\n\n<!-- targets -->\nold\n<!-- /targets -->\nbetween\n<!-- nexmark -->\n<!-- /nexmark -->\n"
    "<!-- rates -->\n<!-- /rates -->\n<!-- latencies -->\n<!-- /latencies -->\nend"
)


def test_a_document_gets_its_tables_and_keeps_all_else(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder, path = fabricated.folder(tmp_path), tmp_path / "figures.md"
    path.write_text(DOCUMENT)
    assert main(["bench", "targets", str(folder), "--into", str(path)]) == 0
    assert capfd.readouterr().out.split("\n") == [*(f"{path}: {name}" for name in TABLES), ""]
    text, found = path.read_text(), results.read_folder(folder)
    for name, table in TABLES.items():
        assert content(text, name) == table(found)
        assert main(["bench", "targets", str(folder), "--markdown", name]) == 0
        assert capfd.readouterr().out.splitlines() == table(found)
    emptied = text
    for name in TABLES:
        begin, end = region(emptied, name)
        emptied = emptied[:begin] + emptied[end:]
    assert emptied == DOCUMENT.replace("old\n", "")
    assert fill(path, found) == list(TABLES)
    assert path.read_text() == text


@pytest.mark.parametrize(
    "text",
    ["nothing", "<!-- targets -->\n", "<!-- /targets -->\n<!-- targets -->\n", 2 * DOCUMENT, "<!-- targets --> x\n"],
)
def test_a_document_without_a_place_is_refused_as_it_is(tmp_path: Path, text: str) -> None:
    path = tmp_path / "figures.md"
    path.write_text(text)
    with pytest.raises(UsageError, match="no place for a table|no region 'targets'"):
        fill(path, {})
    assert path.read_text() == text
    with pytest.raises(UsageError, match="cannot be read"):
        fill(tmp_path / "none.md", {})


def test_the_queries_need_their_result() -> None:
    with pytest.raises(UsageError, match="no result of nexmark: run megaphone bench run nexmark --size full"):
        documents.nexmark_of({})


def test_the_queries_stand_beside_the_originals() -> None:
    whole = fabricated.result("nexmark", "full", 1)
    rows = {(row["point"]["query"], row["point"]["style"]): row for row in whole.rows if
            row["point"]["windows"] == "12h"}  # fmt: skip
    rows["q5", "flex"]["figures"] |= {"highest_m_s": 8.4, "rate_over_original": 10.0, "half_p99_ms": 1.5}
    rows["q5", "plain"]["figures"] |= {"highest_m_s": 4.2, "half_p99_ms": 2.5}
    (line,) = [line for line in documents.nexmark_of({"nexmark": whole}) if line.startswith("| q5 ")]
    assert line == "| q5 | 4.20 | 8.40 | 2.00 | 0.84 | 10.00 | 2.50 | 1.50 | 22 |"


def test_rates_and_latencies_are_medians_with_their_least_and_most() -> None:
    whole = fabricated.result("marks", "full", 3)
    for row in whole.rows:
        if row["point"]["mark"] == "exchange":
            row["figures"]["rate_m_s"] = 270.6 + 10 * row["repeat"]
            row["yardstick"] = {"increments_80mb_prefetch_m_s_2": 7.0, "ring_m_records_s": 200.0}
        if (row["point"].get("backend"), row["point"].get("keys")) == ("vec", 1_000_000):
            row["figures"]["rate_m_s"] = 100.0
            row["yardstick"] = {"increments_80mb_prefetch_m_s_2": 7.0, "increments_8mb_m_s_2": 400.0}
        if row["point"]["mark"] == "100 k/s":
            row["figures"] |= {"p50_ms": 0.0204 + 0.01 * row["repeat"], "p99_ms": 4.0, "p999_ms": None}
    assert documents.rates_of({"marks": whole})[-1].endswith(" | 281 M | 271–291 | 1.40 of records through a ring |")
    assert documents.rates_of({"marks": whole})[3].endswith(" | 100 M | 100–100 | 0.25 of increments in 8 MB |")
    assert documents.latencies_of({"marks": whole})[2] == (
        "| 100 k records/s | 0.030 ms (0.020–0.040) | 4.00 ms (4.00–4.00) | – |"
    )
    for table in (documents.rates_of, documents.latencies_of):
        with pytest.raises(UsageError, match="no result of marks: run megaphone bench run marks --size full"):
            table({})


def test_documents_say_what_the_committed_results_say() -> None:
    found = results.read_folder(FULL)
    places = {"targets": "docs/figures.md", "nexmark": "README.md", "rates": "README.md", "latencies": "README.md"}
    assert places.keys() == TABLES.keys()
    for name, path in ((name, ROOT / path) for name, path in places.items()):
        if path.exists() and (name != "nexmark" or "nexmark" in found):
            told = f"megaphone bench targets docs/results/full --into {path.relative_to(ROOT)} writes it"
            assert content(path.read_text(), name) == TABLES[name](found), told
