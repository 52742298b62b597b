"""The highest rate of each NEXMark query, and its latency at half of it, plain and with state that can move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from megaphone.bench.experiment import Column, Experiment, Point, Size

if TYPE_CHECKING:
    from megaphone.bench.experiment import Report

_SECONDS: Final[dict[Size, float]] = {"smoke": 0.5, "full": 4.0}
_QUERIES: Final[dict[Size, tuple[str, ...]]] = {"smoke": ("q3",), "full": tuple(f"q{number}" for number in range(9))}
_WINDOWS: Final[dict[Size, tuple[str, ...]]] = {"smoke": ("12h",), "full": ("12h", "closing")}
_CLOSING: Final = ("q4", "q5", "q6", "q7", "q8")
_RUNS: Final = 7
"""About as many as a search takes."""


def _points(size: Size) -> list[Point]:
    seconds = _SECONDS[size]
    return [
        Point(
            {"query": query, "style": style, "windows": windows}, "megaphone.bench.nexmark",
            ("--query", query if style == "plain" else f"{query}-flex", "--windows", windows,
             "--seconds", f"{seconds:g}",
             *(("--once",) if size == "smoke" else ())), _RUNS * (seconds + 1.5),
        )
        for windows in _WINDOWS[size]
        for query in _QUERIES[size]
        if windows == "12h" or query in _CLOSING
        for style in ("plain", "flex")
    ]  # fmt: skip


def _figures(report: Report) -> dict[str, float | None]:
    return {name: report[name] for name in ("closed_m_s", "highest_m_s", "half_p50_ms", "half_p99_ms", "half_max_ms")}


NEXMARK: Final = Experiment(
    name="nexmark",
    shows="the highest rate of each query with p99 under 100 ms, and its latency at half of that; plain and flex",
    after="Table 1, Figures 5 to 12",
    points=_points,
    figures=_figures,
    columns=(
        Column("closed_m_s", "closed M/s"), Column("highest_m_s", "highest M/s"), Column("half_p50_ms", "p50 ms"),
        Column("half_p99_ms", "p99 ms"), Column("half_max_ms", "max ms"),
    ),
    beside={"closed_m_s": "increments_80mb_prefetch_m_s_2", "highest_m_s": "increments_80mb_prefetch_m_s_2"},
    repeat={"smoke": 1, "full": 1},
)  # fmt: skip
