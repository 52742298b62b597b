"""Latency over the number of bins: a panel for each backend, a line for each quantile, native as a line across."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Final

from megaphone.bench.charts.data import groups_of, having, spread, values_of
from megaphone.bench.charts.sheet import (
    BLUE,
    GREEN,
    ORANGE,
    VERMILLION,
    Key,
    Look,
    Sheet,
    empty,
    gid,
    line,
    log,
    name_panel,
)
from megaphone.bench.charts.words import BACKENDS, conditions, power, rounds, short
from megaphone.bench.experiments.bins import MANY_OVER_FEW
from megaphone.bench.table import ratios

if TYPE_CHECKING:
    from megaphone.bench.results import Result

QUANTILES: Final = {
    "p50": ("p50 (median)", Look(BLUE, "o")), "p99": ("p99", Look(GREEN, "s")), "p999": ("p99.9", Look(ORANGE, "^")),
    "max": ("highest", Look(VERMILLION, "D")),
}  # fmt: skip
_NATIVE: Final = "native"


def _ratios(result: Result) -> list[str]:
    """Return how much higher p99 is with many bins, in the same round."""
    parts = [f"{short(statistics.median(found))} for {BACKENDS.get(of['backend'], of['backend'])}"
             for of, found in ratios(result, MANY_OVER_FEW) if found]  # fmt: skip
    return [f"p99 at 2¹⁶ bins over that at 2⁸, median over rounds: {', '.join(parts)}."] if parts else []


def draw(result: Result) -> dict[str, Sheet]:
    """Return the chart of a result of ``bins``."""
    groups = groups_of(result, "backend", "bins")
    backends = values_of(groups, "backend")
    keys = [Key(label, look) for label, look in QUANTILES.values()]
    keys.append(Key("the same without bins (native)", Look("#444444", dash=":")))
    sheet = Sheet(
        result, "What bins cost while nothing moves: latency by their number",
        [f"{conditions(result.rows)}. {rounds(result.rows)}",
         "Bins are what makes state movable: a line that stays flat, near the dotted one of its colour, is good.",
         *_ratios(result)],
        keys, columns=max(len(backends), 1), sharex=True, sharey=True,
    )  # fmt: skip
    for panel, backend in zip(sheet.panels, backends, strict=False):
        log(panel, "y")
        name_panel(panel, f"counts in {BACKENDS.get(backend, backend)}")
        mine = having(groups, backend=backend)
        binned = [(int(str(of["bins"]).partition("^")[2]), rows) for of, rows in mine if of["bins"] != _NATIVE]
        without = [rows for of, rows in mine if of["bins"] == _NATIVE]
        for name, (_, look) in QUANTILES.items():
            line(panel, [(shift, spread(rows, f"{name}_ms")) for shift, rows in binned], look, gid(backend, name))
            for rows in without:
                if (native := spread(rows, f"{name}_ms")) is not None:
                    panel.axhline(
                        native.middle, color=look.colour, linestyle=":", linewidth=1.4, gid=gid(backend, name, "native")
                    )
        if shifts := sorted(shift for shift, _ in binned):
            panel.set_xticks(shifts, [power(f"2^{shift}") for shift in shifts])
        if not any(spread(rows, f"{name}_ms") for _, rows in mine for name in QUANTILES):
            empty(panel)
    sheet.labels("number of bins", "latency of a record, ms (log)")
    return {"bins": sheet}
