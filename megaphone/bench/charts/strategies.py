"""Highest latency in a migration against its duration: a panel for what varies, a line for strategy and transfer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from megaphone.bench.charts.data import groups_of, having, spread, values_of
from megaphone.bench.charts.looks import STRATEGY
from megaphone.bench.charts.sheet import GREY, Key, Look, Sheet, empty, gid, log
from megaphone.bench.charts.words import STRATEGIES, TRANSFERS, conditions, power, rounds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from megaphone.bench.results import Result
    from megaphone.bench.table import Group

_VARIES: Final = {"bins": "more bins, the same keys", "keys": "more keys, the same bins",
                  "both": "more of both, as many keys in each bin"}  # fmt: skip


def look_of(strategy: str, transfer: str) -> Look:
    """Return the look of a line: the strategy's colour; dashed and hollow where state is copied."""
    base = STRATEGY.get(strategy, Look(GREY, "x"))
    return base if transfer == "handover" else Look(base.colour, base.marker, "--", filled=False)


def draw(result: Result) -> dict[str, Sheet]:
    """Return the chart of a result of ``strategies``."""
    groups = groups_of(result, "varies", "bins", "keys", "strategy", "transfer")
    varies = values_of(groups, "varies")
    series = [(strategy, transfer) for transfer in values_of(groups, "transfer")
              for strategy in values_of(groups, "strategy")]  # fmt: skip
    keys = [
        Key(f"{STRATEGIES.get(strategy, strategy)}, {TRANSFERS.get(transfer, transfer)}", look_of(strategy, transfer))
        for strategy, transfer in series
    ]
    sheet = Sheet(
        result, "How long a migration of a quarter of the state takes, and how high latency gets in it",
        [f"{conditions(result.rows)}. {rounds(result.rows)} The last migration of each run.",
         "Down and to the left is good. A number at a mark is that of the bins, of the keys, or of both."],
        keys, columns=max(len(varies), 1), panel_inches=(4.9, 4.6), sharex=True, sharey=True,
    )  # fmt: skip
    for panel, what in zip(sheet.panels, varies, strict=False):
        log(panel, "x", "y")
        mine = having(groups, varies=what)
        panel.set_title(_title(what, mine))
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
    for of, took, highest in known:
        panel.hlines(highest.middle, took.least, took.most, color=look.colour, linewidth=1.0, alpha=0.7)
        panel.vlines(took.middle, highest.least, highest.most, color=look.colour, linewidth=1.0, alpha=0.7)
        panel.annotate(
            _label(of), (took.middle, highest.middle), xytext=(4, 4), textcoords="offset points", size=6.5,
            color=look.colour,
        )  # fmt: skip


def _label(of: Mapping[str, Any]) -> str:
    if of["varies"] in ("bins", "keys"):
        return power(str(of[of["varies"]]))
    return f"{power(str(of['bins']))}, {power(str(of['keys']))}"


def _title(what: str, groups: Sequence[Group]) -> str:
    fixed = {"bins": "keys", "keys": "bins"}.get(what)
    values = values_of(groups, fixed) if fixed else []
    text = _VARIES.get(what, str(what))
    return f"{text} ({power(str(values[0]))} {fixed})" if len(values) == 1 else text
