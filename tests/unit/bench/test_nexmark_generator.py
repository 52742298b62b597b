"""The generator's benchmark at its smallest: what it prints, and that it notices other events."""

from __future__ import annotations

import re
from typing import Any

import pytest

from megaphone.bench import nexmark_generator as bench


def test_every_job_is_measured_and_c_and_numpy_have_one_checksum() -> None:
    results = {job: bench.measure(job, 0.0) for job in bench.JOBS}
    assert all(result["million_per_s"] > 0 for result in results.values())
    sums = {job: result["checksum"] for job, result in results.items()}
    assert sums.pop("exact, all columns") not in sums.values()
    assert len(set(sums.values())) == 1


@pytest.mark.parametrize(("is_wrong", "code"), [(False, 0), (True, 1)])
def test_the_table_has_a_line_per_job_and_other_events_are_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_wrong: bool, code: int
) -> None:
    def measured(job: str, seconds: float) -> dict[str, Any]:
        return {"million_per_s": 10.0 + seconds, "checksum": 7 if is_wrong and job == bench.RIVAL else 5}

    monkeypatch.setattr(bench, "measure_apart", measured)
    monkeypatch.setattr("sys.argv", ["bench", "--repeat", "2", "--seconds", "1"])
    assert bench.main() == code
    printed = capsys.readouterr()
    assert len(re.findall(r"11\.00", printed.out)) == 3 * len(bench.JOBS)
    assert ("other events" in printed.err) == is_wrong


def test_a_job_in_a_process_of_its_own_gives_the_same_checksum() -> None:
    apart = bench.measure_apart("fast, all columns", 0.0)
    assert apart["checksum"] == bench.measure("fast, all columns", 0.0)["checksum"]
