"""Time without output over the size of the state: a line for moving, and one for stopping and starting again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from megaphone.bench.charts.data import groups_of, having, spread, values_of
from megaphone.bench.charts.sheet import BLUE, GREY, VERMILLION, Key, Look, Sheet, empty, gid, line, log
from megaphone.bench.charts.words import count, rounds

if TYPE_CHECKING:
    from megaphone.bench.results import Result

_WAYS: Final = {"migrate": ("state moves while the job runs", Look(BLUE, "o")),
                "restart": ("the job stops and starts again with its state", Look(VERMILLION, "D"))}  # fmt: skip


def draw(result: Result) -> dict[str, Sheet]:
    """Return the chart of a result of ``restart``."""
    groups = groups_of(result, "keys", "how")
    ways = {how: _WAYS.get(how, (how, Look(GREY, "x"))) for how in values_of(groups, "how")}
    sheet = Sheet(
        result, "Time without output while a job changes its workers, by the size of its state",
        [rounds(result.rows)], [Key(label, look) for label, look in ways.values()], panel_inches=(9.0, 4.2),
    )  # fmt: skip
    (panel,) = sheet.panels
    log(panel, "x", "y")
    for how, (_, look) in ways.items():
        points = [(float(of["keys"]), spread(rows, "without_output_ms")) for of, rows in having(groups, how=how)]
        line(panel, points, look, gid(how))
    sizes = sorted(values_of(groups, "keys"))
    panel.set_xticks(sizes, [count(keys) for keys in sizes])
    panel.set_xticks([], minor=True)
    if not any(spread(rows, "without_output_ms") for _, rows in groups):
        empty(panel)
    sheet.labels("keys in the state (log)", "time without output, ms (log)")
    return {"restart": sheet}
