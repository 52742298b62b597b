"""Highest rate of each query, plain and flex, above; its p99 at half of that rate below."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from megaphone.bench.charts.data import groups_of, having, spread, values_of
from megaphone.bench.charts.sheet import BLACK, BLUE, GREY, ORANGE, Key, Look, Sheet, gid, log, name_panel
from megaphone.bench.charts.words import rounds, short
from megaphone.bench.experiments.nexmark import ORIGINAL_FLEX_HALF_P99_MS, ORIGINAL_FLEX_M_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from megaphone.bench.results import Result
    from megaphone.bench.table import Group

STYLES: Final = {"plain": ("plain: state stays where it is", Look(BLUE, "o")),
                 "flex": ("flex: state in bins that can move", Look(ORANGE, "s"))}  # fmt: skip
_WINDOWS: Final = {"12h": "windows as the queries have them (hours): none closes in a run",
                   "closing": "short windows, which close in the run"}  # fmt: skip
_ORIGINAL: Final = {"highest_m_s": ORIGINAL_FLEX_M_S, "half_p99_ms": ORIGINAL_FLEX_HALF_P99_MS}
_ORIGINAL_LOOK: Final = Look(BLACK, width=2.0)
_BAR: Final = 0.38
_LABEL_REACH: Final = 1.5
"""Ratio of coordinates that a label covers above its mark, on an axis of two decades."""


def draw(result: Result) -> dict[str, Sheet]:
    """Return the chart of a result of ``nexmark``."""
    groups = groups_of(result, "query", "style", "windows")
    windows = values_of(groups, "windows")
    sizes = [len(values_of(having(groups, windows=one), "query")) for one in windows]
    sheet = Sheet(
        result, "NEXMark: the highest rate of each query, and its latency at half of that rate",
        [f"2 workers. The highest rate is that at which p99 stays below 100 ms. {rounds(result.rows)}"],
        [*(Key(label, look, is_area=True) for label, look in STYLES.values()),
         Key("the original's flex (Rust, 2 threads, the development machine)", _ORIGINAL_LOOK)],
        rows=2, columns=max(len(windows), 1), panel_inches=(6.5, 2.9), sharex="col", sharey="row",
        width_ratios=sizes or [1],
    )  # fmt: skip
    for column, one in enumerate(windows):
        mine = having(groups, windows=one)
        above, below = sheet.axes[0][column], sheet.axes[1][column]
        name_panel(above, _WINDOWS.get(one, f"windows: {one}"))
        log(below, "y")
        _draw(above, mine, "highest_m_s")
        _draw(below, mine, "half_p99_ms")
        above.margins(y=0.12)
        below.margins(y=0.2)
    sheet.axes[0][0].set_ylabel("highest rate, M events/s")
    sheet.axes[1][0].set_ylabel("p99 at half of it, ms (log)")
    for panel in sheet.axes[1]:
        panel.set_xlabel("query")
    return {"nexmark": sheet}


def _draw(panel: Axes, groups: Sequence[Group], figure: str) -> None:
    """Draw bars, or marks on a logarithmic axis, on which a bar's length means nothing."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2, foreground="white")]
    queries, styles = values_of(groups, "query"), values_of(groups, "style")
    panel.set_xticks(range(len(queries)), queries)
    panel.grid(visible=False, axis="x")
    for position, query in enumerate(queries):
        # Measured with windows of hours only.
        original = _ORIGINAL[figure].get(query) if groups[0][0]["windows"] == "12h" else None
        if original is not None:
            panel.hlines(original, position - 0.01, position + _BAR + 0.05, color=_ORIGINAL_LOOK.colour,
                         linewidth=_ORIGINAL_LOOK.width, zorder=2.5, gid=gid("original", query, figure))  # fmt: skip
    for number, style in enumerate(styles):
        _, look = STYLES.get(style, (style, Look(GREY)))
        for position, query in enumerate(queries):
            x = position + (number - (len(styles) - 1) / 2) * (_BAR + 0.02)
            found = spread([row for _, rows in having(groups, query=query, style=style) for row in rows], figure)
            if found is None:
                panel.text(x, 0.02, "none", transform=panel.get_xaxis_transform(), ha="center", rotation=90, size=7,
                           color=GREY)  # fmt: skip
                continue
            name = gid(groups[0][0]["windows"], query, style, figure)
            if panel.get_yscale() == "log":
                panel.plot([x], [found.middle], gid=name, **replace(look, dash="").options)
            else:
                panel.bar(x, found.middle, _BAR, color=look.colour, gid=name)
            if found.least < found.most:
                panel.vlines(x, found.least, found.most, color="black", linewidth=1.0)
            original = _ORIGINAL[figure].get(query, 0.0) if groups[0][0]["windows"] == "12h" else 0.0
            # A label above its mark would lie on the original's line where that is a little higher.
            below = panel.get_yscale() == "log" and found.middle < original < _LABEL_REACH * found.most
            end, points, grows = (found.least, -5, "top") if below else (found.most, 4, "baseline")
            panel.annotate(short(found.middle), (x, end), xytext=(0, points), textcoords="offset points",
                           ha="center", va=grows, size=7, path_effects=halo, gid=f"{name}-label")  # fmt: skip
