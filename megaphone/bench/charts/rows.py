"""Bars of several figures side by side: a line for each point, a panel for each figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from megaphone.bench.charts.data import spread
from megaphone.bench.charts.sheet import GREY, gid, name_panel
from megaphone.bench.charts.words import short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from megaphone.bench.table import Group

ROW_INCHES = 0.24


def draw_rows(
    panels: Sequence[Axes], groups: Sequence[Group], figures: Mapping[str, str], labels: Sequence[str],
    colours: Sequence[str], missing: Sequence[str] = (),
) -> None:  # fmt: skip
    """Draw a figure of every point as a bar in its panel.

    Args:
        panels: one for each figure, which share their vertical axis.
        groups: rows by point, from above.
        figures: title of each panel by figure; the second line of a title is the unit.
        labels: of the points.
        colours: of the points' bars.
        missing: what stands where a point has no figure.
    """
    for panel, (figure, title) in zip(panels, figures.items(), strict=True):
        what, _, unit = title.partition("\n")
        name_panel(panel, what)
        panel.set_xlabel(unit)
        panel.grid(visible=False, axis="y")
        panel.set_yticks(range(len(groups)), labels)
        panel.set_ylim(len(groups) - 0.4, -0.6)
        most = 0.0
        for position, (of, rows) in enumerate(groups):
            found = spread(rows, figure)
            if found is None:
                _write(panel, missing[position] if missing else "no figure", 0, position, GREY)
                continue
            most = max(most, found.most)
            panel.barh(position, found.middle, 0.68, color=colours[position], gid=gid(*of.values(), figure))
            if found.least < found.most:
                panel.hlines(position, found.least, found.most, color="black", linewidth=1.0)
            _write(panel, short(found.middle), found.most, position, "black")
        # Room for the number beside the longest bar.
        panel.set_xlim(0, 1.3 * most or 1)


def _write(panel: Axes, text: str, x: float, position: int, colour: str) -> None:
    panel.annotate(text, (x, position), xytext=(3, 0), textcoords="offset points", va="center", size=7, color=colour)
