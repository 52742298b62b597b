"""What a record costs on each way: a line for each way and what differs from the others, a panel for each cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from megaphone.bench.charts.data import groups_of, values_of
from megaphone.bench.charts.rows import ROW_INCHES, draw_rows
from megaphone.bench.charts.sheet import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, Sheet
from megaphone.bench.charts.words import rounds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from megaphone.bench.results import Result

_FIGURES: Final = {
    "rate_m_s": "rate\nM records/s", "cpu_ns_per_record": "processor time\nns per record",
    "copies_per_record": "copies\nper record", "fresh_per_k_batches": "fresh allocations\nper 1,000 batches",
    "faults_per_m_records": "page faults\nper M records",
}  # fmt: skip
_COLOURS: Final = (BLUE, GREEN, ORANGE, PURPLE, SKY, GREY)


def draw(result: Result) -> dict[str, Sheet]:
    """Return the chart of a result of ``ledger``."""
    groups = groups_of(result, "way", "batch", "columns", "workers")
    ways = values_of(groups, "way")
    sheet = Sheet(
        result, "What a record costs on each way through the engine",
        [f"Batches are in records; their columns have 8 bytes each. {rounds(result.rows)}"],
        columns=len(_FIGURES), panel_inches=(2.9, ROW_INCHES * len(groups) + 0.7), sharey=True,
    )  # fmt: skip
    colours = [_COLOURS[ways.index(of["way"]) % len(_COLOURS)] for of, _ in groups]
    draw_rows(sheet.panels, groups, _FIGURES, [_name(of) for of, _ in groups], colours)
    return {"ledger": sheet}


def _name(of: Mapping[str, Any]) -> str:
    """Return a point in words.

    >>> _name({"way": "keep", "batch": 8192, "columns": 2, "workers": 1})
    'keep: batches of 8,192, 2 columns, 1 worker'
    """
    parts = [f"{of[name]} {name if of[name] > 1 else name[:-1]}" for name in ("columns", "workers")]
    return f"{of['way']}: batches of {of['batch']:,}, {', '.join(parts)}"
