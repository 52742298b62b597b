"""As many keys as fit, up to a billion: a quarter of them moves all at once, beside runs in which nothing moves.

A run in which nothing moves and one in which a quarter does stand beside each other in every round, and what counts is
the ratio of the two: the second after the switch, over the same second of the run without.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from megaphone.bench.experiment import Column, Experiment, Pair, Point, Size
from megaphone.bench.experiments.reports import (
    LATENCY,
    RATE,
    first_migration,
    first_switch,
    rate_and_latency,
    switch_slices,
    timeline,
    word_count,
)

if TYPE_CHECKING:
    from megaphone.bench.experiment import Report

# The switch is at one third: at the full size after the warm-up of 2 s.
_SECONDS: Final[dict[Size, float]] = {"smoke": 3.3, "full": 7.5}
_KEYS_M: Final[dict[Size, tuple[float, ...]]] = {"smoke": (1,), "full": (1000,)}
_RATE: Final[dict[Size, int]] = {"smoke": 200_000, "full": 8_000_000}
_CLOSED_REPEAT: Final = 3
MOVED: Final = {"strategy": "sudden"}
STILL: Final = {"strategy": "none"}
SECOND: Final = Pair("second_p99_ms", MOVED, STILL)
WORST: Final = Pair("worst_10ms_p99_ms", MOVED, STILL)


def _points(size: Size) -> list[Point]:
    points = []
    for keys_m in _KEYS_M[size]:
        keys = int(keys_m * 1e6)
        memory = ("--memory", f"{keys * 8 * 5 // 4 + (1 << 29)}")
        for strategy in ("none", "sudden"):
            of = {"keys_m": keys_m, "strategy": strategy}
            moving = ("--migration", strategy, "--slices", *memory)
            points.append(word_count(of, _SECONDS[size], *moving, domain=keys, rate=_RATE[size]))
        of = {"keys_m": keys_m, "strategy": "closed loop"}
        closed = word_count(of, _SECONDS[size] / 2, *memory, domain=keys, rate=None)
        points.append(replace(closed, repeat=_CLOSED_REPEAT))
    return points


def _figures(report: Report) -> dict[str, float | None]:
    return {**rate_and_latency(report), **first_switch(report), **first_migration(report)}


def _series(report: Report) -> dict[str, list[list[float]]]:
    return {**timeline(report), "slices": switch_slices(report)}


HEADLINE: Final = Experiment(
    name="headline",
    shows="a billion keys, 8 GB of counts, of which a quarter moves at once by hand-over; in pairs with runs without",
    after="Figure 1, and the paper's 8 GB",
    points=_points,
    figures=_figures,
    columns=(
        RATE, *LATENCY, Column("second_p99_ms", "p99 in the second", 3, better="less"),
        Column("worst_10ms_p99_ms", "worst 10 ms", 3, better="less"),
        Column("handover_ms", "hand-over ms", 3, better="less"), Column("warming_ms", "warming ms", 1, better="less"),
        Column("moved_mb", "MB moved", 0), Column("copied_mb", "MB copied", 0, better="less"),
    ),
    series=_series,
    beside={"rate_m_s": "increments_80mb_prefetch_m_s_2"},
    repeat={"smoke": 1, "full": 15},
    pairs=(SECOND, WORST),
)  # fmt: skip
