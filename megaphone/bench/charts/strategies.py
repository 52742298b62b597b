"""Highest latency in a migration against its duration: a panel for what varies, a line for strategy and transfer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from megaphone.bench.charts.data import groups_of, having, spread, values_of
from megaphone.bench.charts.looks import STRATEGY
from megaphone.bench.charts.sheet import GREY, Key, Look, Sheet, empty, gid, log, name_panel, write_beside
from megaphone.bench.charts.words import STRATEGIES, TRANSFERS, conditions, power, rounds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from megaphone.bench.results import Result
    from megaphone.bench.table import Group

_VARIES: Final = {"bins": "more bins, the same keys", "keys": "more keys, the same bins",
                  "both": "more keys and bins alike"}  # fmt: skip
# In points from a mark, so that labels of lines which run side by side do not meet.
_OFFSETS: Final = {"sudden": (6, 2), "fluid": (5, -9), "batched": (-4, 5)}
_NEAR: Final = 1.6
"""Ratio of coordinates within which two marks are one heap to the eye, on axes of some decades."""


def look_of(strategy: str, transfer: str) -> Look:
    """Return the look of a line: the strategy's colour; dashed and hollow where state is copied."""
    base = STRATEGY.get(strategy, Look(GREY, "x"))
    return base if transfer == "handover" else Look(base.colour, base.marker, "--", filled=False)


def draw(result: Result) -> dict[str, Sheet]:
    """Return the chart of a result of ``strategies``."""
    groups = groups_of(result, "varies", "bins", "keys", "strategy", "transfer")
    varies = values_of(groups, "varies")
    # By strategy first: the legend is filled column by column, and a column is then a strategy.
    series = [
        (strategy, transfer) for strategy in values_of(groups, "strategy") for transfer in values_of(groups, "transfer")
    ]
    keys = [
        Key(f"{STRATEGIES.get(strategy, strategy)}, {TRANSFERS.get(transfer, transfer)}", look_of(strategy, transfer))
        for strategy, transfer in series
    ]
    sheet = Sheet(
        result, "How long a migration of a quarter of the state takes, and how high latency gets in it",
        [f"{conditions(result.rows)}. {rounds(result.rows)} The last migration of each run.",
         "Down and to the left is good. A mark is labelled with what grows: bins, or keys."],
        keys, columns=max(len(varies), 1), panel_inches=(4.9, 4.6), sharex=True, sharey=True,
    )  # fmt: skip
    for panel, what in zip(sheet.panels, varies, strict=False):
        log(panel, "x", "y")
        mine = having(groups, varies=what)
        name_panel(panel, _title(what, mine))
        for strategy, transfer in series:
            _draw_line(panel, having(mine, strategy=strategy, transfer=transfer), look_of(strategy, transfer),
                       gid(what, strategy, transfer))  # fmt: skip
        if not any(spread(rows, "migration_ms") and spread(rows, "migration_max_ms") for _, rows in mine):
            empty(panel)
    sheet.labels("duration of the migration, ms (log)", "highest latency in it, ms (log)")
    return {"strategies": sheet}


def _draw_line(panel: Axes, groups: Sequence[Group], look: Look, name: str) -> None:
    known = [
        (of, took, highest) for of, rows in groups
        if (took := spread(rows, "migration_ms")) and (highest := spread(rows, "migration_max_ms"))
    ]  # fmt: skip
    panel.plot(
        [took.middle for _, took, _ in known], [highest.middle for *_, highest in known], gid=name, **look.options
    )
    for _, took, highest in known:
        panel.hlines(highest.middle, took.least, took.most, color=look.colour, linewidth=1.0, alpha=0.7)
        panel.vlines(took.middle, highest.least, highest.most, color=look.colour, linewidth=1.0, alpha=0.7)
    offset = _OFFSETS.get(str(groups[0][0]["strategy"]), (5, 3)) if groups else (5, 3)
    for text, x, y in _labels([(_label(of), took.middle, highest.middle) for of, took, highest in known]):
        write_beside(panel, text, (x, y), offset, color=look.colour, size=7.5, ha="left" if offset[0] > 0 else "right")


def _labels(points: Sequence[tuple[str, float, float]]) -> list[tuple[str, float, float]]:
    """Return the labels of a line's points; neighbours that lie upon each other share one.

    >>> _labels([("2⁴", 1.0, 1.0), ("2⁶", 1.1, 1.0), ("2⁸", 9.0, 1.0)])
    [('2⁴…2⁶', 1.1, 1.0), ('2⁸', 9.0, 1.0)]
    """
    heaps: list[list[tuple[str, float, float]]] = []
    for point in points:
        if heaps and all(_is_near(a, b) for a, b in zip(heaps[-1][-1][1:], point[1:], strict=True)):
            heaps[-1].append(point)
        else:
            heaps.append([point])
    return [("…".join(dict.fromkeys([heap[0][0], heap[-1][0]])), *heap[-1][1:]) for heap in heaps]


def _is_near(a: float, b: float) -> bool:
    return min(a, b) > 0 and max(a, b) / min(a, b) < _NEAR


def _label(of: Mapping[str, Any]) -> str:
    return power(str(of["bins" if of["varies"] == "bins" else "keys"]))


def _title(what: str, groups: Sequence[Group]) -> str:
    """Return what varies in a panel, and what does not."""
    exponents = [tuple(int(str(of[name]).partition("^")[2]) for name in ("keys", "bins")) for of, _ in groups]
    fixed = {"bins": {f"{power(f'2^{keys}')} keys" for keys, _ in exponents},
             "keys": {f"{power(f'2^{bins}')} bins" for _, bins in exponents},
             "both": {f"{power(f'2^{keys - bins}')} keys in each bin" for keys, bins in exponents}}  # fmt: skip
    text = _VARIES.get(what, str(what))
    same = fixed.get(what, set())
    return f"{text}: {same.pop()}" if len(same) == 1 else text
