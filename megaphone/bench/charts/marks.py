"""The promises: rates as bars beside their share of the yardstick, latencies and moves as a table."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, Final

from megaphone.bench.charts.data import Spread, groups_of, spread
from megaphone.bench.charts.sheet import BLUE, GREY, Look, Sheet, empty, gid, name_panel
from megaphone.bench.charts.words import count, is_paced, rounds, short
from megaphone.bench.experiments.marks import YARDSTICK_WORDS, yardstick_of
from megaphone.bench.table import shares

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from megaphone.bench.results import Result
    from megaphone.bench.table import Group

_ABOUT_YARDSTICK: Final = (
    "A share is of what C loops of 2 processes reached in the same minute: random increments in as much memory as the "
    "counts take (8 MB for 1 M keys, 80 MB, prefetched, for 10 M), or records through a ring."
)
_COLUMNS: Final = {
    "rate_m_s": "reached\nM records/s", "p50_ms": "p50\nms", "p99_ms": "p99\nms", "p999_ms": "p99.9\nms",
    "max_ms": "highest\nms", "handover_ms": "hand-over\nms", "moved_m_keys_s": "moved\nM keys/s",
    "copies_per_record": "copies\nper record", "grow_pause_ms": "growth\npause, ms", "empty_us": "empty\ntime, µs",
}  # fmt: skip
_EMPTY: Final = "empty time"
_LOOK: Final = Look(BLUE)
_ROW_INCHES: Final = 0.3


def draw(result: Result) -> dict[str, Sheet]:
    """Return the chart of a result of ``marks``."""
    groups = groups_of(result, "mark")
    free = [group for group in groups if group[0]["mark"] != _EMPTY and not all(map(is_paced, group[1]))]
    asked = [group for group in groups if group not in free or _figure(group, "grow_pause_ms")]
    lines = [len(free) + 2.0, 1.4 * len(asked) + 2.0]
    sheet = Sheet(
        result, "What the project promises: closed loops, latency at given rates, moves, and empty times",
        [f"Rates are over all workers; vec counts in arrays, hashmap in hash tables. {rounds(result.rows)}",
         "An empty time is one that passes through word count without a record, from advancing it to the probe.",
         _ABOUT_YARDSTICK],
        rows=2, panel_inches=(12.0, sum(lines) * _ROW_INCHES / 2), height_ratios=lines,
    )  # fmt: skip
    bars, cells = sheet.panels
    _draw_bars(bars, free)
    _draw_table(cells, asked)
    return {"marks": sheet}


def _draw_bars(panel: Axes, groups: Sequence[Group]) -> None:
    name_panel(panel, "closed loops and transport: as many records as the engine takes")
    panel.set_xlabel("M records/s")
    panel.grid(visible=False, axis="y")
    panel.set_yticks(range(len(groups)), [_name(of) for of, _ in groups])
    panel.invert_yaxis()
    for position, (of, rows) in enumerate(groups):
        rate = spread(rows, "rate_m_s")
        if rate is None:
            panel.annotate("no figure", (0, position), xytext=(4, 0), textcoords="offset points", va="center",
                           size=8, color=GREY)  # fmt: skip
            continue
        panel.barh(position, rate.middle, 0.62, color=_LOOK.colour, gid=gid("rate", *of.values()))
        if rate.least < rate.most:
            panel.hlines(position, rate.least, rate.most, color="black", linewidth=1.0)
        beside = yardstick_of(of)
        found = shares(rows, "rate_m_s", beside)
        part = f"  ({statistics.median(found):.2f} of {YARDSTICK_WORDS[beside]})" if found else ""
        panel.annotate(f"{short(rate.middle)} M/s{part}", (rate.most, position), xytext=(4, 0),
                       textcoords="offset points", va="center", size=8.5)  # fmt: skip
    # Room for what is written beside the longest bar.
    panel.set_xlim(0, 1.4 * max((rate.most for _, rows in groups if (rate := spread(rows, "rate_m_s"))), default=1))
    if not groups:
        empty(panel, "not measured")


def _draw_table(panel: Axes, groups: Sequence[Group]) -> None:
    """Write a table of medians, the spread of rounds below each, in a panel whose ticks name the rows."""
    name_panel(panel, "offered rates, moves, growth, empty times: the median of all rounds; in grey, least to most")
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)
    panel.set_xlim(0, 1)
    panel.set_ylim(len(groups), -0.8)
    panel.set_xticks([])
    panel.set_yticks([position + 0.5 for position in range(len(groups))], [_name(of) for of, _ in groups])
    panel.tick_params(length=0)
    named = {name: title for name, title in _COLUMNS.items() if any(_figure(group, name) for group in groups)}
    if not named:
        empty(panel, "not measured" if not groups else "no figures")
        return
    for number, title in enumerate(named.values(), start=1):
        panel.text(number / len(named), -0.08, title, ha="right", va="bottom", size=8, weight="bold")
    for position, (of, rows) in enumerate(groups):
        panel.axhline(position, color="#DDDDDD", linewidth=0.6)
        for number, name in enumerate(named, start=1):
            found = _figure((of, rows), name)
            told = short(found.middle) if found else "–"
            has_spread = found is not None and found.least < found.most
            panel.text(number / len(named), position + (0.36 if has_spread else 0.5), told, ha="right", va="center",
                       size=8.5, gid=gid(*of.values(), name))  # fmt: skip
            if found is not None and has_spread:
                panel.text(number / len(named), position + 0.76, f"{short(found.least)}–{short(found.most)}",
                           ha="right", va="center", size=6.5, color=GREY)  # fmt: skip


def _figure(group: Group, name: str) -> Spread | None:
    """Return a figure of a point; growth only of one that inserts while it runs, since it counts loading, too."""
    of, rows = group
    return None if name == "grow_pause_ms" and not of["mark"].startswith("inserting") else spread(rows, name)


def _name(of: Mapping[str, Any]) -> str:
    """Return a mark in words.

    >>> _name({"mark": "closed loop", "backend": "vec", "keys": 10_000_000, "workers": 2})
    'closed loop: vec, 10 M keys, 2 workers'
    >>> _name({"mark": "empty time", "workers": 1})
    'empty time: 1 worker'
    """
    parts = [str(of[name]) for name in ("backend",) if name in of]
    parts += [f"{count(of[name])} {name if of[name] != 1 else name[:-1]}" for name in ("keys", "workers") if name in of]
    return f"{of['mark']}: {', '.join(parts)}" if parts else str(of["mark"])
