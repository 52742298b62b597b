"""Latency over a run, before, in and after migrations: word count, and the queries that keep state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from megaphone.bench.experiment import START_SECONDS, Column, Experiment, Point, Size
from megaphone.bench.experiments.reports import LATENCY, last_migration, rate_and_latency, timeline, word_count

if TYPE_CHECKING:
    from megaphone.bench.experiment import Report

_SECONDS: Final[dict[Size, float]] = {"smoke": 1.5, "full": 9.0}
_DOMAIN: Final[dict[Size, int]] = {"smoke": 100_000, "full": 10_000_000}
_RATE: Final[dict[Size, int]] = {"smoke": 100_000, "full": 2_000_000}
_QUERIES: Final[dict[Size, tuple[str, ...]]] = {"smoke": ("q4",), "full": ("q3", "q4", "q5", "q6", "q7", "q8")}
_QUERY_RATE: Final[dict[Size, int]] = {"smoke": 20_000, "full": 500_000}
# Event time 79 times as fast as the clock, as in the paper's dilated runs: windows fill and close.
_DILATION: Final = ("--time-dilation", "79")


def _points(size: Size) -> list[Point]:
    points = []
    for strategy in ("sudden", "fluid", "batched"):
        for transfer in ("handover", "copy"):
            of = {"job": "word-count", "strategy": strategy, "transfer": transfer}
            moving = ("--migration", strategy, "--transfer", transfer)
            points.append(word_count(of, _SECONDS[size], *moving, domain=_DOMAIN[size], rate=_RATE[size]))
    for query in _QUERIES[size]:
        for strategy in ("sudden", "batched"):
            of = {"job": f"{query}-flex", "strategy": strategy, "transfer": "handover"}
            flags = ("nexmark", "--queries", f"{query}-flex", "--total-rate", str(_QUERY_RATE[size]),
                     "--duration", f"{_SECONDS[size]:g}", "--migration", strategy, *_DILATION)  # fmt: skip
            points.append(Point(of, "megaphone", flags, _SECONDS[size] + START_SECONDS, paced=True))
    return points


def _figures(report: Report) -> dict[str, float | None]:
    return {**rate_and_latency(report), **last_migration(report)}


TIMELINE: Final = Experiment(
    name="timeline",
    shows="latency before, in and after a migration: word count, and NEXMark q3 to q8",
    after="Figures 1 and 5 to 12",
    points=_points,
    figures=_figures,
    columns=(
        *LATENCY,
        Column("migration_ms", "took ms", better="less"),
        Column("migration_max_ms", "max in it ms", 3, better="less"),
    ),
    series=timeline,
    recorded=("futex_wake_us_p50",),
    repeat={"smoke": 1, "full": 1},
)
