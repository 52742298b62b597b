"""What an experiment is: points to measure, each in a process of its own, and the figures that matter of each report.

    Experiment --points(size)--> Point --python -m MODULE FLAGS--> report (JSON) --figures--> row of the result

An experiment says what to run and what to read; it runs nothing itself.  All rates are per second over all workers, in
millions, and all times in ms unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Size = Literal["smoke", "full"]
SIZES: Final[tuple[Size, ...]] = ("smoke", "full")
Value = str | int | float
Report = Mapping[str, Any]
Figure = float | str | None
"""A number, a word where there can be none, or nothing."""
Better = Literal["more", "less", "neither"]
"""Of a figure: which way is an improvement; neither where it only tells what was done."""

START_SECONDS: Final = 1.5
"""What a run takes beyond its own length: a fresh interpreter, regions, workers."""


NOT_INSTALLED: Final = "not installed"
"""What a row has as ``installed`` where the program that a point asks is not there."""


@dataclass(frozen=True)
class Point:
    """One thing to measure: a line of a table, a mark in a chart.

    Attributes:
        parameters: what tells it from the other points of its experiment, by name.
        module: what ``python -m`` runs; it takes ``--report PATH``.
        flags: what follows.
        seconds: about how long a run takes; for the time left.
        memory_bytes: what it needs; a machine with less leaves it out, and says so.
        seeded: whether it takes ``--seed N``, too.
        paced: whether it offers a rate, so that the rate says nothing about the machine.
        repeat: rounds that it takes part in, of those of its experiment; None: in all of them.
        touched_bytes: memory that it takes from the machine while it is measured; see `runner.touch_memory`.
    """

    parameters: Mapping[str, Value]
    module: str
    flags: tuple[str, ...]
    seconds: float = START_SECONDS
    memory_bytes: int = 0
    seeded: bool = True
    paced: bool = False
    repeat: int | None = None
    touched_bytes: int = 0

    @property
    def name(self) -> str:
        """The parameters in one line, which names the point in its experiment."""
        return " ".join(f"{name}={value}" for name, value in self.parameters.items())


@dataclass(frozen=True)
class Column:
    """A figure of the table that people see.

    Attributes:
        figure: its name in the result.
        title: of the column, with the unit.
        digits: after the point.
        better: whether more of it is better, or less; a name does not tell.
    """

    figure: str
    title: str
    digits: int = 2
    better: Better = "neither"


@dataclass(frozen=True)
class Pair:
    """A figure of one point over the same of another in the same round, so that a slow minute of the machine cancels.

    Attributes:
        figure: which.
        over: parameters that tell the points whose figure is divided.
        under: parameters by which the point that it is divided by differs.
    """

    figure: str
    over: Mapping[str, Value]
    under: Mapping[str, Value]

    @property
    def name(self) -> str:
        """What it is, ending as its figure does.

        >>> Pair("p99_ms", {"bins": "2^16"}, {"bins": "2^8"}).name
        '2^16/2^8 p99_ms'
        """
        both = (" ".join(map(str, side.values())) for side in (self.over, self.under))
        return f"{'/'.join(both)} {self.figure}"


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    Attributes:
        name: on the command line.
        shows: in one line.
        after: figures or tables of the paper that it repeats, or what else it follows.
        points: of a size, in the order in which they run.
        figures: of a report, by name.
        columns: of the table.
        series: of a report, by name: lists of rows, which only charts use.
        beside: by rate, the yardstick in the same unit of which it is told as a share.
        recorded: further yardsticks that stand in each row, of which nothing is a share.
        repeat: rounds at each size, unless it is told otherwise.
        pairs: figures that are told as a ratio of two runs of one round.
    """

    name: str
    shows: str
    after: str
    points: Callable[[Size], Sequence[Point]]
    figures: Callable[[Report], Mapping[str, Figure]]
    columns: Sequence[Column]
    series: Callable[[Report], Mapping[str, list[list[float]]]] = field(default=lambda _: {})
    beside: Mapping[str, str] = field(default_factory=dict)
    recorded: Sequence[str] = ()
    repeat: Mapping[Size, int] = field(default_factory=lambda: {"smoke": 1, "full": 3})
    pairs: Sequence[Pair] = ()

    @property
    def yardsticks(self) -> list[str]:
        """Names of all yardsticks that stand in its rows."""
        return sorted({*self.beside.values(), *self.recorded})

    def better(self, figure: str) -> Better:
        """Return which way a figure is better, as its column says."""
        return next((column.better for column in self.columns if column.figure == figure), "neither")

    def rounds(self, point: Point, size: Size, asked: int | None = None) -> int:
        """Return how often a point is run; ``asked`` is what a person wants of all points, or None."""
        if asked is not None:
            return asked
        return self.repeat[size] if point.repeat is None else min(point.repeat, self.repeat[size])


def million(value: float) -> str:
    """Return a count as flags take it.

    >>> million(1.5)
    '1500000'
    """
    return str(int(value * 1e6))
