"""What a new result must reach of an older one: every point is there, and no rate is a far smaller part of the machine.

A gate is a ratio that a noisy machine bends little.  Of a run as fast as it goes that is its rate as a share of the
yardstick of its minute.  Of a run that is offered a rate it is how much of that it kept up with: 1, unless it is
overloaded.  Latencies of seconds-long runs differ tenfold for no reason, and are no gates; nor is a copied GB/s where
what is copied takes a ms.  A run with neither had to end, and no more.  A rival that is not installed is told.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from megaphone.bench.experiment import NOT_INSTALLED
from megaphone.bench.statistics import Ratio, ratio
from megaphone.bench.table import OFFERED, figures, grouped, shares

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from megaphone.bench.experiment import Experiment
    from megaphone.bench.results import Result

KEPT: Final = "kept_of_offered"
_OFFERED: Final = re.compile(r"--total-rate (\d+)")


@dataclass(frozen=True)
class Gate:
    """A ratio that must not be small, or what is missing of it.

    Attributes:
        point: its parameters.
        figure: its name; empty: the point itself.
        found: B over A; None where B does not have it.
        why: B does not have it.
    """

    point: Mapping[str, Any]
    figure: str
    found: Ratio | None
    why: str = ""

    def failure(self, least: float) -> str | None:
        """Return what is wrong with it, or None."""
        name = " ".join(map(str, self.point.values()))
        if self.found is None:
            return " ".join(word for word in (f"{name}:", self.figure, self.why) if word)
        return f"{name}: {self.figure} {self.found.told}" if self.found.middle < least else None


def kept(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the part of the offered rate that was kept up with, of all rows that were offered one."""
    offered = ((row, _OFFERED.search(row["command"])) for row in rows)
    return [value * 1e6 / int(rate[1]) for row, rate in offered if rate for value in figures([row], OFFERED)]


def ratios_of(experiment: Experiment, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return all that can be a gate of one point, by name: a value for each row that has it."""
    rates = [column.figure for column in experiment.columns if column.better == "more"]
    found = {name: shares(rows, name, experiment.beside[name]) for name in rates if name in experiment.beside}
    found[KEPT] = kept(rows)
    return {name: values for name, values in found.items() if values}


def is_missing(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the program of a point is not installed, and its rows say that and nothing else."""
    return all(row["figures"].get("installed") == NOT_INSTALLED for row in rows)


def gates(experiment: Experiment, a: Result, b: Result) -> list[Gate]:
    """Return what B must have of all that A has, point by point, but for what is not installed where B was run."""
    theirs = grouped(b)
    left_out = b.head.get("left_out", {})
    found = []
    for parameters, rows in grouped(a):
        others = next((members for other, members in theirs if other == parameters), None)
        if others is None:
            name = " ".join(f"{key}={value}" for key, value in parameters.items())
            found.append(Gate(parameters, "", None, left_out.get(name, "is not there")))
            continue
        if is_missing(others):
            continue
        now = ratios_of(experiment, others)
        for figure, values in ratios_of(experiment, rows).items():
            compared = ratio(values, now.get(figure, []))
            found.append(Gate(parameters, figure, compared, "" if compared else "is not there"))
    return found
