"""The sheet that every chart is drawn on, and the marks that all of them share.

    +-------------------------------------------+
    | title: what is shown                      |
    | under what conditions, how to read it     |
    | legend                                    |
    | panel  panel  panel                       |   matplotlib's constrained layout
    | machine, versions, commit, command        |
    +-------------------------------------------+

Head and foot have heights in inches, so that panels of any number lie between them without touching.  matplotlib is
imported when a sheet is made; figures are made without pyplot, whose state belongs to the process.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from megaphone.bench.charts.words import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from megaphone.bench.charts.data import Spread
    from megaphone.bench.results import Result

# Okabe and Ito's palette: told apart by all common kinds of colour blindness, and in grey by their markers.
BLUE: Final = "#0072B2"
VERMILLION: Final = "#D55E00"
GREEN: Final = "#009E73"
ORANGE: Final = "#E69F00"
SKY: Final = "#56B4E9"
PURPLE: Final = "#CC79A7"
BLACK: Final = "#000000"
GREY: Final = "#6E6E6E"
SHADE: Final = "#F0E442"

DPI: Final = 130
_FONTS: Final = {"title": 13.0, "about": 9.5, "legend": 9.0, "foot": 7.0}
_LINE_INCHES: Final = {"title": 0.27, "about": 0.19, "legend": 0.24, "foot": 0.14}
# Of a character, on average; a line is broken a little early rather than run over the edge.
_CHARACTER_INCHES: Final = {"title": 0.103, "about": 0.071, "legend": 0.068, "foot": 0.054}
_LEGEND_HANDLE_INCHES: Final = 0.62
_EDGE_INCHES: Final = 0.15
_SETTINGS: Final[dict[Any, Any]] = {
    "font.family": "DejaVu Sans", "font.size": 9.0, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#DDDDDD", "grid.linewidth": 0.6, "axes.axisbelow": True,
    # Text stays text, which can be searched; and the same result gives the same file.
    "svg.fonttype": "none", "svg.hashsalt": "megaphone",
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """How a series looks.

    Attributes:
        colour: of lines and marks.
        marker: of its points, "" for none.
        dash: of the line, "" for no line.
        filled: whether marks are.
        width: of the line, in points.
    """

    colour: str
    marker: str = ""
    dash: str = "-"
    filled: bool = True
    width: float = 1.6

    @property
    def options(self) -> dict[str, Any]:
        """As matplotlib takes it."""
        return {
            "color": self.colour, "marker": self.marker or "None", "linestyle": self.dash or "None", "markersize": 5.0,
            "markerfacecolor": self.colour if self.filled else "white", "linewidth": self.width,
        }  # fmt: skip


@dataclass(frozen=True)
class Key:
    """An entry of the legend.

    Attributes:
        label: what it says.
        look: of the series.
        is_area: whether it stands for bars or a shaded span.
    """

    label: str
    look: Look
    is_area: bool = False


class Sheet:
    """A figure with title, conditions, legend, panels and foot.

    Args:
        result: what is drawn; the foot tells where it comes from.
        title: what is shown, as a sentence.
        about: conditions, and how to read the chart; one sentence or more.
        keys: of the legend.
        rows: of panels.
        columns: of panels.
        panel_inches: width and height of one.
        options: of matplotlib's ``Figure.subplots``.

    Attributes:
        axes: panels, by row and column.
    """

    def __init__(
        self, result: Result, title: str, about: Sequence[str], keys: Sequence[Key] = (), *,
        rows: int = 1, columns: int = 1, panel_inches: tuple[float, float] = (5.0, 3.4), **options: Any,
    ) -> None:  # fmt: skip
        import matplotlib as mpl
        from matplotlib.figure import Figure

        with mpl.rc_context({**mpl.rcParamsDefault, **_SETTINGS}):
            width = max(columns * panel_inches[0], 8.0)
            smoke = result.head["size"] == "smoke"
            warning = ["Measured at the smoke size, which tries the experiment out: the figures mean little."]
            foot = [line for text in origin(result) for line in _wrapped(text, "foot", width)]
            head = {"title": _wrapped(title, "title", width),
                    "about": [line for text in [*about, *(warning if smoke else [])]
                              for line in _wrapped(text, "about", width)]}  # fmt: skip
            legend_columns, legend_rows = _legend_shape(keys, width)
            head_inches = _EDGE_INCHES + legend_rows * _LINE_INCHES["legend"]
            head_inches += sum(len(lines) * _LINE_INCHES[kind] for kind, lines in head.items())
            foot_inches = 2 * _EDGE_INCHES + len(foot) * _LINE_INCHES["foot"]
            height = rows * panel_inches[1] + head_inches + foot_inches
            self.figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
            engine: Any = self.figure.get_layout_engine()
            engine.set(rect=(0, foot_inches / height, 1, (height - head_inches - foot_inches) / height))
            engine.set(w_pad=0.08, h_pad=0.08)
            left = _EDGE_INCHES / width
            top = height - _EDGE_INCHES
            for kind, lines in head.items():
                for line in lines:
                    weight = "bold" if kind == "title" else "normal"
                    colour = VERMILLION if line in warning else BLACK
                    self.figure.text(left, top / height, line, size=_FONTS[kind], weight=weight, va="top", color=colour)
                    top -= _LINE_INCHES[kind]
            if keys:
                self.figure.legend(
                    handles=[_handle(key) for key in keys], loc="upper left", ncols=legend_columns, frameon=False,
                    bbox_to_anchor=(left, top / height), borderaxespad=0, borderpad=0.2, fontsize=_FONTS["legend"],
                )  # fmt: skip
            for number, line in enumerate(reversed(foot)):
                bottom = _EDGE_INCHES + number * _LINE_INCHES["foot"]
                self.figure.text(left, bottom / height, line, size=_FONTS["foot"], va="bottom", color=GREY)
            self.axes: list[list[Axes]] = self.figure.subplots(rows, columns, squeeze=False, **options).tolist()

    @property
    def panels(self) -> list[Axes]:
        """All panels, row by row."""
        return [panel for row in self.axes for panel in row]

    def labels(self, x: str, y: str) -> None:
        """Name the axes of the panels at the edges, which inner ones share."""
        for panel in self.axes[-1]:
            panel.set_xlabel(x)
        for row in self.axes:
            row[0].set_ylabel(y)

    def content(self, kind: str) -> bytes:
        """Return the file: ``png`` or ``svg``; the same bytes from the same result."""
        import matplotlib as mpl

        with mpl.rc_context({**mpl.rcParamsDefault, **_SETTINGS}):
            if self.figure.get_layout_engine() is not None:
                # Once: what the panels need does not depend on the kind, and finding it is most of the work.
                for panel in self.panels:
                    _ticks(panel)
                self.figure.draw_without_rendering()
                self.figure.set_layout_engine("none")
            buffer = BytesIO()
            self.figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else {"Software": None})
            return buffer.getvalue()


def origin(result: Result) -> list[str]:
    """Return where a result comes from, in two lines: the machine; the code, the command, and when."""
    head, machine = result.head, result.head["machine"]
    days = sorted({str(row.get("started", ""))[:10] for row in result.rows} - {""})
    where = [
        f"{machine.get('cpu', 'unknown processor')}, {machine.get('cores_usable', '?')} cores, "
        f"{machine.get('memory_bytes', 0) / 1e9:.0f} GB",
        str(machine.get("kernel", "")),
        str(machine.get("python", "")),
    ]
    what = [
        f"megaphone {head.get('version', '?')}, commit {head.get('commit', 'unknown')}",
        str(head.get("command", "")),
        " to ".join(dict.fromkeys([days[0], days[-1]])) if days else "",
    ]
    return [" · ".join(part for part in parts if part) for parts in (where, what)]


def gid(*names: object) -> str:
    """Return the name of a series in the SVG, by which a page or a test finds it.

    >>> gid("hashmap", "p99.9")
    'hashmap-p99.9'
    """
    return re.sub(r"[^\w.]+", "-", "-".join(map(str, names)))


def line(panel: Axes, points: Sequence[tuple[float, Spread | None]], look: Look, name: str) -> None:
    """Draw a line through medians, with whiskers; points without a figure are left out."""
    known = [(x, y) for x, y in points if y is not None]
    panel.plot([x for x, _ in known], [y.middle for _, y in known], gid=name, **look.options)
    for x, y in known:
        if y.least < y.most:
            panel.vlines(x, y.least, y.most, color=look.colour, linewidth=1.0, alpha=0.7)


def name_panel(panel: Axes, text: str) -> None:
    """Write above a panel what it shows."""
    panel.set_title(text, loc="left", size=9.5, weight="bold")


def write_beside(panel: Axes, text: str, place: tuple[float, float], offset: tuple[int, int], **options: Any) -> None:
    """Write a small text beside a mark, white around its letters, so that it can be read across a line.

    Args:
        panel: which.
        text: what.
        place: of the mark, in data.
        offset: of the text from there, in points.
        options: of the text, as matplotlib has them.
    """
    from matplotlib.patheffects import withStroke

    # Below the lines, so that no halo hides a mark.
    options = {"zorder": 1.9, "path_effects": [withStroke(linewidth=2, foreground="white")], **options}
    panel.annotate(text, place, xytext=offset, textcoords="offset points", **options)


def log(panel: Axes, *axes: str) -> None:
    """Make axes logarithmic."""
    for axis in axes:
        if axis == "x":
            panel.set_xscale("log", nonpositive="clip")
        else:
            panel.set_yscale("log", nonpositive="clip")


def empty(panel: Axes, text: str = "no figures") -> None:
    """Say in a panel that there is nothing to draw in it."""
    panel.text(0.5, 0.5, text, transform=panel.transAxes, ha="center", va="center", color=GREY)


def _ticks(panel: Axes) -> None:
    """Write the ticks of logarithmic axes as plain numbers, between the powers of ten too where there are few."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

    for axis, limits in ((panel.xaxis, panel.get_xlim()), (panel.yaxis, panel.get_ylim())):
        if axis.get_scale() == "log" and not isinstance(axis.get_major_locator(), FixedLocator):
            decades = limits[1] / limits[0]
            subs = (1.0,) if decades > 300 else (1.0, 3.0) if decades > 30 else (1.0, 2.0, 5.0)
            axis.set_major_locator(LogLocator(subs=subs, numticks=20))
            axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
            axis.set_minor_formatter(NullFormatter())


def _wrapped(text: str, kind: str, width_inches: float) -> list[str]:
    return textwrap.wrap(text, int((width_inches - 2 * _EDGE_INCHES) / _CHARACTER_INCHES[kind])) or [""]


def _legend_shape(keys: Sequence[Key], width_inches: float) -> tuple[int, int]:
    """Return columns and rows: as many columns as fit side by side, each as wide as its widest label."""
    widths = [_LEGEND_HANDLE_INCHES + len(key.label) * _CHARACTER_INCHES["legend"] for key in keys]
    for columns in range(len(keys), 0, -1):
        rows = -(-len(keys) // columns)
        filled = [widths[start : start + rows] for start in range(0, len(widths), rows)]
        if len(filled) == columns and sum(map(max, filled)) <= width_inches - 2 * _EDGE_INCHES:
            return columns, rows
    return 1, len(keys)


def _handle(key: Key) -> Any:  # noqa: ANN401 - a patch or a line, which have no common base that a legend names
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if key.is_area:
        return Patch(color=key.look.colour, label=key.label)
    return Line2D([], [], label=key.label, **key.look.options)
