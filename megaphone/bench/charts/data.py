"""What charts read of results: a figure of a point with its spread over rounds, and the round that stands for all."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from megaphone.bench.table import Group, figures, grouped
from megaphone.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from megaphone.bench.results import Result


@dataclass(frozen=True)
class Spread:
    """A figure over the rounds of a point.

    Attributes:
        middle: the median.
        least: of all rounds.
        most: of all rounds.
    """

    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Return the spread of some values; None of none.

        >>> Spread.of([3, 1, 2])
        Spread(middle=2, least=1, most=3)
        """
        return cls(statistics.median(values), min(values), max(values)) if values else None


def spread(rows: Sequence[Mapping[str, Any]], name: str) -> Spread | None:
    """Return one figure of a point's rows, or None where no row has it."""
    return Spread.of(figures(rows, name))


def typical(rows: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return the row in which a figure is its (lower) median: the round that is drawn where only one can be."""
    known = sorted((row for row in rows if row["figures"].get(name) is not None), key=lambda row: row["figures"][name])
    return known[(len(known) - 1) // 2] if known else rows[0]


def groups_of(result: Result, *names: str) -> list[Group]:
    """Return the rows of each point.

    Args:
        result: of which.
        names: of the parameters that the chart needs.

    Raises:
        UsageError: a point lacks one of them, as a result of an older version may.
    """
    groups = grouped(result)
    for parameters, _ in groups:
        for name in names:
            if name not in parameters:
                message = (
                    f"{result.head['experiment']}: a row has no {name!r}, so it cannot be drawn: "
                    "run the experiment again with this version"
                )
                raise UsageError(message)
    return groups


def values_of(groups: Iterable[Group], name: str) -> list[Any]:
    """Return the values of a parameter, each once, in the order in which they first ran."""
    return list(dict.fromkeys(parameters[name] for parameters, _ in groups if name in parameters))


def having(groups: Iterable[Group], **parameters: object) -> list[Group]:
    """Return the groups whose points have these parameters."""
    return [group for group in groups if all(group[0].get(name) == value for name, value in parameters.items())]
