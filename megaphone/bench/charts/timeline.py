"""Latency over a run: a panel for each run, with its migrations shaded; equal axes, so that panels compare."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from megaphone.bench.charts.data import groups_of, having, typical, values_of
from megaphone.bench.charts.sheet import (
    BLUE,
    GREEN,
    GREY,
    SHADE,
    VERMILLION,
    Key,
    Look,
    Sheet,
    empty,
    gid,
    log,
    name_panel,
    write_beside,
)
from megaphone.bench.charts.words import STRATEGIES, TRANSFERS, conditions, length
from megaphone.bench.experiments.reports import TIMELINE_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from megaphone.bench.results import Result
    from megaphone.bench.table import Group

LINES: Final = {"max_ms": ("highest", Look(VERMILLION)), "p99_ms": ("p99", Look(GREEN)),
                "p50_ms": ("p50 (median)", Look(BLUE))}  # fmt: skip
MIGRATION_KEYS: Final = (
    Key("a migration begins", Look(GREY, dash="--", width=1.0)),
    Key("it ends", Look(GREY, dash=":", width=1.0)),
    Key("in between", Look(SHADE), is_area=True),
)
KEYS: Final = (*(Key(label, look) for label, look in LINES.values()), *MIGRATION_KEYS)
_WORD_COUNT: Final = "word-count"
_LABEL_SHARE: Final = 0.2
"""About the part of a panel's width that the length of a migration takes, written beside it."""


def draw(result: Result) -> dict[str, Sheet]:
    """Return the charts of a result of ``timeline``: word count, and the queries."""
    groups = groups_of(result, "job", "strategy", "transfer")
    counts = having(groups, job=_WORD_COUNT)
    queries = [group for group in groups if group[0]["job"] != _WORD_COUNT]
    sheets = {}
    if counts:
        sheets["timeline"] = _counts(result, counts)
    if queries:
        sheets["timeline-nexmark"] = _queries(result, queries)
    return sheets


def _counts(result: Result, groups: Sequence[Group]) -> Sheet:
    """Rows of panels by transfer, columns by strategy."""
    strategies, transfers = values_of(groups, "strategy"), values_of(groups, "transfer")
    sheet = Sheet(
        result, "Word count: latency before, in and after a migration of a quarter of the state, and back",
        about(groups), KEYS, rows=len(transfers), columns=len(strategies), panel_inches=(4.4, 2.7), sharex=True,
        sharey=True,
    )  # fmt: skip
    for row, transfer in zip(sheet.axes, transfers, strict=True):
        for panel, strategy in zip(row, strategies, strict=True):
            title = f"{STRATEGIES.get(strategy, strategy)}, {TRANSFERS.get(transfer, transfer)}"
            draw_run(panel, title, having(groups, strategy=strategy, transfer=transfer))
    sheet.labels("time since the start of the run, s", "latency, ms (log)")
    return sheet


def _queries(result: Result, groups: Sequence[Group]) -> Sheet:
    """Rows of panels by query, columns by strategy and transfer."""
    jobs = values_of(groups, "job")
    ways = list(dict.fromkeys((of["strategy"], of["transfer"]) for of, _ in groups))
    sheet = Sheet(
        result, "NEXMark: latency of each query before, in and after a migration of a quarter of the state, and back",
        about(groups), KEYS, rows=len(jobs), columns=len(ways), panel_inches=(5.4, 1.9), sharex=True, sharey=True,
    )  # fmt: skip
    for row, job in zip(sheet.axes, jobs, strict=True):
        for panel, (strategy, transfer) in zip(row, ways, strict=True):
            title = f"{job}: {STRATEGIES.get(strategy, strategy)}, {TRANSFERS.get(transfer, transfer)}"
            draw_run(panel, title, having(groups, job=job, strategy=strategy, transfer=transfer))
    sheet.labels("time since the start of the run, s", "latency, ms (log)")
    return sheet


def about(groups: Sequence[Group]) -> list[str]:
    """Return what the sheet says about its runs."""
    rows = [row for _, members in groups for row in members]
    several = len({row["repeat"] for row in rows}) > 1
    which = " Of several rounds, the one whose highest latency is the median." if several else ""
    widths = {round(b[0] - a[0], 6) for row in rows if len(t := row["series"].get("timeline", [])) > 1
              for a, b in zip(t, t[1:], strict=False)}  # fmt: skip
    window = f"Each step is a window of {length(min(widths) * 1e3)}." if widths else ""
    read = "Where a line breaks, no record came out; the time beside a migration is how long it took."
    return [f"{conditions(rows)}.{which}", f"{window} {read}".strip()]


def draw_run(panel: Axes, title: str, groups: Sequence[Group]) -> None:
    """Draw the typical run of a point."""
    name_panel(panel, title)
    log(panel, "y")
    if not groups:
        empty(panel, "not measured")
        return
    of, rows = groups[0]
    series = typical(rows, "max_ms")["series"]
    _draw_windows(panel, of, series)
    shade(panel, series)


def _draw_windows(panel: Axes, of: Mapping[str, Any], series: Mapping[str, list[list[float]]]) -> None:
    windows = series.get("timeline", [])
    if not windows:
        empty(panel)
        return
    width = min((b[0] - a[0] for a, b in zip(windows, windows[1:], strict=False)), default=0.25)
    for figure, (_, look) in LINES.items():
        column = TIMELINE_COLUMNS.index(figure)
        x: list[float] = []
        y: list[float] = []
        for window in windows:
            if x and window[0] - x[-1] > 0.01 * width:
                x.append(x[-1])
                y.append(float("nan"))
            # Both edges of the window, so that a line is a flight of steps of known width.
            x += [window[0], window[0] + width]
            y += [window[column]] * 2
        panel.plot(x, y, gid=gid(*of.values(), figure), **look.options)


def shade(panel: Axes, series: Mapping[str, list[list[float]]]) -> None:
    """Mark each migration: a dashed line at its begin, a dotted one at its end, its length above them."""
    moves = series.get("migrations", [])
    before, lines_down = -math.inf, 0
    # Room for the lengths above everything else.
    panel.margins(y=0.16)
    for begin, end in moves:
        panel.axvspan(begin, end, color=SHADE, alpha=0.4, linewidth=0, zorder=0)
        panel.axvline(begin, color=GREY, linestyle="--", linewidth=1.0, zorder=1)
        panel.axvline(end, color=GREY, linestyle=":", linewidth=1.0, zorder=1)
        # Lower than the one before only where that one is in the way.
        lines_down = lines_down + 1 if end - before < _LABEL_SHARE * moves[-1][1] else 0
        before = end
        write_beside(panel, length((end - begin) * 1e3), (end, 0.98 - 0.1 * lines_down), (3, 0), va="top", size=7.5,
                     color="#444444", xycoords=("data", "axes fraction"))  # fmt: skip
