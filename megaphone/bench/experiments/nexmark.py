"""The highest rate of each NEXMark query, and its latency at half of it, plain and with state that can move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from megaphone.bench.experiment import Column, Experiment, Pair, Point, Size

if TYPE_CHECKING:
    from megaphone.bench.experiment import Report

# As long as the original's runs, whose highest rates depend on how much state has gathered.
_SECONDS: Final[dict[Size, float]] = {"smoke": 0.5, "full": 5.0}
_QUERIES: Final[dict[Size, tuple[str, ...]]] = {"smoke": ("q3",), "full": tuple(f"q{number}" for number in range(9))}
_WINDOWS: Final[dict[Size, tuple[str, ...]]] = {"smoke": ("12h",), "full": ("12h", "closing")}
_CLOSING: Final = ("q4", "q5", "q6", "q7", "q8")
_POINT_SECONDS: Final[dict[Size, float]] = {"smoke": 3.0, "full": 60.0}
"""About how long a search takes, all its runs together; for the time left."""

ORIGINAL_FLEX_M_S: Final = {
    "q0": 2.4, "q1": 3.5, "q2": 5.0, "q3": 2.5, "q4": 1.2, "q5": 0.84, "q6": 1.2, "q7": 2.7, "q8": 3.6,
}  # fmt: skip
ORIGINAL_FLEX_HALF_P99_MS: Final = {
    "q0": 6.0, "q1": 1.6, "q2": 2.5, "q3": 2.5, "q4": 2.0, "q5": 22.0, "q6": 5.5, "q7": 2.6, "q8": 1.4,
}  # fmt: skip
"""The original's flex queries on the development machine, 2 threads, windows of hours: the highest rate with p99 under
100 ms in runs of 5 to 6 s, and p99 at half of the best."""
FLEX_OVER_PLAIN: Final = Pair("highest_m_s", {"style": "flex"}, {"style": "plain"})


def _points(size: Size) -> list[Point]:
    seconds = _SECONDS[size]
    return [
        Point(
            {"query": query, "style": style, "windows": windows}, "megaphone.bench.nexmark",
            ("--query", query if style == "plain" else f"{query}-flex", "--windows", windows,
             "--seconds", f"{seconds:g}",
             *(("--once",) if size == "smoke" else ())), _POINT_SECONDS[size],
        )
        for windows in _WINDOWS[size]
        for query in _QUERIES[size]
        if windows == "12h" or query in _CLOSING
        for style in ("plain", "flex")
    ]  # fmt: skip


def _figures(report: Report) -> dict[str, float | None]:
    names = ("closed_m_s", "highest_m_s", "half_p50_ms", "half_p99_ms", "half_max_ms")
    return {**{name: report[name] for name in names}, **_over_original(report)}


def _over_original(report: Report) -> dict[str, float | None]:
    """Return rate and latency over the original's, where there is something to compare with."""
    query, _, style = report["query"].partition("-")
    if style != "flex" or report["windows"] != "12h":
        return {"rate_over_original": None, "p99_over_original": None}
    return {
        "rate_over_original": report["highest_m_s"] / ORIGINAL_FLEX_M_S[query],
        "p99_over_original": report["half_p99_ms"] / ORIGINAL_FLEX_HALF_P99_MS[query],
    }


NEXMARK: Final = Experiment(
    name="nexmark",
    shows="the highest rate of each query with p99 under 100 ms, and its latency at half of that; plain and flex",
    after="Table 1, Figures 5 to 12",
    points=_points,
    figures=_figures,
    columns=(
        Column("closed_m_s", "closed M/s", better="more"), Column("highest_m_s", "highest M/s", better="more"),
        Column("half_p50_ms", "p50 ms", better="less"),
        Column("half_p99_ms", "p99 ms", better="less"), Column("half_max_ms", "max ms", better="less"),
        Column("rate_over_original", "rate/original's flex", better="more"),
        Column("p99_over_original", "p99/original's", better="less"),
    ),
    beside={"closed_m_s": "increments_80mb_prefetch_m_s_2", "highest_m_s": "increments_80mb_prefetch_m_s_2"},
    repeat={"smoke": 1, "full": 1},
    pairs=(FLEX_OVER_PLAIN,),
)  # fmt: skip
