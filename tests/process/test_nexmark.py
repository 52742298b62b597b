"""NEXMark as processes: rows in files as SQL has them, reports that tell what was run, a command that ends well."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megaphone.observe.report import Report
from megaphone.workloads.nexmark import names
from megaphone.workloads.nexmark.queries import find
from megaphone.workloads.nexmark.run import PER_EPOCH, run_nexmark
from megaphone.workloads.nexmark.settings import QUERIES, QUERY_NAMES, NexmarkSettings
from tests.nexmark import oracle
from tests.nexmark.running import events_of, settings_of, windows_of

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]


def megaphone(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "megaphone", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)


def settings_for(folder: Path, queries: str, **given: Any) -> NexmarkSettings:
    return settings_of(queries, memory_bytes=128 << 20, output_path=str(folder), **given)


def columns_of(path: Path, query: str) -> dict[str, Any]:
    """Return the columns of a csv file as the oracle has them: numbers, and codes but for kinds."""
    with path.open(newline="") as file:
        header, *lines = csv.reader(file)
    values = list(zip(*lines, strict=True)) or [()] * len(header)
    codes = {
        name: {text: code for code, text in enumerate(texts)}
        for name, texts in find(query).texts.items()
        if name != "kind"
    }
    return {
        name: np.array(
            [codes[name][text] for text in column] if name in codes else column, str if name == "kind" else np.uint64
        )
        for name, column in zip(header, values, strict=True)
    }


def check_files(settings: NexmarkSettings, folder: Path) -> None:
    """Compare the files of a run with SQL over the same events; rows are sorted, first by time."""
    must = oracle.expected(events_of(settings), windows_of(settings), queries=set(map(base, settings.query_names)))
    assert {path.name for path in folder.iterdir()} == {f"{name}.csv" for name in settings.query_names}
    for name in settings.query_names:
        rows = columns_of(folder / f"{name}.csv", name)
        assert oracle.difference(must[base(name)], rows, name) is None
        assert (np.diff(rows["time"].astype(np.int64)) >= 0).all()


def base(name: str) -> str:
    return name.removesuffix("-flex")


def figures(report: Report) -> dict[str, dict[str, Any]]:
    found: Any = report.workload["queries"]
    return {one["query"]: one for one in found}


@pytest.mark.parametrize(
    "given",
    [
        {"workers": 2, "migration": "fluid", "tick_ns": 20_000_000},
        {"workers": 3, "migration": "batched", "transfer": "copy", "generator": "exact", "tick_ns": 50_000_000},
        {"workers": 1, "tick_ns": 33_333_333},
    ],
    ids=lambda given: "-".join(map(str, given.values())),
)
def test_a_bounded_run_of_all_queries_writes_what_sql_gives_and_ends(tmp_path: Path, given: dict[str, Any]) -> None:
    settings = settings_for(tmp_path / "rows", " ".join(QUERY_NAMES), events=6000, **given)
    report = run_nexmark(settings)
    check_files(settings, tmp_path / "rows")
    assert report.records == 6000
    assert report.latency is None
    bins = sum(migration.bins for migration in report.migrations)
    assert (bins > 0) == ("migration" in given)
    copied = sum(migration.bytes_copied for migration in report.migrations)
    assert (copied > 0) == (given.get("transfer") == "copy")
    found = figures(report)
    for query in QUERIES:
        assert found[query]["checksum"] == found[f"{query}-flex"]["checksum"]
        assert found[query]["rows_out"] == found[f"{query}-flex"]["rows_out"]
        assert found[query]["rows_in"] == 6000 * sum(PER_EPOCH[stream] for stream in find(query).reads) // 50


def test_an_open_loop_offers_on_schedule_and_reports_latency_and_migrations(tmp_path: Path) -> None:
    settings = settings_for(
        tmp_path / "rows", "q7-flex q5-flex q7", events=None, duration_s=2.0, rate_per_worker=2000.0,
        migration="sudden", tick_ns=50_000_000,
    )  # fmt: skip
    report = run_nexmark(settings)
    assert report.records == 2 * 2 * 2000
    assert report.latency is not None
    assert report.latency.count > 0
    assert [migration.strategy for migration in report.migrations] == ["sudden", "sudden"]
    assert all(migration.duration_ns > 0 for migration in report.migrations)
    # Every worker has sent 4000 events, so the rows are those of the first 8000.
    equal = settings_for(tmp_path / "rows", settings.queries, events=8000, rate_per_worker=2000.0)
    check_files(equal, tmp_path / "rows")


def test_event_time_may_pass_faster_than_the_clock(tmp_path: Path) -> None:
    """The windows of a minute of event time end within seconds."""
    settings = settings_for(
        tmp_path / "rows", "q7-flex", events=None, duration_s=1.0, rate_per_worker=1000.0, time_dilation=60,
        q7_window_s=10.0,
    )  # fmt: skip
    run_nexmark(settings)
    rows = columns_of(tmp_path / "rows" / "q7-flex.csv", "q7-flex")
    assert np.unique(rows["time"]).tolist() == [second * 10**9 for second in range(10, 70, 10)]


@pytest.mark.parametrize("queries", ["q1", "q7-flex"])
def test_a_closed_loop_by_the_clock_ends_and_has_no_latency(queries: str) -> None:
    settings = NexmarkSettings(queries=queries, rate_per_worker=None, duration_s=0.5, memory_bytes=256 << 20)
    report = run_nexmark(settings)
    assert report.latency is None
    assert report.records > 0


@pytest.mark.parametrize("rate", [None, 2000.0])
def test_a_plan_that_outlasts_the_events_comes_to_its_end(rate: float | None) -> None:
    """No event follows once the time to offer them is over, and the steps that are left still take effect."""
    settings = NexmarkSettings(
        queries="q7-flex", rate_per_worker=rate, duration_s=0.3, migration="fluid", bin_shift=9, gap_ns=1_000_000,
        memory_bytes=256 << 20,
    )  # fmt: skip
    report = run_nexmark(settings)
    assert sum(migration.bins for migration in report.migrations) == 2 * 128


def test_plain_and_flex_give_the_same_whatever_the_workers() -> None:
    """With the fast generator, events do not depend on how many share them."""
    checksums = set()
    for workers, name in ((1, "q5"), (2, "q5-flex"), (3, "q5")):
        settings = settings_of(
            name, workers=workers, rate_per_worker=6000.0 / workers, events=6000, tick_ns=30_000_000, output_path=None,
            memory_bytes=128 << 20,
        )  # fmt: skip
        checksums.add(figures(run_nexmark(settings))[name]["checksum"])
    assert len(checksums) == 1


def test_arrays_hold_codes_and_their_texts(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, "q0", events=1000, output_format="npz")
    run_nexmark(settings)
    with np.load(tmp_path / "q0.npz") as arrays:
        rows = {name: arrays[name] for name in ("time", "kind", "id")}
        rows["kind"] = arrays["kind_texts"][rows["kind"]]
    must = oracle.expected(events_of(settings), windows_of(settings), queries=["q0"])["q0"]
    assert oracle.difference(must, rows) is None
    assert names.NAMES[0] == ""


def test_the_command_prints_a_report_and_writes_files(tmp_path: Path) -> None:
    done = megaphone(
        "nexmark", "--queries", "q7-flex,q1", "--events", "20000", "--migration", "sudden", "--q7-window", "0.05",
        "--tick", "10000000", "--bin-shift", "4", "--memory", "128M", "--output", str(tmp_path / "out"), "--format",
        "json", "--report", str(tmp_path / "report.json"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert (report["command"], report["generator"], report["seed"], report["events"]) == ("nexmark", "fast", 0, 20000)
    assert report["in_flight"] == 200_000 * 12 * 3600 * 3 // 50  # what the run had, though nobody asked for a number
    assert [query["query"] for query in report["queries"]] == ["q7-flex", "q1"]
    assert len(report["migrations"]) == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["q1.csv", "q7-flex.csv"]
    for output_format, told in (("human", "Queries"), ("tsv", "records\t1000")):
        done = megaphone(
            "nexmark", "--queries", "q2", "--events", "1000", "--memory", "128M", "--format", output_format
        )
        assert done.returncode == 0, done.stderr
        assert told in done.stdout
        assert all(len(line) <= 100 for line in done.stdout.splitlines())


def test_files_are_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """A query's file cannot be written: none is."""
    (tmp_path / "q2.csv").mkdir()
    done = megaphone("nexmark", "--queries", "q1 q2", "--events", "1000", "--memory", "128M", "--output", str(tmp_path))
    assert done.returncode == 2
    assert "q2.csv" in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["q2.csv"]


def test_generate_writes_the_events_of_a_run(tmp_path: Path) -> None:
    done = megaphone("nexmark", "generate", "--events", "1000", "--output", str(tmp_path), "--generator", "exact")
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [(Path(path).name, int(rows)) for path, rows in lines] == [
        ("person.csv", 20), ("auction.csv", 60), ("bid.csv", 920)
    ]  # fmt: skip
    assert (tmp_path / "bid.csv").read_text().startswith("seq,auction,bidder,price,date_time\n")
