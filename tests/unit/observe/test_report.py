"""The report: the names of its JSON, the original's lines, and text that fits a terminal."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from megaphone.errors import UsageError
from megaphone.observe.histogram import Histogram
from megaphone.observe.ledger import COUNTERS, Ledger
from megaphone.observe.report import FORMATS, Memory, Migration, Report, Trace
from megaphone.observe.timeline import Timeline

if TYPE_CHECKING:
    from pathlib import Path

MS = 1_000_000
SECOND = 1000 * MS

NAMES = [
    "command",
    "version",
    "machine",
    "workers",
    "bin_shift",
    "backend",
    "hash",
    "transfer",
    "migration",
    "rate_per_worker",
    "rate_total",
    "records",
    "seconds",
    "records_per_s",
    "latency_ns",
    "timeline",
    "migrations",
    "switches",
    "ledger",
    "memory",
    "checksum_outputs",
    "checksum_state",
]
MIGRATION_NAMES = [
    "time_ns",
    "strategy",
    "steps",
    "bins",
    "keys",
    "bytes_moved",
    "bytes_copied",
    "duration_ns",
    "lead_ns",
    "warming_ns",
    "minor_faults",
    "latency_ns_max",
    "latency_ns_p999",
]


@pytest.fixture
def report() -> Report:
    """Return a run of 12 s with one migration at 4 s."""
    timeline = Timeline()
    for window in range(48):
        first_ns = window * 250 * MS
        timeline.record_schedule(first_ns + 250 * MS, first_ns, 25 * MS, 10)
    batch_records = Histogram()
    batch_records.record(10, count=48)
    counters = dict.fromkeys(COUNTERS, 1) | {"input_bytes": 1000, "copied_scatter": 994}
    return Report(
        command="megaphone word-count --rate 40 --duration 12 --domain 1000 --migration sudden",
        version="0.1.0",
        machine={"cpu": "Fast", "cores": 8, "cores_usable": 4, "memory_bytes": 1 << 34, "kernel": "Linux 6.1"},
        workers=2,
        records=480,
        seconds=12.0,
        ledger=Ledger.of([counters]),
        memory=Memory(pss_bytes_max=100 << 20, committed_bytes=64 << 20, huge_bytes=32 << 20, region_bytes=1 << 30),
        bin_shift=8,
        backend="vec",
        hash="mix",
        transfer="handover",
        migration="sudden",
        rate_per_worker=20.0,
        rate_total=40.0,
        latency=timeline.after_warm_up(12 * SECOND),
        timeline=timeline,
        migrations=[
            Migration(
                time_ns=4 * SECOND,
                strategy="sudden",
                steps=1,
                bins=64,
                keys=250,
                bytes_moved=4096,
                bytes_copied=0,
                duration_ns=1_250_000,
                warming_ns=0,
                minor_faults=3,
                latency=timeline.around(4 * SECOND, 1_250_000),
            )
        ],
        checksum_outputs=1,
        checksum_state=2**64 - 1,
        trace=Trace(
            control_times_ns=[4 * SECOND],
            moves=[(1, 0, 1, 17)],
            steps_done=[(4 * SECOND + 5, 5)],
            rss=[(7, 8)],
            loaded=[(0, 500), (1, 500)],
            batch_records=batch_records,
            max_number=3,
        ),
    )


@pytest.fixture
def closed(report: Report) -> Report:
    """Return the same run in a closed loop."""
    migrations = [replace(migration, latency=None) for migration in report.migrations]
    return replace(report, latency=None, timeline=None, rate_per_worker=None, rate_total=None, migrations=migrations)


def test_the_json_object_has_the_names_of_the_schema_in_their_order(report: Report) -> None:
    shown = json.loads(report.to_json())
    assert list(shown) == NAMES
    assert list(shown["latency_ns"]) == ["p50", "p90", "p99", "p999", "max", "samples"]
    assert list(shown["migrations"][0]) == MIGRATION_NAMES
    assert list(shown["memory"]) == ["pss_bytes_max", "committed_bytes", "huge_bytes", "region_bytes", "samples"]


def test_the_json_object_has_the_figures_of_the_run(report: Report) -> None:
    shown = json.loads(report.to_json())
    assert shown["records_per_s"] == 40
    assert shown["latency_ns"]["samples"] == 400
    assert shown["latency_ns"]["max"] == 250 * MS
    assert len(shown["timeline"]) == 48
    assert [len(row) for row in shown["timeline"]] == [8] * 48
    assert shown["migrations"][0]["latency_ns_max"] == 250 * MS
    assert shown["ledger"]["copies_per_record"] == 1.0
    assert shown["checksum_outputs"] == "0000000000000001"
    assert shown["checksum_state"] == "ffffffffffffffff"


def test_in_a_closed_loop_latency_is_null(closed: Report) -> None:
    shown = json.loads(closed.to_json())
    assert shown["latency_ns"] is None
    assert shown["timeline"] == []
    assert shown["rate_per_worker"] is None
    assert shown["migrations"][0]["latency_ns_max"] is None
    assert shown["migrations"][0]["latency_ns_p999"] is None
    assert "latency" not in closed.to_tsv()
    assert "Latency" not in closed.to_human()
    assert "closed loop" in closed.to_human()


def test_latency_that_was_measured_but_has_no_samples_is_not_null(report: Report) -> None:
    shown = json.loads(replace(report, latency=Histogram()).to_json())
    assert shown["latency_ns"]["samples"] == 0


def test_the_original_s_lines_are_all_there(report: Report) -> None:
    lines = report.to_tsv().splitlines()
    assert lines[:9] == [
        "backend\tVector",
        "bin_shift\t8",
        "max_number: 3",
        "statm_RSS\t7\t8",
        "loading_done\t0\t500",
        "loading_done\t1\t500",
        "control_time\t4000000000",
        "migration\t1\t0\t1\t17",
        "migration_done\t4000000005\t5",
    ]
    # What a closed loop has instead of latency; not the original's.
    assert [line.split("\t")[0] for line in lines[9:13]] == ["records", "seconds", "records_per_s", "copies_per_record"]
    assert lines[13] == "count_ccdf\t11\t1\t48"
    assert lines[14].startswith("count_ccdf\t12\t0.0204")
    kinds = [line.split("\t")[0] for line in lines]
    assert kinds.count("summary_timeline") == 48
    ccdf = [line.split("\t") for line in lines if line.startswith("latency_ccdf")]
    assert sum(int(count) for _, _, _, count in ccdf) == 400
    assert [len(fields) for fields in ccdf] == [4] * len(ccdf)
    assert all("e" not in fraction for _, _, fraction, _ in ccdf)


def test_a_tab_in_a_name_does_not_break_a_line(report: Report) -> None:
    assert replace(report, backend="a\tb\nc").to_tsv().splitlines()[0] == "backend\ta b c"


def test_people_see_the_figures_with_their_units(report: Report) -> None:
    text = report.to_human()
    for part in (
        "--migration sudden",
        "256 (bin shift 8)",
        "open loop, 20/s per worker, 40/s in total",
        "480 in 12.00 s: 40/s",
        "250 ms",
        "1.25 ms",
        "4.0 KiB",
        "1 before",
        "1 during",
        "1 after",
        "copies per record  1.000",
        "pend (apart)",
        "100 MiB (PSS)",
        "ffffffffffffffff",
    ):
        assert part in text


def test_no_line_for_people_is_wider_than_100_columns(report: Report) -> None:
    far = replace(
        report.migrations[0],
        strategy="a/very/long/path/to/a/plan/file.txt",
        time_ns=9999 * SECOND,
        steps=1 << 20,
        bins=1 << 20,
        keys=10**10,
        bytes_moved=1023 << 30,
        bytes_copied=1023 << 30,
        duration_ns=99 * SECOND,
        warming_ns=99 * SECOND,
        minor_faults=10**7,
    )
    machine = {**report.machine, "cpu": "Long " * 40, "python": "x" * 150}
    wide = replace(
        report,
        command="megaphone " + "--option value " * 30,
        machine=machine,
        migrations=[far] * 30,
        migration="m" * 120,
    )
    lines = wide.to_human().splitlines()
    assert max(map(len, lines)) <= 100
    assert "  and 10 more" in lines
    assert sum("1,024 GiB" in line or "1,023 GiB" in line for line in lines) == 20
    assert sum("10,000,000" in line and "99.0 s" in line for line in lines) == 20
    assert not any(line != line.rstrip() for line in lines)


def test_what_does_not_apply_is_left_out_for_people_and_null_in_json(report: Report) -> None:
    bare = Report(
        command="megaphone exchange",
        version="0.1.0",
        machine={},
        workers=2,
        records=0,
        seconds=0.0,
        ledger=Ledger.of([]),
        memory=report.memory,
    )
    shown = json.loads(bare.to_json())
    assert (shown["bin_shift"], shown["checksum_state"], shown["records_per_s"]) == (None, None, 0)
    assert bare.to_tsv() == "records\t0\nseconds\t0.0\nrecords_per_s\t0\n"
    for absent in ("bins", "Migrations", "Checksums", "None"):
        assert absent not in bare.to_human()
    assert "nothing came in" in bare.to_human()


def test_each_format_has_its_renderer_and_no_other_is_known(report: Report) -> None:
    assert [report.render(name) for name in FORMATS] == [report.to_human(), report.to_tsv(), report.to_json()]
    with pytest.raises(UsageError, match="'xml': choose one of human, tsv, json"):
        report.render("xml")


def test_a_report_is_written_as_its_json(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path / "report.json")
    assert (tmp_path / "report.json").read_text() == report.to_json()
