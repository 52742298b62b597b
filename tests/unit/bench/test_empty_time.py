"""Measuring an empty time: at a tiny size, that what is measured is what the program says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megaphone.bench import empty_time

TIMES = 30


@pytest.mark.parametrize("workers", [1, 2])
def test_the_report_has_its_figures_and_every_time_has_passed(
    workers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report.json"
    assert empty_time.main(["-w", str(workers), "--times", str(TIMES), "--report", str(path)]) == 0
    report = json.loads(path.read_text())
    assert (report["workers"], report["times"]) == (workers, TIMES)
    assert 0 < report["us_min"] <= report["us_p50"] <= report["us_p99"]
    assert {"us_mean", "version", "machine", "command"} <= report.keys()
    # One time to begin with, then those that warm up and those that count; a worker that is ahead waits for the others.
    assert report["frontiers"] == [1 + TIMES // empty_time.WARM_UP_SHARE + 1 + TIMES] * workers
    out = capsys.readouterr()
    assert out.out.startswith(f"{workers} workers, {TIMES} empty times: p50 ")
    assert (out.out.count("\n"), out.err) == (1, "")


def test_one_worker_needs_one_step_and_no_more_activations_than_operators_and_inputs_see() -> None:
    report = empty_time.measure(1, TIMES)
    # The main program, F, S and the sink; F's feedback moves with the same counts, and needs none of its own.
    assert (report["steps_per_time"], report["activations_per_time"], report["parks_per_time"]) == (1, 4, 0)


def test_two_runs_do_the_same() -> None:
    names = ("steps_per_time", "activations_per_time", "frontiers")
    first, second = (empty_time.measure(1, TIMES) for _ in range(2))
    assert [first[name] for name in names] == [second[name] for name in names]


@pytest.mark.parametrize("flags", [["--times", "0"], ["-w", "0"], ["--times", "x"]])
def test_sizes_that_measure_nothing_are_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        empty_time.main(flags)
    assert ended.value.code == 2
    assert "error: argument" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "none" / "report.json"
    assert empty_time.main(["--times", "1", "--report", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"empty_time: --report {path}: No such file or directory: name a file in a folder that can be written to\n"
    )
