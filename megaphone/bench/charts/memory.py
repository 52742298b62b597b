"""Memory over a run: the regions' own accounts as lines, what the kernel says as dots, migrations shaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from megaphone.bench.charts.data import groups_of, having, values_of
from megaphone.bench.charts.sheet import BLACK, BLUE, ORANGE, PURPLE, Key, Look, Sheet, empty, gid, name_panel
from megaphone.bench.charts.timeline import MIGRATION_KEYS, shade
from megaphone.bench.charts.words import STRATEGIES, TRANSFERS, conditions, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from megaphone.bench.results import Result
    from megaphone.bench.table import Group

# Columns of a row of accounts, after the time.
ACCOUNTS: Final = {1: ("committed", "committed: chunks of the region in use", Look(BLUE)),
                   2: ("state", "state: what bins hold", Look(ORANGE)),
                   3: ("pinned", "pinned: batches held by views", Look(PURPLE, dash="-."))}  # fmt: skip
PSS: Final = Look(BLACK, "o", "")


def draw(result: Result) -> dict[str, Sheet]:
    """Return the chart of a result of ``memory``."""
    groups = groups_of(result, "strategy", "transfer")
    strategies, transfers = values_of(groups, "strategy"), values_of(groups, "transfer")
    which = "Of several rounds, the first." if len({row["repeat"] for row in result.rows}) > 1 else "One round."
    keys = [*(Key(label, look) for _, label, look in ACCOUNTS.values()),
            Key("PSS: the kernel's count", PSS), *MIGRATION_KEYS]  # fmt: skip
    sheet = Sheet(
        result, "Memory of a run in which a quarter of the state moves away and back",
        [f"{conditions(result.rows)}. {which}",
         "A hand-over moves no bytes; copying needs room for what is on its way, and all at once for all of it."],
        keys, rows=max(len(transfers), 1), columns=max(len(strategies), 1), panel_inches=(4.4, 2.7), sharex=True,
        sharey=True,
    )  # fmt: skip
    for row, transfer in zip(sheet.axes, transfers, strict=False):
        for panel, strategy in zip(row, strategies, strict=False):
            name_panel(panel, f"{STRATEGIES.get(strategy, strategy)}, {TRANSFERS.get(transfer, transfer)}")
            _draw_run(panel, having(groups, strategy=strategy, transfer=transfer))
    sheet.labels("time since the start of the run, s", "memory, MB")
    for panel in sheet.panels:
        panel.set_ylim(bottom=0)
        panel.yaxis.set_major_formatter(lambda value, _: plain(value))
    return {"memory": sheet}


def _draw_run(panel: Axes, groups: list[Group]) -> None:
    if not groups:
        empty(panel, "not measured")
        return
    of, rows = groups[0]
    series = rows[0]["series"]
    accounts, pss = series.get("accounts", []), series.get("pss", [])
    if not accounts and not pss:
        empty(panel)
    for column, (name, _, look) in ACCOUNTS.items():
        known = [(row[0], row[column]) for row in accounts if len(row) > column]
        panel.plot([x for x, _ in known], [y for _, y in known], drawstyle="steps-post",
                   gid=gid(*of.values(), name), **look.options)  # fmt: skip
    panel.plot([x for x, _ in pss], [y for _, y in pss], gid=gid(*of.values(), "pss"), **PSS.options)
    shade(panel, series)
