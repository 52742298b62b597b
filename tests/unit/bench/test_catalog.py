"""What every experiment keeps: points that differ, figures that its table shows, rates beside a yardstick."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from megaphone.bench import command, flags, table
from megaphone.bench.catalog import EXPERIMENTS, chosen
from megaphone.bench.experiment import SIZES, Experiment
from megaphone.bench.gates import gates
from megaphone.bench.results import Result, read
from megaphone.bench.statistics import has_share
from megaphone.bench.yardstick import NAMES as NAMES_OF_YARDSTICK
from megaphone.bench.yardstick import QUICK
from megaphone.errors import UsageError
from megaphone.workloads.flags import build_parser

NAMES = {
    "bins", "strategies", "timeline", "throughput", "memory", "headline", "nexmark", "ledger", "rivals", "restart",
    "machine", "marks",
}  # fmt: skip
SMOKE = Path(__file__).parents[3] / "docs" / "results" / "smoke"
ALL = list(EXPERIMENTS.values())


class Anything(dict[str, Any]):
    """A report that has every figure, as one."""

    def __missing__(self, name: str) -> Any:
        return REPORT.get(name, 1.0)


def migration() -> Mapping[str, Any]:
    names = ("time_ns", "duration_ns", "warming_ns", "latency_ns_max", "keys", "bytes_moved", "bytes_copied", "lead_ns")
    return {**dict.fromkeys(names, 10**9), "steps": 1}


REPORT: dict[str, Any] = {
    "latency_ns": dict.fromkeys(("p50", "p90", "p99", "p999", "max"), 1),
    "ledger": Anything(),
    "memory": {"samples": [[0, 1, 1, 1, 1], [2 * 10**9, None, 1, 1, 1]], "pss_bytes_max": 1, "committed_bytes": 1},
    "migrations": [migration(), migration()],
    "switches": [{"time_ns": 1, "latency_ns": Anything(), "worst_slice_ns": Anything(), "slices": [[1, 2, 3, 4]]}],
    "timeline": [[0, 1, 2, 3, 4, 5, 6, 7]],
    "query": "q3-flex",
    "windows": "12h",
    "figures": Anything(),
}


def test_there_is_an_experiment_of_each_name() -> None:
    assert {*EXPERIMENTS} >= NAMES


@pytest.mark.parametrize("experiment", ALL, ids=lambda one: one.name)
@pytest.mark.parametrize("size", SIZES)
def test_points_differ_and_can_be_told_apart(experiment: Experiment, size: Any) -> None:
    points = experiment.points(size)
    assert points
    assert len({point.name for point in points}) == len(points)
    assert all(point.seconds > 0 for point in points)


@pytest.mark.parametrize("experiment", ALL, ids=lambda one: one.name)
@pytest.mark.parametrize("size", SIZES)
def test_every_point_is_a_command_that_parses(experiment: Experiment, size: Any) -> None:
    for point in experiment.points(size):
        if point.module == "megaphone":
            build_parser().parse_args([*point.flags, "--seed", "1", "--report", "x"])
        else:
            assert importlib.util.find_spec(point.module), point.module


@pytest.mark.parametrize("experiment", ALL, ids=lambda one: one.name)
def test_every_column_is_a_figure(experiment: Experiment) -> None:
    if experiment.name == "machine":
        return  # its figures are the yardstick's own names
    figures = experiment.figures(Anything(REPORT))
    assert {column.figure for column in experiment.columns} <= {*figures}
    assert {*experiment.beside} <= {*figures}


NEITHER = {"moved_mb", "moved_m_keys", "recycled_per_k_batches", "installed"}
"""What only tells how much was done, or how."""


@pytest.mark.parametrize("experiment", ALL, ids=lambda one: one.name)
def test_every_column_says_which_way_it_is_better(experiment: Experiment) -> None:
    for column in experiment.columns:
        unit = experiment.name == "machine" and NAMES_OF_YARDSTICK[column.figure][0]
        is_rate = "_m_s" in column.figure or "gb_s" in column.figure or unit in ("GB/s", "M/s")
        is_rate = is_rate or column.figure in ("moved_m_keys_s", "rate_over_original")
        wanted = "neither" if column.figure in NEITHER else "more" if is_rate else "less"
        assert column.better == wanted, column.figure
    assert all(experiment.better(pair.figure) != "neither" for pair in experiment.pairs)


@pytest.mark.parametrize(
    ("name", "figure"),
    [("machine", "copy_256m_gb_s_2"), ("machine", "increments_8mb_m_s_2"), ("nexmark", "rate_over_original")],
)
def test_twice_a_rate_is_better_whatever_its_name_ends_in(name: str, figure: str) -> None:
    experiment = EXPERIMENTS[name]
    point = experiment.points("full")[0]

    def result(factor: float) -> Result:
        rows = [{"point": dict(point.parameters), "repeat": n, "paced": False, "yardstick": {},
                 "figures": {figure: factor * (100 + n)}} for n in range(7)]  # fmt: skip
        return Result({}, rows)

    def verdict(a: Result, b: Result) -> str:
        return table.lines_compared(table.adjusted(list(table.compared(experiment, a, b))))[1].split()[-1]

    assert verdict(result(1), result(2)) == "better"
    assert verdict(result(2), result(1)) == "worse"


@pytest.mark.parametrize("experiment", [one for one in ALL if one.pairs], ids=lambda one: one.name)
def test_every_pair_is_of_a_figure_that_two_points_of_one_round_have(experiment: Experiment) -> None:
    figures = experiment.figures(Anything(REPORT))
    points = [dict(point.parameters) for point in experiment.points("full")]
    for pair in experiment.pairs:
        assert pair.figure in figures
        above = [of for of in points if pair.over.items() <= of.items()]
        assert above
        assert all({**of, **pair.under} in points and {*pair.over} == {*pair.under} for of in above)


def test_a_point_is_run_as_often_as_it_says_unless_somebody_wants_something_else() -> None:
    headline = EXPERIMENTS["headline"]
    rounds = {str(point.parameters["strategy"]): headline.rounds(point, "full") for point in headline.points("full")}
    assert rounds == {"none": 15, "sudden": 15, "closed loop": 3}
    assert {headline.rounds(point, "smoke") for point in headline.points("smoke")} == {1}
    assert {headline.rounds(point, "full", 2) for point in headline.points("full")} == {2}


def test_growth_that_nobody_counted_is_no_figure() -> None:
    marks = EXPERIMENTS["marks"]
    assert marks.figures(Anything(REPORT))["grow_pause_ms"] is None
    counted = {**REPORT, "ledger": Anything({"grow_pause_max_ns": 250_000})}
    assert marks.figures(Anything(counted))["grow_pause_ms"] == 0.25


def test_a_billion_keys_are_told_by_the_way_there_whose_pages_nobody_had_mapped() -> None:
    def switch(ms: int) -> dict[str, Any]:
        return {"time_ns": 7, "latency_ns": {"p99": ms * 10**6, "max": 1}, "worst_slice_ns": {"p99": ms * 2 * 10**6},
                "slices": [[7, 1, ms * 10**6, 3]]}  # fmt: skip

    moves = [{**migration(), "duration_ns": 1_050_000, "lead_ns": 1_000_000}, {**migration(), "lead_ns": 0}]
    report = Anything({**REPORT, "switches": [switch(3), switch(50)], "migrations": moves})
    headline = EXPERIMENTS["headline"]
    figures = headline.figures(report)
    assert (figures["second_p99_ms"], figures["worst_10ms_p99_ms"], figures["handover_ms"]) == (3.0, 6.0, 0.05)
    assert headline.series(report)["slices"] == [[0.0, 0.0, 3.0, 0.0]]
    still = headline.figures(Anything({**report, "migrations": []}))
    assert (still["second_p99_ms"], still.get("handover_ms")) == (3.0, None)
    assert headline.figures(Anything({**report, "switches": []}))["second_p99_ms"] is None


def test_flex_is_told_over_the_originals_where_it_has_one() -> None:
    nexmark = EXPERIMENTS["nexmark"]
    told = {"query": "q5-flex", "windows": "12h", "highest_m_s": 8.4, "half_p99_ms": 11.0}
    figures = nexmark.figures(Anything(told))
    assert figures["rate_over_original"] == pytest.approx(10)
    assert figures["p99_over_original"] == 0.5
    for other in ({"query": "q5"}, {"windows": "closing"}):
        assert nexmark.figures(Anything({**told, **other}))["rate_over_original"] is None


def test_a_search_of_nexmark_is_told_as_a_minute() -> None:
    assert {point.seconds for point in EXPERIMENTS["nexmark"].points("full")} == {60.0}
    (line,) = [line.split() for line in command.listed() if line.startswith("nexmark")]
    assert line[1:3] == ["28", "min"]


@pytest.mark.parametrize("experiment", ALL, ids=lambda one: one.name)
def test_what_stands_beside_is_measured_each_minute(experiment: Experiment) -> None:
    assert {*experiment.yardsticks} <= {*QUICK}
    assert experiment.yardsticks or experiment.name == "machine"


@pytest.mark.parametrize("experiment", ALL, ids=lambda one: one.name)
def test_what_is_said_to_be_a_share_is_a_rate_in_the_unit_of_its_yardstick(experiment: Experiment) -> None:
    for figure, beside in experiment.beside.items():
        assert has_share(figure, beside), (figure, beside)


@pytest.mark.parametrize("experiment", ALL, ids=lambda one: one.name)
def test_every_experiment_that_has_a_rate_has_a_gate(experiment: Experiment) -> None:
    result = read(SMOKE / f"{experiment.name}.json")
    found = gates(experiment, result, result)
    assert bool(found) == (experiment.name not in ("machine", "restart"))
    assert all(one.failure(0.99) is None for one in found)
    assert all(one.failure(1.01) for one in found)


def test_names_are_chosen_once_and_a_wrong_one_is_told_with_all() -> None:
    assert [one.name for one in chosen(["bins", "marks", "bins"])] == ["bins", "marks"]
    assert chosen(["all"]) == ALL
    with pytest.raises(UsageError, match=r"no experiment 'bin': there are .*bins.*, and all"):
        chosen(["bin"])


def test_the_commands_are_in_the_program() -> None:
    def parsed(*words: str) -> argparse.Namespace:
        return build_parser(flags.add_commands).parse_args(words)

    assert parsed("bench", "run", "bins", "--size", "smoke").command == "bench run"
    assert parsed("bench", "list").command == "bench list"
    assert parsed("bench", "compare", "a", "b").command == "bench compare"
    assert parsed("bench", "targets", "a", "--markdown").markdown == "targets"


def test_pss_is_told_right_before_the_first_migration_and_right_after_the_last() -> None:
    moves = [{**migration(), "time_ns": at * 10**9} for at in (3, 6)]  # each a second long
    samples = [[at * 10**9, pss, 1, 1, 1] for at, pss in ((1, 10e6), (2, 20e6), (4, 90e6), (8, None), (9, 30e6))]
    memory = {"samples": [*samples, [10 * 10**9, 40e6, 1, 1, 1]], "pss_bytes_max": 90e6, "committed_bytes": 1}
    figures = EXPERIMENTS["memory"].figures({**REPORT, "ledger": Anything(), "memory": memory, "migrations": moves,
                                             "records_per_s": 1.0})  # fmt: skip
    assert (figures["pss_mb_before"], figures["pss_mb_after"], figures["pss_mb"]) == (20.0, 30.0, 90.0)


def test_pss_is_read_often_enough_to_be_seen_beside_each_migration() -> None:
    for point in EXPERIMENTS["memory"].points("full"):
        flags = list(point.flags)
        interval, length = (float(flags[flags.index(flag) + 1]) for flag in ("--pss-interval", "--duration"))
        # Migrations are at one and two thirds of a run.
        assert length / 3 / interval >= 10
