"""Offered rate against the highest latency: a line for each strategy; rates that were not reached are hollow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from megaphone.bench.charts.data import groups_of, having, spread, values_of
from megaphone.bench.charts.looks import STRATEGY
from megaphone.bench.charts.sheet import GREY, Key, Look, Sheet, empty, gid, line, log
from megaphone.bench.charts.words import STRATEGIES, conditions, rounds

if TYPE_CHECKING:
    from megaphone.bench.results import Result

_REACHED: Final = 0.95
"""Part of the offered rate; less is a machine that does not keep up, and latency then is the length of the run."""


def draw(result: Result) -> dict[str, Sheet]:
    """Return the chart of a result of ``throughput``."""
    groups = groups_of(result, "offered_m_s", "strategy")
    strategies = values_of(groups, "strategy")
    keys = [Key(STRATEGIES.get(name, name), STRATEGY.get(name, Look(GREY, "x"))) for name in strategies]
    keys.append(Key(f"less than {_REACHED:.0%} of the rate was reached", Look(GREY, "o", "", filled=False)))
    sheet = Sheet(
        result, "The highest latency of a run by offered rate, with and without a migration",
        [f"{conditions(result.rows)}. {rounds(result.rows)}",
         "A run that migrates moves a quarter of the bins away and back; its highest latency is that of all records."],
        keys, panel_inches=(9.0, 4.6),
    )  # fmt: skip
    (panel,) = sheet.panels
    log(panel, "x", "y")
    for strategy in strategies:
        look = STRATEGY.get(strategy, Look(GREY, "x"))
        mine = having(groups, strategy=strategy)
        points = [(float(of["offered_m_s"]), spread(rows, "max_ms")) for of, rows in mine]
        line(panel, points, look, gid(strategy))
        for (offered, highest), (_, rows) in zip(points, mine, strict=True):
            reached = spread(rows, "rate_m_s")
            if highest is not None and reached is not None and reached.middle < _REACHED * offered:
                hollow = Look(look.colour, look.marker, "", filled=False)
                name = gid(strategy, "missed", offered)
                panel.plot([offered], [highest.middle], zorder=5, gid=name, **hollow.options)
    if offered_all := sorted({float(of["offered_m_s"]) for of, _ in groups}):
        panel.set_xticks(offered_all, [f"{rate:g}" for rate in offered_all], minor=False)
        panel.set_xticks([], minor=True)
    if not any(spread(rows, "max_ms") for _, rows in groups):
        empty(panel)
    sheet.labels("offered rate, M records/s over all workers (log)", "highest latency of a record, ms (log)")
    return {"throughput": sheet}
