"""Offered rate against the highest latency, while nothing moves and while a quarter of the state does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from megaphone.bench.experiment import Column, Experiment, Point, Size, million
from megaphone.bench.experiments.reports import LATENCY, RATE, last_migration, rate_and_latency, word_count

if TYPE_CHECKING:
    from megaphone.bench.experiment import Report

_SECONDS: Final[dict[Size, float]] = {"smoke": 1.0, "full": 5.0}
_DOMAIN: Final[dict[Size, int]] = {"smoke": 100_000, "full": 10_000_000}
_RATES_M: Final[dict[Size, tuple[float, ...]]] = {"smoke": (0.25,), "full": (0.25, 0.5, 1, 2, 4, 8, 16, 32, 48, 64)}
_STRATEGIES: Final[dict[Size, tuple[str, ...]]] = {
    "smoke": ("none", "sudden"), "full": ("none", "sudden", "batched", "fluid")
}  # fmt: skip


def _points(size: Size) -> list[Point]:
    return [
        word_count(
            {"offered_m_s": rate, "strategy": strategy}, _SECONDS[size], "--migration", strategy,
            domain=_DOMAIN[size], rate=int(million(rate)),
        )
        for rate in _RATES_M[size]
        for strategy in _STRATEGIES[size]
    ]  # fmt: skip


def _figures(report: Report) -> dict[str, float | None]:
    return {**rate_and_latency(report), **last_migration(report)}


THROUGHPUT: Final = Experiment(
    name="throughput",
    shows="offered rate against the highest latency, with and without a migration",
    after="Figure 19",
    points=_points,
    figures=_figures,
    columns=(RATE, *LATENCY, Column("migration_max_ms", "max in it ms", 3, better="less")),
    beside={"rate_m_s": "increments_80mb_prefetch_m_s_2"},
    repeat={"smoke": 1, "full": 1},
)
