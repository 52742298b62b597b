"""What a record costs on each way through the engine: copies, allocations, page faults, and the time in each.

``megaphone.bench.ways`` tells what each time contains, and why those of page faults are an estimate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from megaphone.bench.experiment import START_SECONDS, Column, Experiment, Point, Size

if TYPE_CHECKING:
    from megaphone.bench.experiment import Report

_RECORDS: Final[dict[Size, int]] = {"smoke": 4_000_000, "full": 100_000_000}
_WAYS: Final = ("keep", "exchange", "arrays", "own", "broadcast", "tee", "views", "jumbo")
_BATCHES: Final[dict[Size, tuple[int, ...]]] = {"smoke": (), "full": (256, 1024, 4096, 16384)}
_COLUMNS: Final[dict[Size, tuple[int, ...]]] = {"smoke": (), "full": (1, 4, 8)}
_WORKERS: Final[dict[Size, tuple[int, ...]]] = {"smoke": (), "full": (1, 4)}
COPIES: Final = ("ingest", "scatter", "own")
"""Causes for which one of the ways copies; their times are told one by one."""
_RATE: Final = 20e6
"""Records/s at the least, for the time left."""


def _points(size: Size) -> list[Point]:
    records = _RECORDS[size]

    def point(way: str, batch: int = 8192, columns: int = 2, workers: int = 2) -> Point:
        # Small batches cost more for each record, and wide ones have more bytes.
        count = records // (8 if batch < 4096 else 1) // max(1, columns // 2)
        return Point(
            {"way": way, "batch": batch, "columns": columns, "workers": workers}, "megaphone.bench.ways",
            ("--way", way, "--records", str(count), "--batch", str(batch), "--columns", str(columns),
             "-w", str(workers)),
            START_SECONDS + count / _RATE,
        )  # fmt: skip

    return [
        *(point(way) for way in _WAYS),
        *(point(way, batch=batch) for batch in _BATCHES[size] for way in ("keep", "exchange")),
        *(point(way, columns=columns) for columns in _COLUMNS[size] for way in ("keep", "exchange")),
        *(point(way, workers=workers) for workers in _WORKERS[size] for way in ("keep", "exchange", "broadcast")),
    ]


def _figures(report: Report) -> dict[str, float | None]:
    names = (
        "rate_m_s", "cpu_ns_per_record", "copies_per_record", "fresh_per_k_batches", "recycled_per_k_batches",
        "faults_per_m_records", "pinned_mb_max", "copies_ns_per_record", "allocation_ns_per_record",
        "system_ns_per_record", "faults_ns_estimated", *(f"{cause}_ns_per_record" for cause in COPIES),
    )  # fmt: skip
    return {name: report[name] for name in names}


LEDGER: Final = Experiment(
    name="ledger",
    shows="what a record costs on each way: copies, allocations, page faults, time; by batch, columns, workers",
    after="the question of what allocation and copying cost",
    points=_points,
    figures=_figures,
    columns=(
        Column("rate_m_s", "M records/s", 1, better="more"),
        Column("cpu_ns_per_record", "CPU ns/record", better="less"),
        Column("copies_ns_per_record", "in copies", better="less"),
        Column("allocation_ns_per_record", "in allocation", 3, better="less"),
        Column("system_ns_per_record", "in system", better="less"),
        Column("faults_ns_estimated", "faults, estimated", better="less"),
        Column("copies_per_record", "copies", 3, better="less"),
        Column("fresh_per_k_batches", "fresh/1000 batches", 1, better="less"),
        Column("recycled_per_k_batches", "recycled/1000", 0),
        Column("faults_per_m_records", "faults/M records", 0, better="less"),
        Column("pinned_mb_max", "pinned MB", 1, better="less"),
    ),
    beside={"rate_m_s": "ring_m_records_s"},
)  # fmt: skip
