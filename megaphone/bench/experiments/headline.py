"""As many keys as fit, up to a billion: a quarter of them moves all at once, beside runs in which nothing moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from megaphone.bench.experiment import Column, Experiment, Point, Size
from megaphone.bench.experiments.reports import (
    LATENCY,
    RATE,
    last_migration,
    rate_and_latency,
    timeline,
    word_count,
)

if TYPE_CHECKING:
    from megaphone.bench.experiment import Report

_SECONDS: Final[dict[Size, float]] = {"smoke": 1.5, "full": 12.0}
_KEYS_M: Final[dict[Size, tuple[float, ...]]] = {"smoke": (1,), "full": (1000,)}
_RATE: Final[dict[Size, int]] = {"smoke": 200_000, "full": 8_000_000}


def _points(size: Size) -> list[Point]:
    points = []
    for keys_m in _KEYS_M[size]:
        keys = int(keys_m * 1e6)
        for strategy in ("none", "sudden"):
            of = {"keys_m": keys_m, "strategy": strategy}
            memory = ("--memory", f"{keys * 8 * 5 // 4 + (1 << 29)}")
            moving = ("--migration", strategy, *memory)
            points.append(word_count(of, _SECONDS[size], *moving, domain=keys, rate=_RATE[size]))
        of = {"keys_m": keys_m, "strategy": "closed loop"}
        points.append(word_count(of, _SECONDS[size] / 2, *memory, domain=keys, rate=None))
    return points


def _figures(report: Report) -> dict[str, float | None]:
    return {**rate_and_latency(report), **last_migration(report)}


HEADLINE: Final = Experiment(
    name="headline",
    shows="a billion keys, 8 GB of counts, of which a quarter moves all at once by hand-over",
    after="Figure 1, and the paper's 8 GB",
    points=_points,
    figures=_figures,
    columns=(
        RATE, *LATENCY, Column("migration_ms", "took ms", 3), Column("warming_ms", "warming ms", 1),
        Column("moved_mb", "MB moved", 0), Column("copied_mb", "MB copied", 0),
    ),
    series=timeline,
    beside={"rate_m_s": "increments_80mb_prefetch_m_s_2"},
    repeat={"smoke": 1, "full": 3},
)  # fmt: skip
