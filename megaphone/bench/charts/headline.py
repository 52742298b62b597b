"""A run of as many keys as fit, in which a quarter of them moves at once, beside one in which nothing moves.

Above, both runs whole; below, the moment of the switch of one pair laid over each other, and the ratios of all pairs.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, Final

from megaphone.bench.charts.data import groups_of, having, spread, values_of
from megaphone.bench.charts.looks import STRATEGY
from megaphone.bench.charts.sheet import BLACK, GREY, Key, Look, Sheet, empty, gid, log, name_panel, write_beside
from megaphone.bench.charts.timeline import KEYS, about, draw_run
from megaphone.bench.charts.words import STRATEGIES, count, length, short
from megaphone.bench.experiments.headline import MOVED, SECOND, STILL, WORST
from megaphone.bench.experiments.reports import SLICE_COLUMNS
from megaphone.bench.results import Result
from megaphone.bench.table import ratios

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from megaphone.bench.experiment import Pair
    from megaphone.bench.table import Group

_CLOSED: Final = "closed loop"
_RATIOS: Final = ((SECOND, "p99 of the second\nafter the switch"), (WORST, "the worst 10 ms in it\n(p99 of a slice)"))
_LINES: Final = {"p99_ms": "p99", "p50_ms": "p50 (thin)"}


def draw(result: Result) -> dict[str, Sheet]:
    """Return the chart of a result of ``headline``."""
    groups = groups_of(result, "keys_m", "strategy")
    amounts = values_of(groups, "keys_m")
    timed = [group for group in groups if group[0]["strategy"] != _CLOSED]
    told = [text for amount in amounts if (text := _told(having(groups, keys_m=amount), amount))]
    keys = [Key(f"below left: {label}, {_with(of)}", _look(of, figure))
            for of in (STILL, MOVED) for figure, label in _LINES.items()]  # fmt: skip
    sheet = Sheet(
        result, "A quarter of all keys moves at once by hand-over, beside a run in which nothing moves",
        [*about(timed), *told,
         "Below: the first switch of both runs of one round in slices of 10 ms of the time at which records were due, "
         "and the ratios of all rounds; 1 means that the move cannot be seen."],
        [*KEYS, *keys], rows=2 * max(len(amounts), 1), columns=2, panel_inches=(6.0, 3.0),
    )  # fmt: skip
    for number, amount in enumerate(amounts):
        above, below = sheet.axes[2 * number], sheet.axes[2 * number + 1]
        above[1].sharex(above[0])
        above[1].sharey(above[0])
        for panel, of in zip(above, (STILL, MOVED), strict=True):
            strategy = str(of["strategy"])
            title = f"{count(amount * 1e6)} keys: {STRATEGIES.get(strategy, strategy)}"
            draw_run(panel, title, having(timed, keys_m=amount, **of))
            panel.set_xlabel("time since the start of the run, s")
            panel.set_ylabel("latency, ms (log)")
        mine = Result(result.head, [row for row in result.rows if row["point"]["keys_m"] == amount])
        _draw_switch(below[0], mine, amount)
        _draw_ratios(below[1], mine, amount)
    return {"headline": sheet}


def _with(of: Mapping[str, Any]) -> str:
    return "a quarter moves" if of == MOVED else "nothing moves"


def _look(of: Mapping[str, Any], figure: str) -> Look:
    return Look(STRATEGY[str(of["strategy"])].colour, width=1.5 if figure == "p99_ms" else 0.7)


def typical_round(result: Result) -> int | None:
    """Return the round whose ratio of the second after the switch is the (lower) median; None where no pair is."""
    by_round = {}
    for turn in {row["repeat"] for row in result.rows}:
        alone = Result(result.head, [row for row in result.rows if row["repeat"] == turn])
        for _, found in ratios(alone, SECOND):
            by_round.update(dict.fromkeys([turn] if found else [], found[:1]))
    order = sorted(by_round, key=lambda turn: (by_round[turn], turn))
    return order[(len(order) - 1) // 2] if order else None


def _draw_switch(panel: Axes, result: Result, amount: float) -> None:
    """Draw latency around the switch, in both runs of the typical round."""
    turn = typical_round(result)
    which = "" if turn is None else f" (round {turn + 1}, whose ratio is the median)"
    name_panel(panel, f"around the switch{which}")
    panel.set_xlabel("time since the switch, ms")
    panel.set_ylabel("latency, ms (log)")
    log(panel, "y")
    drawn = False
    for of in (STILL, MOVED):
        rows = [row for row in result.rows if row["repeat"] == turn and of.items() <= row["point"].items()]
        for slices in (row["series"].get("slices", []) for row in rows):
            for figure in _LINES if slices else ():
                column = SLICE_COLUMNS.index(figure)
                panel.step([one[0] for one in slices], [one[column] for one in slices], where="post",
                           gid=gid(amount, "switch", of["strategy"], figure), **_look(of, figure).options)  # fmt: skip
                drawn = True
    if not drawn:
        empty(panel, "no pair of runs")
        return
    # Room for the word above the lines.
    panel.margins(y=0.16)
    panel.axvline(0, color=GREY, linestyle="--", linewidth=1.0, zorder=1)
    write_beside(panel, "switch", (0, 0.97), (3, 0), va="top", size=7.5, color="#444444",
                 xycoords=("data", "axes fraction"))  # fmt: skip


def _draw_ratios(panel: Axes, result: Result, amount: float) -> None:
    """Draw the ratio of each pair as a dot, and the median of all as a line across them."""
    found = [_values(result, pair) for pair, _ in _RATIOS]
    name_panel(panel, f"all pairs of one round ({max(map(len, found))}): with the move over without")
    panel.set_ylabel("ratio (log)")
    panel.grid(visible=False, axis="x")
    panel.set_xticks(range(len(_RATIOS)), [title for _, title in _RATIOS])
    panel.set_xlim(-0.6, len(_RATIOS) - 0.4)
    if not any(found):
        empty(panel, "no pair of runs")
        return
    panel.axhline(1, color=BLACK, linewidth=1.0, zorder=1)
    for position, ((pair, _), values) in enumerate(zip(_RATIOS, found, strict=True)):
        if not values:
            continue
        # Side by side in the order of rounds, so that no dot hides another.
        across = [position + 0.4 * ((number + 0.5) / len(values) - 0.5) for number in range(len(values))]
        look = STRATEGY["sudden"]
        panel.plot(across, values, linestyle="None", marker="o", markersize=4.5, color=look.colour, alpha=0.75,
                   gid=gid(amount, pair.figure))  # fmt: skip
        middle = statistics.median(values)
        panel.hlines(middle, position - 0.26, position + 0.26, color=look.colour, linewidth=2.0)
        panel.text(position, 0.97, f"median {middle:.2f}", transform=panel.get_xaxis_transform(), ha="center", va="top",
                   size=8.5)  # fmt: skip
    everything = [value for values in found for value in values]
    log(panel, "y")
    panel.set_ylim(min(0.5, *everything) / 1.25, 2.0 * max(2.0, *everything))


def _values(result: Result, pair: Pair) -> list[float]:
    return [value for _, values in ratios(result, pair) for value in values if value > 0]


def _told(groups: Sequence[Group], amount: float) -> str:
    """Return the figures of one amount of keys in a sentence, as far as they are known."""
    parts = []
    for of, rows in groups:
        took, warming, moved = (spread(rows, name) for name in ("handover_ms", "warming_ms", "moved_mb"))
        if took and moved:
            warmed = f", {length(warming.middle)} of warming before it" if warming and warming.middle else ""
            parts.append(f"{short(moved.middle)} MB changed their worker in {length(took.middle)}{warmed}")
        rate = spread(rows, "rate_m_s")
        if of["strategy"] == _CLOSED and rate:
            parts.append(f"a closed loop counts {short(rate.middle)} M records/s")
    return f"{count(amount * 1e6)} keys: {'; '.join(parts)}." if parts else ""
