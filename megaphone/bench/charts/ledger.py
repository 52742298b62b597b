"""What a record costs on each way: a line for each way and what differs from the others, a panel for each cost.

::

    keep      |######....................| 9.0      one bar: parts of the processor time, which are disjoint
              |==  ^                              below it: the system's share of the same time, and page faults
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from megaphone.bench.charts.data import groups_of, spread, typical
from megaphone.bench.charts.rows import ROW_INCHES, draw_rows
from megaphone.bench.charts.sheet import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    Key,
    Look,
    Sheet,
    gid,
    name_panel,
)
from megaphone.bench.charts.words import rounds, short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

    from megaphone.bench.results import Result
    from megaphone.bench.table import Group

_JUMBO: Final = "jumbo"
_SMALL: Final = 4096
"""Records of a batch below which what a batch costs outgrows everything else."""
_ALLOCATION: Final = "allocation_ns_per_record"
_LEFT: Final = {"rate_m_s": "rate\nM records/s"}
_RIGHT: Final = {
    "copies_ns_per_record": "of it copying\nns per record", _ALLOCATION: "of it allocation\nns per record",
    "copies_per_record": "copies\nper record", "fresh_per_k_batches": "fresh allocations\nper 1,000 batches",
    "faults_per_m_records": "page faults\nper M records",
}  # fmt: skip
_PARTS: Final = {
    "ingest_ns_per_record": ("copy: ingest (the user's arrays)", PURPLE),
    "scatter_ns_per_record": ("copy: scatter (routing included)", BLUE),
    "own_ns_per_record": ("copy: own (for the reader)", ORANGE),
    "other copies": ("other copies", SKY),
    "allocation_ns_per_record": ("allocation (slabs and blocks)", GREEN),
    "rest": ("rest: making and reading records, Python, progress", "#C8C8C8"),
}
"""From the left; what is left out of a chart is 0 in all of its points."""
_SYSTEM: Final = "system_ns_per_record"
_FAULTS: Final = "faults_ns_estimated"


def draw(result: Result) -> dict[str, Sheet]:
    """Return the chart of a result of ``ledger``."""
    groups = groups_of(result, "way", "batch", "columns", "workers")
    split = [_split(typical(rows, "cpu_ns_per_record")["figures"]) for _, rows in groups]
    there = [part for part in _PARTS if any(parts.get(part) for parts in split)]
    keys = [Key(_PARTS[part][0], Look(_PARTS[part][1]), is_area=True) for part in there]
    keys += [Key("thin bar: the system's part of the same time", Look(BLACK), is_area=True),
             Key("page faults: their number × a first touch", Look(VERMILLION, "^", ""))]  # fmt: skip
    small = [number for number, (of, _) in enumerate(groups) if of["batch"] < _SMALL and of["way"] != _JUMBO]
    parts = [numbers for numbers in ([n for n in range(len(groups)) if n not in small], small) if numbers]
    sizes = [len(numbers) + 1.5 for numbers in parts] or [1.0]
    inches = 1.5 * ROW_INCHES * sum(sizes) / len(sizes)
    sheet = Sheet(
        result, "What a record costs on each way through the engine",
        [
            "keep: records are read by the worker that made them; exchange: sent to the worker of their key; arrays: "
            "the same, from the user's own arrays; own: the reader takes copies of its own; broadcast: a reference for "
            "every worker; tee: two readers; views: an exchange whose reader keeps its last 64 batches; jumbo: an "
            "exchange in batches of four slabs. Ways with small batches, which cost far more, have axes of their own.",
            "Batches are in records; their columns have 8 bytes each. Bars of processor time are of the round with the "
            "median, over all workers. Copies, allocation and rest do not overlap; system time and page faults lie "
            "within them, wherever a page was touched. The time of page faults is an estimate, and the system's is "
            f"sampled by the kernel at its ticks. {rounds(result.rows)}"
        ],
        keys, rows=max(len(parts), 1), columns=2 + len(_RIGHT), panel_inches=(2.6, inches + 0.4), sharey="row",
        height_ratios=sizes, width_ratios=[1, 2.2, *(1 for _ in _RIGHT)],
    )  # fmt: skip
    for panels, numbers in zip(sheet.axes, parts, strict=False):
        mine = [groups[number] for number in numbers]
        colours = [GREY] * len(mine)
        draw_rows([panels[0], *panels[2:]], mine, _LEFT | _RIGHT, [_name(of) for of, _ in mine], colours)
        _draw_split(panels[1], mine, [split[number] for number in numbers], there)
    return {"ledger": sheet}


def _split(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return the parts of the processor time, which add up to it; of a run that did not measure them, all is rest.

    >>> figures = {"cpu_ns_per_record": 9, "copies_ns_per_record": 4, "scatter_ns_per_record": 3}
    >>> {part: ns for part, ns in _split(figures).items() if ns}
    {'scatter_ns_per_record': 3, 'other copies': 1, 'rest': 5}
    """
    known = {name: figures.get(name) or 0 for name in _PARTS if name.endswith("_ns_per_record")}
    allocation = known["allocation_ns_per_record"]
    copies = figures.get("copies_ns_per_record") or 0
    known["other copies"] = copies - (sum(known.values()) - allocation)
    known["rest"] = (figures.get("cpu_ns_per_record") or 0) - copies - allocation
    return {part: known[part] for part in _PARTS}


