"""The figures that the project promises: closed loops, latency at fixed rates, transport, growth, moving."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from megaphone.bench.experiment import START_SECONDS, Column, Experiment, Point, Size
from megaphone.bench.experiments.reports import LATENCY, NS_PER_MS, RATE, last_migration, rate_and_latency, word_count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from megaphone.bench.experiment import Report, Value

_SECONDS: Final[dict[Size, float]] = {"smoke": 1.0, "full": 5.0}
_MIGRATION_SECONDS: Final[dict[Size, float]] = {"smoke": 1.5, "full": 6.0}
# A smoke run has fewer keys, so that filling the state takes no time; its points keep their names.
_KEYS_SHARE: Final[dict[Size, int]] = {"smoke": 10, "full": 1}
_EMPTY_TIMES: Final[dict[Size, int]] = {"smoke": 2_000, "full": 50_000}
_SMALL_KEYS: Final = 1_000_000
_EXCHANGE_RECORDS: Final[dict[Size, int]] = {"smoke": 20_000_000, "full": 300_000_000}


LARGE: Final = "increments_80mb_prefetch_m_s_2"
SMALL: Final = "increments_8mb_m_s_2"
RING: Final = "ring_m_records_s"
YARDSTICK_WORDS: Final[dict[str, str]] = {
    LARGE: "increments in 80 MB", SMALL: "increments in 8 MB", RING: "records through a ring",
}  # fmt: skip
"""What a rate may be a share of, in words."""


def yardstick_of(of: Mapping[str, Value]) -> str:
    """Return the yardstick of a point's rate: as many counts as its state has, or what transport alone is beside.

    >>> yardstick_of({"mark": "closed loop", "backend": "vec", "keys": 1_000_000})
    'increments_8mb_m_s_2'
    """
    if of["mark"] == "exchange":
        return RING
    return SMALL if int(of.get("keys", 0)) <= _SMALL_KEYS else LARGE


def _points(size: Size) -> list[Point]:
    seconds, moving, share = _SECONDS[size], _MIGRATION_SECONDS[size], _KEYS_SHARE[size]

    def count(
        mark: str, keys: int, backend: str = "vec", rate: int | None = None, *flags: str, length: float = seconds
    ) -> Point:
        of: dict[str, Value] = {"mark": mark, "backend": backend, "keys": keys, "workers": 2}
        if "-w" in flags:
            of["workers"] = int(flags[flags.index("-w") + 1])
        return word_count(of, length, *flags, backend=backend, domain=keys // share, rate=rate)

    exchange = Point(
        {"mark": "exchange", "workers": 2}, "megaphone",
        ("exchange", "--records", str(_EXCHANGE_RECORDS[size])), seconds + START_SECONDS,
    )  # fmt: skip
    return [
        count("closed loop", 10_000_000),
        count("closed loop", 1_000_000),
        count("closed loop", 10_000_000, "hashmap"),
        count("closed loop", 1_000_000, "hashmap"),
        exchange,
        count("100 k/s", 1_000_000, "vec", 100_000),
        count("6 M/s", 1_000_000, "vec", 6_000_000 // share),
        count("40 M/s", 10_000_000, "vec", 40_000_000 // share),
        count("6 M/s, 4 workers", 1_000_000, "vec", 6_000_000 // share, "-w", "4"),
        *(
            Point(
                {"mark": "empty time", "workers": workers}, "megaphone.bench.empty_time",
                ("-w", str(workers), "--times", str(_EMPTY_TIMES[size])), 2 * START_SECONDS, seeded=False, paced=True,
            )
            for workers in (1, 2)
        ),
        # So short that keys are new most of the time: 30 M records draw 95 % of 10 M keys.
        replace(count("inserting, closed loop", 10_000_000, "hashmap", None, "--no-preload", length=1.0), paced=True),
        count("inserting, 5 M/s", 10_000_000, "hashmap", 5_000_000 // share, "--no-preload"),
        count("hand-over", 10_000_000, "vec", 200_000, "--migration", "sudden", length=moving),
        count("copy", 10_000_000, "hashmap", 200_000, "--migration", "sudden", "--transfer", "copy", length=moving),
    ]  # fmt: skip


def _figures(report: Report) -> dict[str, float | None]:
    if "us_p50" in report:  # of empty times, in which no record is sent
        return {"empty_us": report["us_p50"], "empty_p99_us": report["us_p99"]}
    pause_ns = report["ledger"].get("grow_pause_max_ns")
    moved = last_migration(report)
    took_ms, keys_m = moved.get("migration_ms"), moved.get("moved_m_keys")
    return {
        **rate_and_latency(report),
        **moved,
        "grow_pause_ms": None if pause_ns is None else pause_ns / NS_PER_MS,
        "moved_m_keys_s": keys_m / took_ms * 1e3 if took_ms and keys_m else None,
        "empty_us": None,
    }


MARKS: Final = Experiment(
    name="marks",
    shows="what the project promises: closed loops, latency at fixed rates, transport, growth, moving",
    after="the table of targets in docs/figures.md",
    points=_points,
    figures=_figures,
    columns=(
        RATE, *LATENCY[:3], Column("handover_ms", "hand-over ms", 3, better="less"),
        Column("moved_m_keys_s", "M keys moved/s", 1, better="more"),
        Column("copies_per_record", "copies", 3, better="less"),
        Column("fresh_after_warmup", "fresh", 0, better="less"),
        Column("grow_pause_ms", "growth ms", 3, better="less"), Column("empty_us", "empty us", 1, better="less"),
    ),
    # The first fits 10 M keys; a row has all that `yardstick_of` may name.
    beside={"rate_m_s": LARGE},
    recorded=("held_up_ms_p99", SMALL, RING),
    repeat={"smoke": 1, "full": 7},
)  # fmt: skip
