"""What the machine gives a C loop: a panel of bars for each unit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from megaphone.bench.charts.data import Spread, spread
from megaphone.bench.charts.sheet import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, Sheet, gid
from megaphone.bench.charts.words import rounds, short
from megaphone.bench.yardstick import NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

    from megaphone.bench.results import Result

# Marks of a unit in a figure's name, with what the unit says; the first that fits.
UNITS: Final = {
    "_gb_s": ("GB/s", "GB/s (more is better)", BLUE),
    "_m_records_s": ("M/s", "M/s (more is better)", GREEN),
    "_m_s": ("M/s", "M/s (more is better)", GREEN),
    "_us_per_page": ("µs", "µs (less is better)", ORANGE),
    "_us": ("µs", "µs (less is better)", ORANGE),
    "_ns": ("ns", "ns (less is better)", PURPLE),
    "_ms": ("ms", "ms (less is better)", SKY),
}
_WORDS: Final = {
    "copy": "memcpy in shared memory", "increments": "random increments of 64-bit cells", "prefetch": "prefetched",
    "ring": "records of 16 bytes through a ring, one way", "hop": "a cache line's way to another core",
    "first touch": "first touch of a page of shared memory", "futex wake": "from a wake-up until the sleeper runs",
    "held up": "until two that never sleep have both run", "p50": "median", "p99": "p99", "p999": "p99.9",
    "8mb": "8 MB", "80mb": "80 MB", "1m": "1 MB", "256m": "256 MB", "1": "1 process", "2": "2 processes",
}  # fmt: skip


def draw(result: Result) -> dict[str, Sheet]:
    """Return the chart of a result of ``machine``."""
    # Also those that a result of an older version has not: what is missing is told in its place.
    names = list(dict.fromkeys([*NAMES, *(name for row in result.rows for name in row["figures"])]))
    panels: dict[str, dict[str, Spread | None]] = {}
    for name in names:
        panels.setdefault(_unit(name)[1], {})[name] = spread(result.rows, name)
    heights = [len(figures) + 1.5 for figures in panels.values()] or [1.0]
    sheet = Sheet(
        result, "What this machine gives a C loop: the yardstick beside all other figures",
        [f"No part of the engine runs here. {rounds(result.rows)}"],
        rows=max(len(panels), 1), panel_inches=(10.0, 0.32 * sum(heights) / len(heights)), height_ratios=heights,
    )  # fmt: skip
    for panel, (unit, figures) in zip(sheet.panels, panels.items(), strict=False):
        _draw_bars(panel, unit, figures)
    return {"machine": sheet}


def _draw_bars(panel: Axes, unit: str, figures: Mapping[str, Spread | None]) -> None:
    panel.set_xlabel(unit)
    panel.set_yticks(range(len(figures)), [words_of(name) for name in figures])
    panel.set_ylim(len(figures) - 0.4, -0.6)
    panel.grid(visible=False, axis="y")
    panel.margins(x=0.12)
    if not any(figures.values()):
        panel.set_xlim(0, 1)
        panel.set_xticks([])
    for position, (name, found) in enumerate(figures.items()):
        if found is None:
            panel.annotate("not in this result", (0, position), xytext=(4, 0), textcoords="offset points", va="center",
                           size=8, color=GREY)  # fmt: skip
            continue
        sign, _, colour = _unit(name)
        panel.barh(position, found.middle, 0.62, color=colour, gid=gid(name))
        if found.least < found.most:
            panel.hlines(position, found.least, found.most, color="black", linewidth=1.0)
        panel.annotate(f"{short(found.middle)} {sign}", (found.most, position), xytext=(4, 0),
                       textcoords="offset points", va="center", size=8)  # fmt: skip


def _unit(name: str) -> tuple[str, str, str]:
    return next((told for mark, told in UNITS.items() if mark in name), ("", "no unit", GREY))


def words_of(name: str) -> str:
    """Return a figure's name in words; one that is not known is left as it is, without its unit.

    >>> words_of("increments_80mb_prefetch_m_s_2")
    'random increments of 64-bit cells, 80 MB, prefetched, 2 processes'
    >>> words_of("hop_ns")
    "a cache line's way to another core"
    """
    mark = next((mark for mark in UNITS if mark in name), "")
    before, _, after = name.partition(mark) if mark else (name, "", "")
    for whole in _WORDS:
        if " " in whole and before == whole.replace(" ", "_"):
            before = _WORDS[whole].replace("_", " ")
            return ", ".join([before, *(_WORDS.get(part, part) for part in after.split("_") if part)])
    return ", ".join(_WORDS.get(part, part) for part in [*before.split("_"), *after.split("_")] if part)