def _draw_split(
    panel: Axes, groups: Sequence[Group], split: Sequence[Mapping[str, float]], there: Sequence[str]
) -> None:
    name_panel(panel, "processor time")
    panel.set_xlabel("ns per record")
    panel.grid(visible=False, axis="y")
    most = 0.0
    for position, ((of, rows), parts) in enumerate(zip(groups, split, strict=True)):
        found = spread(rows, "cpu_ns_per_record")
        if found is None:
            panel.annotate("no figure", (0, position), xytext=(3, 0), textcoords="offset points", va="center", size=7,
                           color=GREY)  # fmt: skip
            continue
        figures = typical(rows, "cpu_ns_per_record")["figures"]
        most = max(most, found.most)
        left = 0.0
        for part in there:
            # What has a panel of its own is named there.
            name = None if part == _ALLOCATION else gid(*of.values(), part)
            panel.barh(position - 0.1, parts[part], 0.5, left=left, color=_PARTS[part][1], gid=name)
            left += parts[part]
        if found.least < found.most:
            panel.hlines(position - 0.1, found.least, found.most, color="black", linewidth=1.0)
        panel.annotate(short(left), (found.most, position - 0.1), xytext=(3, 0), textcoords="offset points",
                       va="center", size=7)  # fmt: skip
        if figures.get(_SYSTEM) is not None:
            panel.barh(position + 0.24, figures[_SYSTEM], 0.12, color=BLACK, gid=gid(*of.values(), _SYSTEM))
        if figures.get(_FAULTS) is not None:
            panel.plot([figures[_FAULTS]], [position + 0.38], "^", color=VERMILLION, markersize=4.5, clip_on=False,
                       gid=gid(*of.values(), _FAULTS))  # fmt: skip
    panel.set_xlim(0, 1.15 * most or 1)


def _name(of: Mapping[str, Any]) -> str:
    """Return a point in words.

    >>> _name({"way": "keep", "batch": 8192, "columns": 2, "workers": 1})
    'keep: batches of 8,192, 2 columns, 1 worker'
    >>> _name({"way": "jumbo", "batch": 8192, "columns": 2, "workers": 2})
    'jumbo: batches of 4 slabs, 2 columns, 2 workers'
    """
    parts = [f"{of[name]} {name if of[name] > 1 else name[:-1]}" for name in ("columns", "workers")]
    batch = "4 slabs" if of["way"] == _JUMBO else f"{of['batch']:,}"
    return f"{of['way']}: batches of {batch}, {', '.join(parts)}"
