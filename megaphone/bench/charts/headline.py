"""A run of as many keys as fit, with all of a quarter of them moving at once, beside one in which nothing moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from megaphone.bench.charts.data import groups_of, having, spread, values_of
from megaphone.bench.charts.sheet import Sheet
from megaphone.bench.charts.timeline import KEYS, about, draw_run
from megaphone.bench.charts.words import STRATEGIES, count, length, short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from megaphone.bench.results import Result
    from megaphone.bench.table import Group

_CLOSED: Final = "closed loop"


def draw(result: Result) -> dict[str, Sheet]:
    """Return the chart of a result of ``headline``."""
    groups = groups_of(result, "keys_m", "strategy")
    amounts = values_of(groups, "keys_m")
    timed = [group for group in groups if group[0]["strategy"] != _CLOSED]
    strategies = values_of(timed, "strategy")
    sheet = Sheet(
        result, "A quarter of all keys moves at once by hand-over, beside a run in which nothing moves",
        [*about(timed), *(text for amount in amounts if (text := _told(having(groups, keys_m=amount), amount)))], KEYS,
        rows=max(len(amounts), 1), columns=max(len(strategies), 1), panel_inches=(6.0, 3.2), sharex=True, sharey=True,
    )  # fmt: skip
    for row, amount in zip(sheet.axes, amounts, strict=False):
        for panel, strategy in zip(row, strategies, strict=False):
            title = f"{count(amount * 1e6)} keys: {STRATEGIES.get(strategy, strategy)}"
            draw_run(panel, title, having(timed, keys_m=amount, strategy=strategy))
    sheet.labels("time since the start of the run, s", "latency, ms (log)")
    return {"headline": sheet}


def _told(groups: Sequence[Group], amount: float) -> str:
    """Return the figures of one amount of keys in a sentence, as far as they are known."""
    parts = []
    for of, rows in groups:
        took, warming, moved = (spread(rows, name) for name in ("migration_ms", "warming_ms", "moved_mb"))
        if took and moved:
            warmed = f" after {length(warming.middle)} of warming" if warming and warming.middle else ""
            parts.append(f"{short(moved.middle)} MB changed their worker in {length(took.middle)}{warmed}")
        rate = spread(rows, "rate_m_s")
        if of["strategy"] == _CLOSED and rate:
            parts.append(f"a closed loop counts {short(rate.middle)} M records/s")
    return f"{count(amount * 1e6)} keys: {'; '.join(parts)}." if parts else ""
