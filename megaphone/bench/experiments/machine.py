"""The yardstick as an experiment of its own: what this machine gives a C loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from megaphone.bench.experiment import Column, Experiment, Point, Size

if TYPE_CHECKING:
    from megaphone.bench.experiment import Report

_SECONDS: Final[dict[Size, float]] = {"smoke": 0.02, "full": 0.5}
_FIGURES: Final = 20


def _points(size: Size) -> list[Point]:
    seconds = _SECONDS[size]
    flags = ("--seconds", f"{seconds:g}")
    return [Point({"what": "machine"}, "megaphone.bench.yardstick", flags, 2 + _FIGURES * seconds, seeded=False)]


def _figures(report: Report) -> dict[str, float | None]:
    return dict(report["figures"])


MACHINE: Final = Experiment(
    name="machine",
    shows="what the machine gives a C loop: copies, increments, a ring, a cache line's way, wake-ups, first touch",
    after="the yardstick that all others stand beside",
    points=_points,
    figures=_figures,
    columns=(
        Column("copy_256m_gb_s_2", "copy GB/s", 1, better="more"),
        Column("increments_8mb_m_s_2", "incr. 8 MB M/s", 0, better="more"),
        Column("increments_80mb_m_s_2", "80 MB M/s", 0, better="more"),
        Column("increments_80mb_prefetch_m_s_2", "prefetched M/s", 0, better="more"),
        Column("ring_m_records_s", "ring M/s", 0, better="more"), Column("hop_ns", "hop ns", 0, better="less"),
        Column("held_up_ms_p99", "held up ms", 2, better="less"),
        Column("futex_wake_us_p50", "wake us", 1, better="less"),
        Column("first_touch_us_per_page_1", "touch us", 2, better="less"),
    ),
    repeat={"smoke": 1, "full": 5},
)  # fmt: skip
