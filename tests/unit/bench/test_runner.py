"""Running points in turns, going on where it stopped, and what is refused; the points are programs of some lines."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from megaphone.bench import command, results, runner, table
from megaphone.bench.catalog import EXPERIMENTS
from megaphone.bench.experiment import Column, Experiment, Pair, Point
from megaphone.bench.experiments.reports import word_count
from megaphone.bench.statistics import ratio
from megaphone.cli import main
from megaphone.errors import MegaphoneError, UsageError

PROGRAM = """
import argparse, json, os, pathlib, sys
parser = argparse.ArgumentParser()
for flag in ("--speed", "--seed", "--report"):
    parser.add_argument(flag)
parser.add_argument("--quick", action="store_true")
given = parser.parse_args()
with open(os.environ["FAKE_LOG"], "a") as log:
    log.write(f"{'yardstick' if given.quick else given.speed}:{given.seed}\\n")
if given.speed == os.environ.get("FAKE_FAILS", "never"):
    sys.exit("fake: no luck today")
told = {"figures": {"increments_8mb_m_s_2": 100.0}} if given.quick else {"rate_m_s": float(given.speed)}
pathlib.Path(given.report).write_text(json.dumps(told))
"""


def figures(report: Mapping[str, Any]) -> dict[str, float | None]:
    return {"rate_m_s": report["rate_m_s"]}


FAKE = Experiment(
    name="fake",
    shows="nothing",
    after="nobody",
    points=lambda _: [Point({"speed": speed}, "fake_point", ("--speed", str(speed))) for speed in (10, 20)],
    figures=figures,
    columns=(Column("rate_m_s", "M/s", 1, better="more"),),
    beside={"rate_m_s": "increments_8mb_m_s_2"},
)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file in which every run leaves a line; the one experiment is the fake."""
    (tmp_path / "fake_point.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    monkeypatch.setattr(runner, "YARDSTICK", Point({}, "fake_point", ("--quick",)))
    monkeypatch.setattr(command, "EXPERIMENTS", {"fake": FAKE})
    monkeypatch.setattr(command, "chosen", lambda _: [FAKE])
    return tmp_path / "log"


def run(folder: Path, repeat: int = 2, seed: int = 5) -> tuple[list[str], list[str]]:
    """Run the fake; what was said, and what was told."""
    said: list[str] = []
    told: list[str] = []
    command.run(["fake"], "smoke", repeat, seed, folder, talk=told.append, say=said.extend)
    return said, told


def test_rounds_go_in_turns_each_with_a_seed_of_its_own(log: Path, tmp_path: Path) -> None:
    said, told = run(tmp_path / "out")
    assert log.read_text().split() == ["yardstick:5", "10:5", "20:5", "10:6", "20:6"]
    assert told == []
    assert [line.split() for line in said[1:-1]] == [
        ["speed", "M/s", "M/s", "share", "runs"],
        ["10", "10.0", "0.100", "2"],
        ["20", "20.0", "0.200", "2"],
        ["share:", "of", "increments_8mb_m_s_2", "of", "the", "same", "minute"],
    ]


def test_a_point_with_rounds_of_its_own_takes_part_in_the_first_of_them(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, fast = FAKE.points("smoke")
    fake = replace(FAKE, points=lambda _: [slow, replace(fast, repeat=1)], repeat={"smoke": 3, "full": 1})
    monkeypatch.setattr(command, "chosen", lambda _: [fake])
    command.run(["fake"], "smoke", None, 5, tmp_path, talk=print, say=lambda _: None)
    assert log.read_text().split() == ["yardstick:5", "10:5", "20:5", "10:6", "10:7"]
    # What made it is what makes it again.
    assert results.read(tmp_path / "fake.json").head["command"] == "megaphone bench run fake --size smoke --seed 5"


def test_a_row_tells_all_about_its_run(log: Path, tmp_path: Path) -> None:
    run(tmp_path)
    assert log.exists()
    content = json.loads((tmp_path / "fake.json").read_text())
    assert {"machine", "commit", "version", "packages", "command", "seed", "size", "tree"} <= {*content}
    assert content["command"] == "megaphone bench run fake --size smoke --repeat 2 --seed 5"
    row = content["rows"][0]
    assert row["command"] == "python -m fake_point --speed 10 --seed 5"
    assert row["point"] == {"speed": 10}
    assert row["figures"] == {"rate_m_s": 10.0}
    assert row["yardstick"] == {"increments_8mb_m_s_2": 100.0}


def test_what_was_interrupted_goes_on_where_it_stopped(log: Path, tmp_path: Path) -> None:
    run(tmp_path, repeat=1)
    log.unlink()
    run(tmp_path, repeat=2)
    assert log.read_text().split() == ["yardstick:5", "10:6", "20:6"]
    log.unlink()
    run(tmp_path, repeat=2)
    assert not log.exists()


def command_in(path: Path) -> str:
    return str(results.read(path / "fake.json").head["command"]).replace("megaphone bench run fake --size smoke", "run")


def test_the_command_of_a_result_is_the_one_that_gives_what_is_in_it(log: Path, tmp_path: Path) -> None:
    run(tmp_path, repeat=1)
    assert command_in(tmp_path) == "run --repeat 1 --seed 5"
    run(tmp_path, repeat=2)
    assert command_in(tmp_path) == "run --repeat 2 --seed 5"
    # Nothing is run, and nothing goes away.
    run(tmp_path, repeat=1)
    assert command_in(tmp_path) == "run --repeat 2 --seed 5"
    assert log.read_text().split()[1:3] == ["10:5", "20:5"]


def test_an_interrupted_command_that_is_followed_by_a_smaller_one_gives_way_to_it(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FAILS", "20")
    with pytest.raises(MegaphoneError):
        run(tmp_path, repeat=1)
    assert command_in(tmp_path) == "run --repeat 1 --seed 5"
    monkeypatch.delenv("FAKE_FAILS")
    content = json.loads((tmp_path / "fake.json").read_text())
    content["command"] = "megaphone bench run fake --size smoke --repeat 7 --seed 5"
    (tmp_path / "fake.json").write_text(json.dumps(content))
    run(tmp_path, repeat=1)
    assert command_in(tmp_path) == "run --repeat 1 --seed 5"
    assert len(log.read_text().split()) == 5  # of which the yardstick twice, and what failed twice


def test_rows_that_no_one_command_gives_have_two(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, fast = FAKE.points("smoke")
    fake = replace(FAKE, points=lambda _: [slow, replace(fast, repeat=1)], repeat={"smoke": 3, "full": 1})
    monkeypatch.setattr(command, "chosen", lambda _: [fake])
    for repeat in (None, 2, None, 2):
        command.run(["fake"], "smoke", repeat, 5, tmp_path, talk=print, say=lambda _: None)
    assert log.read_text().split()[1:5] == ["10:5", "20:5", "10:6", "10:7"]
    assert command_in(tmp_path) == "run --seed 5 && run --repeat 2 --seed 5"


def test_a_run_that_fails_is_told_and_tried_again(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_FAILS", "10")
    told: list[str] = []
    with pytest.raises(MegaphoneError, match="1 runs failed; the same command tries them again"):
        command.run(["fake"], "smoke", 1, 0, tmp_path, talk=told.append, say=lambda _: None)
    assert told == [
        "megaphone: fake speed=10: exit code 1: fake: no luck today (python -m fake_point --speed 10 --seed 0)"
    ]
    monkeypatch.delenv("FAKE_FAILS")
    log.unlink()
    run(tmp_path, repeat=1, seed=0)
    assert log.read_text().split() == ["yardstick:0", "10:0"]


def lines_compared(experiment: Experiment, a: results.Result, b: results.Result) -> list[str]:
    return table.lines_compared(table.adjusted(list(table.compared(experiment, a, b))))


PAIRED = replace(FAKE, pairs=(Pair("rate_m_s", {"speed": 2}, {"speed": 1}),))


def pairs_of(slow: list[float | None], fast: list[float | None], first: int = 0) -> results.Result:
    both = [result_of([]) for _ in range(2)]
    for result, speed, rates in zip(both, (1, 2), (slow, fast), strict=True):
        result.rows += [
            {**result_of([0.0]).rows[0], "point": {"speed": speed}, "repeat": turn, "figures": {"rate_m_s": rate}}
            for turn, rate in enumerate(rates, first)
        ]
    return results.Result(both[0].head, both[0].rows + both[1].rows)


def test_a_pair_is_a_ratio_in_each_round_and_not_of_medians() -> None:
    result = pairs_of([10.0, 100.0, 1.0, None, 5.0, 0.0], [20.0, 150.0, 3.0, 7.0, None, 1.0])
    assert table.ratios(result, PAIRED.pairs[0]) == [({"speed": 2}, [2.0, 1.5, 3.0])]
    assert [line.split() for line in table.lines_of(PAIRED, result)[-2:]] == [
        ["ratio", "in", "one", "round", "median", "least", "most", "pairs"],
        ["2/1", "rate_m_s", "2.000", "1.500", "3.000", "3"],
    ]


def test_a_run_without_its_other_half_is_no_pair() -> None:
    assert table.ratios(pairs_of([], [20.0]), PAIRED.pairs[0]) == [({"speed": 2}, [])]
    assert table.ratios(pairs_of([20.0], []), PAIRED.pairs[0]) == []


def test_pairs_are_compared_as_all_else_is() -> None:
    a, b = pairs_of([1.0] * 4, [2.0, 2.1, 2.2, 2.3]), pairs_of([1.0] * 4, [4.0, 4.1, 4.2, 4.3])
    found = {one.figure: one.found.proven for one in table.compared(PAIRED, a, b)}
    assert found["2/1 rate_m_s"]
    assert lines_compared(PAIRED, a, b)[-1].split()[-1] == "better"


@pytest.mark.parametrize(
    ("name", "value"), [("tree", "0" * 16), ("seed", 9), ("size", "full"), ("machine", {"cpu": "x"})]
)
def test_rows_of_something_else_are_not_mixed(log: Path, tmp_path: Path, name: str, value: object) -> None:
    run(tmp_path, repeat=1)
    assert log.exists()
    path = tmp_path / "fake.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, name: value}))
    with pytest.raises(UsageError, match=f"fake.json: has rows of another {name} .*another --output, or remove"):
        run(tmp_path, repeat=1)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows": []}', "\0"])
def test_a_file_that_is_no_result_is_refused_in_one_line(log: Path, tmp_path: Path, text: str) -> None:
    assert not log.exists()
    (tmp_path / "fake.json").write_text(text)
    with pytest.raises(UsageError, match=r"fake\.json: (is no result|cannot be read as a result)") as error:
        run(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError):
        list(command.compare(tmp_path, tmp_path, None))


@pytest.mark.parametrize("repeat", [0, -1])
def test_no_rounds_measure_nothing(log: Path, tmp_path: Path, repeat: int) -> None:
    assert not log.exists()
    with pytest.raises(UsageError, match=f"--repeat: {repeat} rounds measure nothing"):
        run(tmp_path, repeat=repeat)


def test_a_folder_that_cannot_be_made_is_named(log: Path, tmp_path: Path) -> None:
    assert not log.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be made"):
        run(tmp_path / "file" / "below")
    with pytest.raises(UsageError, match="cannot be made"):
        run(tmp_path / "file")


def test_a_point_that_does_not_fit_into_memory_is_left_out_and_told(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = Point({"speed": 99}, "fake_point", ("--speed", "99"), memory_bytes=1 << 60)
    monkeypatch.setattr(runner, "memory_info", lambda: {"MemAvailable": 1 << 40})
    monkeypatch.setattr(command, "chosen", lambda _: [Experiment(**{**vars(FAKE), "points": lambda _: [big]})])
    said, told = run(tmp_path)
    assert told == ["megaphone: fake speed=99: left out, it needs 1152921504.6 GB"]
    assert not log.exists()
    why = "needs 1152921504.6 GB, of which 879.6 GB could be had"
    assert said[-2] == f"left out: speed=99: {why}"
    assert results.read(tmp_path / "fake.json").head["left_out"] == {"speed=99": why}
    # On the day on which it fits, it is run, and is not said to be left out.
    monkeypatch.setattr(runner, "memory_info", lambda: {"MemAvailable": 1 << 61})
    said, _ = run(tmp_path, repeat=1)
    assert log.read_text().split() == ["yardstick:5", "99:5"]
    assert not any("left out" in line for line in said)
    monkeypatch.setattr(runner, "memory_info", lambda: {"MemAvailable": 1 << 40})
    said, _ = run(tmp_path, repeat=1)
    assert not any("left out" in line for line in said)
    assert results.read(tmp_path / "fake.json").head["left_out"] == {}


def result_of(rates: list[float], yardstick: float = 100.0) -> results.Result:
    rows = [
        {"point": {"speed": 1}, "repeat": n, "figures": {"rate_m_s": rate}, "series": {}, "command": "", "started": "",
         "paced": False, "seconds": 1, "yardstick": {"increments_8mb_m_s_2": yardstick}}
        for n, rate in enumerate(rates)
    ]  # fmt: skip
    return results.Result(results.head_of("fake", "smoke", 0, ""), rows)


def test_only_runs_of_full_size_that_take_memory_while_they_are_measured_have_it_touched_before(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched: list[int] = []
    monkeypatch.setattr(runner, "touch_memory", touched.append)
    first, second = FAKE.points("smoke")
    for takes, size, expected in ((0, "full", []), (7, "smoke", []), (7, "full", [7])):
        one = replace(FAKE, points=lambda _, takes=takes: [first, replace(second, touched_bytes=takes)])  # type: ignore[misc]
        monkeypatch.setattr(command, "chosen", lambda _, one=one: [one])
        command.run(["fake"], size, 1, 5, tmp_path / f"{takes}{size}", talk=[].append, say=[].extend)  # type: ignore[arg-type]
        assert touched == expected
    assert len(log.read_text().split()) == 9  # two points and a yardstick, three times


def test_runs_that_grow_or_copy_have_twice_their_state_touched_and_others_nothing() -> None:
    of = {"mark": "a"}
    assert word_count(of, 1, domain=1000, rate=None).touched_bytes == 0
    for flags in (("--no-preload",), ("--migration", "sudden", "--transfer", "copy")):
        point = word_count(of, 1, *flags, domain=1000, rate=None)
        assert point.touched_bytes == 2 * point.memory_bytes > 0


def test_memory_that_is_touched_is_what_a_run_takes_and_a_part_of_what_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "memory_info", lambda: {"MemAvailable": 4 << 30})
    assert runner.touch_memory(0) == 0
    assert runner.touch_memory(1 << 29) == 1 << 29
    monkeypatch.setattr(runner, "memory_info", lambda: {"MemAvailable": 1 << 29})
    assert runner.touch_memory(1 << 40) == 1 << 29


def test_what_the_host_takes_is_read_from_the_kernels_line(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  1 2 3 4 5 6 7 250 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\n")
    assert runner.stolen_seconds(stat) == 250 / os.sysconf("SC_CLK_TCK")
    stat.write_text("cpu  1 2 3 4\n")
    assert runner.stolen_seconds(stat) == 0.0
    assert runner.stolen_seconds(tmp_path / "none") == 0.0


def test_rates_are_compared_as_shares_of_the_machines_minute() -> None:
    a, b = result_of([50.0] * 4, 100.0), result_of([25.0] * 4, 50.0)
    (one,) = table.compared(FAKE, a, b)
    assert (one.figure, one.found.middle, one.found.proven, one.is_share) == ("rate_m_s", 1.0, False, True)


@pytest.mark.parametrize(
    ("now", "verdict"), [([9.0, 9.1, 9.2, 9.3], "better"), ([1, 1.1, 1.2, 1.3], "worse"), ([5, 5.1, 5.2, 5], "noise")]
)
def test_a_difference_is_better_worse_or_noise(now: list[float], verdict: str) -> None:
    lines = lines_compared(FAKE, result_of([5.0, 5.1, 5.2, 5.1]), result_of(now))
    assert lines[1].split()[-1] == verdict


def verdict_of(a: list[float], b: list[float]) -> str:
    return lines_compared(FAKE, result_of(a), result_of(b))[1].split("  ")[-1].strip()


@pytest.mark.parametrize(("n", "m"), [(1, 1), (3, 3), (2, 7)])
def test_what_so_few_runs_cannot_prove_is_not_called_noise(n: int, m: int) -> None:
    assert verdict_of([5.0] * n, [5.0 * 512] * m) == "too few runs"


def test_three_runs_against_seven_can_be_proof() -> None:
    assert verdict_of([1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]) == "better"
    assert verdict_of([1.0, 5.5, 11.0], [4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]) == "noise"


def test_among_many_tests_more_has_to_be_apart() -> None:
    ((apart, equal),) = [(ratio([1, 2, 3, 4], [5, 6, 7, 8]), ratio([1, 4, 2, 3], [1, 4, 2, 3]))]
    assert apart is not None
    assert equal is not None
    one, other = (table.Difference({"n": 1}, "rate_m_s", "more", found) for found in (apart, equal))
    assert table.lines_compared(table.adjusted([one]))[1].endswith("better")
    lines = table.lines_compared(table.adjusted([one, *[other] * 9]))
    # Four against four among ten: not even ranks wholly apart are proof.
    assert {line.split("  ")[-1].strip() for line in lines[1:]} == {"too few runs"}
    lines = table.lines_compared(table.adjusted([*[one] * 9, other]))
    assert [line.split("  ")[-1].strip() for line in lines[1:]] == ["better"] * 9 + ["noise"]


def test_all_tests_of_one_comparison_are_adjusted_together_and_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(FAKE, name="other")
    monkeypatch.setattr(command, "EXPERIMENTS", {"fake": FAKE, "other": other})
    for folder, fake, same in (("a", [1.0, 2, 3, 4], [5.0] * 4), ("b", [5.0, 6, 7, 8], [5.0] * 4)):
        (tmp_path / folder).mkdir()
        result_of(fake).write(tmp_path / folder / "fake.json")
        one = result_of(same)
        one.head["experiment"] = "other"
        one.write(tmp_path / folder / "other.json")
    lines = list(command.compare(tmp_path / "a", tmp_path / "b", None))
    assert lines[2].split()[-4:] == ["0.057", "too", "few", "runs"]
    assert lines[-2:] == [
        "p: adjusted for 2 tests (Benjamini and Hochberg); 0 more have too few runs",
        "A and B were not run in turns: what is no share of a yardstick, such as a latency, also differs by the hour",
    ]


def test_results_of_different_sizes_are_not_compared(log: Path, tmp_path: Path) -> None:
    assert not log.exists()
    for size in ("full", "smoke"):
        (tmp_path / size).mkdir()
        one = result_of([1.0])
        one.head["size"] = size
        one.write(tmp_path / size / "fake.json")
    with pytest.raises(UsageError, match=r"^fake is of size full in .* and of size smoke in .*: give two folders"):
        list(command.compare(tmp_path / "full", tmp_path / "smoke", None))


@pytest.mark.parametrize(
    ("before", "now", "verdict"),
    [([0.0] * 4, [100.0] * 4, "worse"), ([1.0] * 4, [0.0] * 4, "better"), ([0.0], [1.0], "worse, too few runs")],
)
def test_copies_that_were_none_and_are_some_are_told(before: list[float], now: list[float], verdict: str) -> None:
    copies = replace(FAKE, columns=(Column("copies", "copies", 3, better="less"),), beside={})

    def result(values: list[float]) -> results.Result:
        made = result_of(values)
        for row in made.rows:
            row["figures"] = {"copies": row["figures"]["rate_m_s"]}
        return made

    (line,) = lines_compared(copies, result(before), result(now))[1:]
    assert f"{before[0]:.0f} -> {now[0]:.0f}" in line
    assert line.endswith(f" {verdict}")


def compared_at(tmp_path: Path, a: results.Result | None, b: results.Result | None, least: float) -> list[str]:
    """Write both as results of the fake, beside an other that is the same, and compare."""
    for name, result in (("a", a), ("b", b)):
        (tmp_path / name).mkdir()
        same = result_of([1.0])
        same.head["experiment"] = "other"
        same.write(tmp_path / name / "other.json")
        if result is not None:
            result.write(tmp_path / name / "fake.json")
    return list(command.compare(tmp_path / "a", tmp_path / "b", least))


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "EXPERIMENTS", {"fake": FAKE, "other": replace(FAKE, name="other")})


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize(("least", "fails"), [(0.2, False), (0.333, True)])
def test_a_rate_below_its_least_part_fails_and_is_named(tmp_path: Path, least: float, fails: bool) -> None:
    if fails:
        with pytest.raises(command.BelowLeastError, match=r"below 0\.333 of A, or missing: fake 1: rate_m_s 0\.250$"):
            compared_at(tmp_path, result_of([60.0]), result_of([15.0]), least)
    else:
        lines = compared_at(tmp_path, result_of([60.0]), result_of([15.0]), least)
        assert lines[-2:] == ["fake: 1 gates (rate_m_s)", "other: 1 gates (rate_m_s)"]


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("lacking", ["experiment", "point", "figure", "yardstick", "left out"])
def test_what_the_new_result_lacks_fails_and_is_named(tmp_path: Path, lacking: str) -> None:
    now: results.Result | None = result_of([60.0])
    why = "fake 1: rate_m_s is not there"
    if lacking == "experiment":
        now, why = None, "fake is not there"
    elif lacking == "figure":
        now = result_of([60.0])
        now.rows[0]["figures"] = {"rate_m_s": None}
    elif lacking == "yardstick":
        now = result_of([60.0])
        now.rows[0]["yardstick"] = {}
    else:
        now, why = result_of([60.0]), "fake 1: is not there"
        now.rows[0]["point"] = {"speed": 2}
        if lacking == "left out":
            now.head["left_out"] = {"speed=1": "needs 9 GB"}
            why = "fake 1: needs 9 GB"
    with pytest.raises(command.BelowLeastError, match=f"or missing: {why}$"):
        compared_at(tmp_path, result_of([60.0]), now, 0.3)


@pytest.mark.usefixtures("two")
def test_a_run_that_was_offered_a_rate_must_keep_up_with_it(tmp_path: Path) -> None:
    def offered(rate_m_s: float) -> results.Result:
        made = result_of([rate_m_s], 0.0)
        made.rows[0] |= {"paced": True, "command": "python -m megaphone word-count --total-rate 200000 --seed 0"}
        return made

    with pytest.raises(command.BelowLeastError, match=r"fake 1: kept_of_offered 0\.200$"):
        compared_at(tmp_path, offered(0.2), offered(0.04), 0.3)


@pytest.mark.usefixtures("two")
def test_an_experiment_without_a_rate_is_said_to_have_none(tmp_path: Path) -> None:
    timed = result_of([1.0])
    timed.rows[0]["figures"] = {"took_ms": 5.0}
    assert compared_at(tmp_path, timed, timed, 0.3)[-2] == "fake: no gated rate: it only had to end"


def test_folders_without_results_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no result"):
        list(command.compare(tmp_path, tmp_path / "none", None))


def test_the_list_names_every_experiment_with_its_length() -> None:
    assert [line.split()[0] for line in command.listed()[1:]] == list(EXPERIMENTS)


def test_a_rate_that_was_asked_for_is_no_figure() -> None:
    asked = result_of([50.0] * 4)
    for row in asked.rows:
        row["paced"] = True
    assert table.lines_of(FAKE, asked)[0].split() == ["speed", "M/s", "runs"]
    assert list(table.compared(FAKE, asked, asked)) == []


def test_a_gate_that_fails_is_told_behind_the_lines_that_explain_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    committed = Path(__file__).parents[3] / "docs" / "results" / "smoke" / "rivals.json"
    slow = json.loads(committed.read_text())
    for row in slow["rows"]:
        row["figures"] = {name: one / 10 if isinstance(one, float) else one for name, one in row["figures"].items()}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    shutil.copy(committed, tmp_path / "a" / "rivals.json")
    (tmp_path / "b" / "rivals.json").write_text(json.dumps(slow))
    assert main(["bench", "compare", str(tmp_path / "a"), str(tmp_path / "b"), "--least", "0.333"]) != 0
    out, err = capsys.readouterr()
    assert out.startswith("rivals: A is ")
    assert "below 0.333 of A" in err


def test_a_rival_that_is_not_installed_is_told_and_is_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    committed = Path(__file__).parents[3] / "docs" / "results" / "smoke" / "rivals.json"
    without = json.loads(committed.read_text())
    for row in without["rows"]:
        if row["point"]["rival"] == "mpi4py":
            row["figures"] = dict.fromkeys(row["figures"]) | {"installed": "not installed"}
    (tmp_path / "rivals.json").write_text(json.dumps(without))
    assert main(["bench", "compare", str(committed.parent), str(tmp_path), "--least", "0.333"]) == 1
    out, err = capsys.readouterr()
    assert "rivals: 12 gates (rate_m_s, sent_gb_s); 2 points are of what is not installed" in out
    assert "mpi4py" not in err
