"""The promises: rates as bars beside their share of the yardstick, latencies and moves as a table."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, Final

from megaphone.bench.charts.data import Spread, groups_of, spread
from megaphone.bench.charts.sheet import BLUE, GREY, Look, Sheet, empty, gid
from megaphone.bench.charts.words import count, is_paced, rounds, short
from megaphone.bench.table import shares

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from megaphone.bench.results import Result
    from megaphone.bench.table import Group

YARDSTICK: Final = "increments_80mb_prefetch_m_s_2"
_ABOUT_YARDSTICK: Final = (
    "The share is of what a C loop reached in the same minute: random increments in 80 MB, prefetched, by 2 processes."
)
_COLUMNS: Final = {
    "p50_ms": "p50, ms", "p99_ms": "p99, ms", "p999_ms": "p99.9, ms", "max_ms": "highest, ms",
    "migration_ms": "moved in, ms", "moved_m_keys_s": "M keys moved/s", "copies_per_record": "copies per record",
}  # fmt: skip
_LOOK: Final = Look(BLUE)
_FIRST_COLUMN: Final = 0.36
_ROW_INCHES: Final = 0.27


def draw(result: Result) -> dict[str, Sheet]:
    """Return the chart of a result of ``marks``."""
    groups = groups_of(result, "mark")
    free = [group for group in groups if not all(map(is_paced, group[1]))]
    asked = [group for group in groups if group not in free]
    lines = [len(free) + 2.0, len(asked) + 2.0]
    sheet = Sheet(
        result, "What the project promises: rates of closed loops above, latency and moves at a given rate below",
        [f"All rates are over all workers. {rounds(result.rows)}", _ABOUT_YARDSTICK],
        rows=2, panel_inches=(11.0, sum(lines) * _ROW_INCHES / 2), height_ratios=lines,
    )  # fmt: skip
    bars, cells = sheet.panels
    _draw_bars(bars, free)
    _draw_table(cells, asked)
    return {"marks": sheet}


def _draw_bars(panel: Axes, groups: Sequence[Group]) -> None:
    panel.set_title("highest rate, M records/s")
    panel.set_xlabel("M records/s")
    panel.grid(visible=False, axis="y")
    panel.set_yticks(range(len(groups)), [_name(of) for of, _ in groups])
    panel.invert_yaxis()
    panel.margins(x=0.2)
    for position, (of, rows) in enumerate(groups):
        rate = spread(rows, "rate_m_s")
        if rate is None:
            panel.annotate("no figure", (0, position), xytext=(4, 0), textcoords="offset points", va="center",
                           size=8, color=GREY)  # fmt: skip
            continue
        panel.barh(position, rate.middle, 0.62, color=_LOOK.colour, gid=gid("rate", *of.values()))
        if rate.least < rate.most:
            panel.hlines(position, rate.least, rate.most, color="black", linewidth=1.0)
        found = shares(rows, "rate_m_s", YARDSTICK)
        part = f"  ({statistics.median(found):.2f} of the yardstick)" if found else ""
        panel.annotate(f"{short(rate.middle)} M/s{part}", (rate.most, position), xytext=(4, 0),
                       textcoords="offset points", va="center", size=8.5)  # fmt: skip
    if not groups:
        empty(panel, "not measured")


def _draw_table(panel: Axes, groups: Sequence[Group]) -> None:
    """Write a table of medians, the spread of rounds beside them, in a panel without axes."""
    panel.set_axis_off()
    panel.set_xlim(0, 1)
    panel.set_ylim(len(groups) + 0.6, -1)
    panel.set_title("at an offered rate: median of the rounds, and from the least to the most")
    if not groups:
        empty(panel, "not measured")
        return
    named = {name: title for name, title in _COLUMNS.items() if any(spread(rows, name) for _, rows in groups)}
    step = (1 - _FIRST_COLUMN) / max(len(named), 1)
    for number, title in enumerate(named.values()):
        panel.text(_FIRST_COLUMN + (number + 1) * step, -0.35, title, ha="right", size=8, weight="bold")
    for position, (of, rows) in enumerate(groups):
        panel.axhline(position, color="#DDDDDD", linewidth=0.6)
        panel.text(0, position + 0.5, _name(of), va="center", size=8.5, gid=gid("row", *of.values()))
        for number, name in enumerate(named):
            panel.text(_FIRST_COLUMN + (number + 1) * step, position + 0.5, _cell(spread(rows, name)), ha="right",
                       va="center", size=8)  # fmt: skip


def _cell(found: Spread | None) -> str:
    if found is None:
        return "–"
    return short(found.middle) + (f" ({short(found.least)}–{short(found.most)})" if found.least < found.most else "")


def _name(of: Mapping[str, Any]) -> str:
    """Return a mark in words.

    >>> _name({"mark": "closed loop", "backend": "vec", "keys": 10_000_000, "workers": 2})
    'closed loop: vec, 10 M keys, 2 workers'
    """
    parts = [str(of[name]) for name in ("backend",) if name in of]
    parts += [f"{count(of[name])} {name}" for name in ("keys", "workers") if name in of]
    return f"{of['mark']}: {', '.join(parts)}" if parts else str(of["mark"])
