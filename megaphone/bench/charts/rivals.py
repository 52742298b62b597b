"""The same job by this engine and by others: a chart for each job, a line for each rival."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from megaphone.bench.charts.data import groups_of, having, values_of
from megaphone.bench.charts.rows import ROW_INCHES, draw_rows
from megaphone.bench.charts.sheet import BLUE, GREEN, GREY, VERMILLION, Key, Look, Sheet
from megaphone.bench.charts.words import count, rounds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from megaphone.bench.results import Result
    from megaphone.bench.table import Group

_ENGINE: Final = "engine"
# It counts what it makes itself: nobody who exchanges records can be faster.
_CEILING: Final = "plain"
_FIGURES: Final = {
    "count": {"rate_m_s": "records counted (more is better)\nM records/s"},
    "transport": {"sent_gb_s": "sent (more is better)\nGB/s", "one_way_us_p50": "one way, median (less is better)\nµs",
                  "one_way_us_p99": "one way, p99 (less is better)\nµs"},
}  # fmt: skip
_TITLES: Final = {"count": "The same keyed count by this engine and by what else there is",
                  "transport": "The same transport by this engine and by what else there is"}  # fmt: skip


def draw(result: Result) -> dict[str, Sheet]:
    """Return the charts of a result of ``rivals``, one for each job."""
    groups = groups_of(result, "job", "keys", "batch_kib", "rival")
    return {f"rivals-{job}": _sheet(result, having(groups, job=job), job) for job in values_of(groups, "job")}


def _sheet(result: Result, groups: Sequence[Group], job: str) -> Sheet:
    # All rivals of one task stand below each other, whatever the order in which they ran.
    tasks = list(dict.fromkeys((of["keys"], of["batch_kib"]) for of, _ in groups))
    groups = sorted(groups, key=lambda group: tasks.index((group[0]["keys"], group[0]["batch_kib"])))
    rows = [row for _, members in groups for row in members]
    figures = _FIGURES.get(job, _FIGURES["count"])
    keys = [Key("this engine", Look(VERMILLION), is_area=True), Key("others", Look(BLUE), is_area=True)]
    if any(of["rival"] == _CEILING for of, _ in groups):
        keys.append(Key("ceiling: no exchange", Look(GREEN), is_area=True))
    sheet = Sheet(
        result, _TITLES.get(job, f"{job} by this engine and by what else there is"),
        [f"In turns on the same machine, with the same records. {rounds(rows)}"],
        keys, columns=len(figures), panel_inches=(9.0 / len(figures) + 1, ROW_INCHES * len(groups) + 0.7), sharey=True,
    )  # fmt: skip
    colours = [{_ENGINE: VERMILLION, _CEILING: GREEN}.get(of["rival"], BLUE) for of, _ in groups]
    missing = [_why(members) for _, members in groups]
    draw_rows(sheet.panels, groups, figures, [_name(of) for of, _ in groups], colours, missing)
    for panel in sheet.panels:
        for border in (n for n in range(1, len(groups)) if _task(groups[n]) != _task(groups[n - 1])):
            panel.axhline(border - 0.5, color=GREY, linewidth=0.6)
    return sheet


def _task(group: Group) -> tuple[Any, Any]:
    return group[0]["keys"], group[0]["batch_kib"]


def _why(rows: Sequence[Mapping[str, Any]]) -> str:
    said = {row["figures"].get("installed") for row in rows}
    return "not installed" if said == {"not installed"} else "no figure"


def _name(of: Mapping[str, Any]) -> str:
    """Return a point in words.

    >>> _name({"job": "transport", "keys": 1_000_000, "batch_kib": 64, "rival": "queue"})
    'queue: batches of 64 KiB'
    """
    keys = f"{count(of['keys'])} keys, " if of["job"] == "count" else ""
    return f"{of['rival']}: {keys}batches of {of['batch_kib']} KiB"
