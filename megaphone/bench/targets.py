"""What the project promises, each promise beside what was measured: reached, missed, or not measured.

    TARGETS --rows of the point--> results of a folder --median over rounds--> bound --> verdict

A promise names the experiment, the point and the figure, so the table cannot say anything that no result has.  Figures
of the smoke size promise nothing, and what a result lacks is said to be lacking.

The median decides, as far as it can: one run close to its bound decides nothing, runs on both sides of it are said to
be, and of pairs the bound must lie outside of an interval that has their true median in 19 of 20 cases.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from megaphone.bench.experiment import Pair
from megaphone.bench.experiments import bins, headline, marks, nexmark
from megaphone.bench.table import aligned, figures, grouped, ratios, shares

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from megaphone.bench.experiment import Value
    from megaphone.bench.results import Result

Bound = Literal["at least", "at most", "exactly"]
_SIGNS: Final[dict[Bound, str]] = {"at least": "≥", "at most": "≤", "exactly": "="}
_NOTHING: Final = "–"
_ONE_RUN_MARGIN: Final = 0.15
"""A single run that is closer to its bound than that could as well have been on the other side."""
_SURE: Final = 0.95
_INTERVAL: Final = (
    "Of ratios of pairs, *median* says between what their true median lies in 19 of 20 cases, by the sign test."
)
HEADER: Final = ("what", "to reach", "stretch", "measured", "least–most", "runs", "verdict", "command")


@dataclass(frozen=True, kw_only=True)
class Target:
    """One promise.

    Attributes:
        what: in words.
        experiment: that measures it.
        of: parameters of its point, or of the point above the line of a pair.
        figure: of the result, or a pair, whose ratio is meant.
        bound: on which side of a number a figure has to be.
        reach: the number; None: there is only a stretch.
        stretch: the number that would be better still; None: there is none.
        unit: of the numbers.
        digits: after the point of a measured figure; ``exactly`` looks at no more of them.
        beside: the yardstick, where the figure is meant as a share of it.
    """

    what: str
    experiment: str
    of: Mapping[str, Value] = field(default_factory=dict)
    figure: str | Pair
    bound: Bound = "at most"
    reach: float | None
    stretch: float | None = None
    unit: str = ""
    digits: int = 2
    beside: str = ""

    def holds(self, value: float, number: float) -> bool:
        """Return whether a figure is on the right side of a number; the number itself is."""
        if self.bound == "exactly":
            return round(value, self.digits) == number
        return value >= number if self.bound == "at least" else value <= number


@dataclass(frozen=True)
class Measured:
    """A promise and what was measured of it.

    Attributes:
        target: the promise.
        values: of each round; none where it was not measured.
        why: nothing was measured, if so.
        command: that measured it, or that would.
    """

    target: Target
    values: Sequence[float]
    why: str
    command: str

    @property
    def verdict(self) -> str:
        """Whether the median is where it has to be, and how sure that is."""
        target = self.target
        if not self.values:
            return "not measured"
        middle = statistics.median(self.values)
        decided = target.reach is None or not self._is_open(target.reach)
        beyond = target.stretch is not None and target.holds(middle, target.stretch)
        if target.stretch is not None and beyond and decided and not self._is_open(target.stretch):
            return f"stretch reached{self._doubt(target.stretch)}"
        if target.reach is None:
            open_one = target.stretch is not None and self._is_open(target.stretch)
            return self._undecided() if open_one else f"stretch missed{self._doubt(target.stretch)}"
        if not decided:
            return self._undecided()
        return f"{'reached' if target.holds(middle, target.reach) else 'missed'}{self._doubt(target.reach)}"

    def _is_open(self, bound: float) -> bool:
        """Whether the runs do not tell on which side of a bound the figure is; counts that are exact always do."""
        if self.target.bound == "exactly":
            return False
        if len(self.values) == 1:
            return abs(self.values[0] - bound) <= _ONE_RUN_MARGIN * abs(bound)
        between = median_between(self.values) if isinstance(self.target.figure, Pair) else None
        return between is not None and self.target.holds(between[0], bound) != self.target.holds(between[1], bound)

    def _undecided(self) -> str:
        runs = len(self.values)
        return f"not decided ({runs} {'pair' if isinstance(self.target.figure, Pair) else 'run'}{'s' * (runs > 1)})"

    def _doubt(self, bound: float | None) -> str:
        if isinstance(self.target.figure, Pair) and median_between(self.values) is not None:
            return ""  # the interval is what tells, not the single pair
        sides = {self.target.holds(value, bound) for value in self.values} if bound is not None else set()
        return ", not in all runs" if len(sides) > 1 else ""

    def cells(self) -> list[str]:
        """Return the line of the table but for the command, a text for each of `HEADER`."""
        target = self.target
        bounds = [_NOTHING if number is None else f"{_SIGNS[target.bound]} {number:g}{_unit(target)}"
                  for number in (target.reach, target.stretch)]  # fmt: skip
        told = [_NOTHING, _NOTHING]
        if self.values:
            middle, least, most = (
                f"{value:,.{target.digits}f}"
                for value in (statistics.median(self.values), min(self.values), max(self.values))
            )
            told = [f"{middle}{_unit(target)}", f"{least}–{most}" if len(self.values) > 1 else _NOTHING]
            between = median_between(self.values) if isinstance(target.figure, Pair) else None
            if between is not None:
                told[1] += f" (median {between[0]:.{target.digits}f}–{between[1]:.{target.digits}f})"
        return [target.what, *bounds, *told, str(len(self.values)), self.verdict]


def _unit(target: Target) -> str:
    return f" {target.unit}" if target.unit else ""


def median_between(values: Sequence[float]) -> tuple[float, float] | None:
    """Return between which two of the values the true median lies in 95 % of all cases, by the sign test; None of few.

    It assumes nothing of how they are spread: that all of n lie on one side of it has a chance of 2 / 2^n.

    >>> median_between([1.0, 1.1, 1.2, 1.3, 1.4])
    >>> median_between([7, 1, 2, 3, 4, 5, 6, 8, 9])
    (2, 8)
    """
    n, outside = len(values), 0
    found = None
    for cut in range(n // 2):
        outside += math.comb(n, cut)
        if 1 - 2 * outside / 2**n < _SURE:
            break
        found = sorted(values)[cut], sorted(values)[n - 1 - cut]
    return found


def incomplete(results: Mapping[str, Result]) -> list[str]:
    """Return a line for each result that has not all points of its experiment."""
    # The catalog knows all experiments, of which this module needs a few.
    from megaphone.bench.catalog import EXPERIMENTS

    lines = []
    for name, result in results.items():
        if name not in EXPERIMENTS:
            continue
        wanted = [point.parameters for point in EXPERIMENTS[name].points(result.head["size"])]
        there = [parameters for parameters, _ in grouped(result) if parameters in wanted]
        if len(there) < len(wanted):
            lines.append(f"incomplete: {len(there)} of {len(wanted)} points of {name}")
    return lines


def measured(target: Target, results: Mapping[str, Result]) -> Measured:
    """Return what the results of a folder have of a promise."""
    command = f"megaphone bench run {target.experiment} --size full"
    result = results.get(target.experiment)
    if result is None:
        return Measured(target, (), f"no result of {target.experiment}", command)
    if result.head["size"] != "full":
        return Measured(target, (), f"the result of {target.experiment} is of the {result.head['size']} size", command)
    rows = [row for parameters, members in grouped(result) if _is_of(target, parameters) for row in members]
    if not rows:
        left_out: Mapping[str, str] = result.head.get("left_out", {})
        named = " ".join(f"{name}={value}" for name, value in target.of.items())
        return Measured(target, (), left_out.get(named, "the result has no run of it"), command)
    if isinstance(target.figure, Pair):
        values = [value for parameters, found in ratios(result, target.figure)
                  if _is_of(target, parameters) for value in found]  # fmt: skip
        why = "" if values else f"no round has {target.figure.figure} of both runs"
        return Measured(target, values, why, result.head["command"])
    if target.beside:
        values, lacking = shares(rows, target.figure, target.beside), f"{target.figure} and {target.beside}"
    else:
        values, lacking = figures(rows, target.figure), target.figure
    typed = rows[0]["command"].replace("python -m megaphone ", "megaphone ")
    return Measured(target, values, "" if values else f"its runs have no {lacking}", typed)


def _is_of(target: Target, parameters: Mapping[str, Any]) -> bool:
    return target.of.items() <= parameters.items()


def lines_of(results: Mapping[str, Result]) -> list[str]:
    """Return the table for people: a line for each promise."""
    found = [measured(target, results) for target in TARGETS]
    # Commands are of any length: they stand at the end, flush left.
    table = aligned(HEADER[:-1], [one.cells() for one in found], left=1)
    commands = [HEADER[-1], *(f"{one.why}: {one.command}" if one.why else one.command for one in found)]
    return [*(f"{line}  {command}" for line, command in zip(table, commands, strict=True)), *incomplete(results)]


def markdown_of(results: Mapping[str, Result]) -> list[str]:
    """Return the table for a document; commands as code."""
    rows = []
    for one in (measured(target, results) for target in TARGETS):
        why = f"{one.why}: " if one.why else ""
        rows.append([*one.cells(), f"{why}`{one.command}`"])
    return [*markdown_table(HEADER, rows), *_paragraph(incomplete(results)), "", _INTERVAL]


def _paragraph(lines: Sequence[str]) -> list[str]:
    return ["", f"{'; '.join(lines)}.".replace("incomplete", "Incomplete", 1)] if lines else []


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown.

    >>> markdown_table(["a", "b"], [["1", "2"]])
    ['| a | b |', '|---|---|', '| 1 | 2 |']
    """
    lines = [f"| {' | '.join(row)} |" for row in (header, *rows)]
    return [lines[0], f"|{'---|' * len(header)}", *lines[1:]]


# -- the promises ------------------------------------------------------------------------------------------------------


def _latency(what: str, of: Mapping[str, Value], **bounds: tuple[float, float]) -> Iterator[Target]:
    """Return a promise for each quantile: (to reach, stretch), in ms."""
    for name, (reach, stretch) in bounds.items():
        yield Target(
            what=f"{what}: {name.replace('p999', 'p99.9')}", experiment="marks", of=of, figure=f"{name}_ms",
            reach=reach, stretch=stretch, unit="ms", digits=3,
        )  # fmt: skip


def _mark(what: str, of: Mapping[str, Value], reach: float | None, stretch: float | None, **more: Any) -> Target:
    return Target(what=what, experiment="marks", of=of, reach=reach, stretch=stretch, **more)


_RATE: Final[Mapping[str, Any]] = {"figure": "rate_m_s", "bound": "at least", "unit": "M/s", "digits": 1}


def _closed(backend: str, keys_m: int) -> dict[str, Value]:
    return {"mark": "closed loop", "backend": backend, "keys": keys_m * 1_000_000}


_GROWING: Final[dict[str, Value]] = {"mark": "inserting, closed loop"}
_HALF: Final[dict[str, Value]] = {"mark": "inserting, 5 M/s"}
_PAUSE: Final[Mapping[str, Any]] = {"figure": "grow_pause_ms", "unit": "ms", "digits": 3}
_BILLION: Final[dict[str, Value]] = {"keys_m": 1000}
_BIG_MOVE: Final[dict[str, Value]] = {**_BILLION, **headline.MOVED}
_QUERIES: Final = tuple(nexmark.ORIGINAL_FLEX_M_S)

TARGETS: Final[tuple[Target, ...]] = (
    _mark("word count, arrays, 10 M keys, closed loop", _closed("vec", 10), 70, 90, **_RATE),
    replace(
        _mark("the same as a share of the yardstick: prefetched increments in 80 MB, 2 processes", _closed("vec", 10),
              None, 0.7, **_RATE), unit="", digits=2, beside=marks.LARGE,
    ),
    _mark("word count, arrays, 1 M keys, closed loop", _closed("vec", 1), 115, 150, **_RATE),
    _mark("word count, hash tables, 10 M keys, closed loop", _closed("hashmap", 10), 36, 45, **_RATE),
    _mark("word count, hash tables, 1 M keys, closed loop", _closed("hashmap", 1), 52, 65, **_RATE),
    Target(what="word count, arrays, 10⁹ keys (8 GB), closed loop", experiment="headline",
           of={**_BILLION, "strategy": "closed loop"}, reach=15, stretch=20, **_RATE),
    _mark("hash tables while 10 M keys are inserted, closed loop", _GROWING, 10, 20, **_RATE),
    *_latency("hash tables while 10 M keys are inserted at 5 M/s", _HALF, p999=(10, 5)),
    *_latency("100 k/s", {"mark": "100 k/s"}, p50=(0.1, 0.05), p99=(0.3, 0.15)),
    *_latency("6 M/s, arrays", {"mark": "6 M/s"}, p50=(0.1, 0.05), p99=(0.5, 0.25)),
    *_latency("40 M/s, arrays, 10 M keys", {"mark": "40 M/s"}, p50=(0.2, 0.1), p99=(3, 1)),
    *_latency("6 M/s, 4 workers on 2 cores", {"mark": "6 M/s, 4 workers"}, p50=(0.3, 0.15), p99=(1.5, 0.8)),
    _mark("exchange of 16-byte records, both ways", {"mark": "exchange"}, 200, 300, **_RATE),
    _mark("the same: copies of a record", {"mark": "exchange"}, 1, None, figure="copies_per_record", bound="exactly",
          digits=3),
    _mark("the same: fresh allocations after the warm-up", {"mark": "exchange"}, 0, None, figure="fresh_after_warmup",
          bound="exactly", digits=0),
    Target(what="25 % of 8 GB moves at once at 8 M/s: p99 of the second after the switch, over a run without",
           experiment="headline", of=_BIG_MOVE, figure=headline.SECOND, reach=1.2, stretch=1.05, unit="×"),
    Target(what="the same: worst 10 ms of that second, by its p99", experiment="headline", of=_BIG_MOVE,
           figure=headline.WORST, reach=1.5, stretch=1.1, unit="×"),
    Target(what="the hand-over itself, 25 % of 8 GB: from the switch until the probe is beyond its time",
           experiment="headline", of=_BIG_MOVE, figure="handover_ms", reach=1, stretch=0.1, unit="ms", digits=3),
    _mark("the hand-over itself, 25 % of 10 M keys", {"mark": "hand-over"}, 1, 0.1, figure="handover_ms", unit="ms",
          digits=3),
    _mark("longest pause from growth, closed loop", _GROWING, 0.5, 0.2, **_PAUSE),
    _mark("longest pause from growth at 5 M/s", _HALF, 0.5, 0.2, **_PAUSE),
    _mark("copy mode, all at once: keys moved", {"mark": "copy"}, 60, 150, figure="moved_m_keys_s", bound="at least",
          unit="M/s", digits=1),
    *(
        Target(what=f"p99 at 2¹⁶ bins over that at 2⁸, {words}", experiment="bins", of={"backend": backend},
               figure=bins.MANY_OVER_FEW, reach=1.5, stretch=1.1, unit="×")
        for backend, words in (("vec", "arrays"), ("hashmap", "hash tables"))
    ),
    *(
        Target(what=f"NEXMark {query} flex: highest rate over the original's flex", experiment="nexmark",
               of={"query": query, "style": "flex", "windows": "12h"}, figure="rate_over_original", bound="at least",
               reach=4, stretch=10, unit="×")
        for query in _QUERIES
    ),
    *(
        Target(what=f"NEXMark {query}: highest rate of flex over plain", experiment="nexmark",
               of={"query": query, "windows": "12h"}, figure=nexmark.FLEX_OVER_PLAIN, bound="at least", reach=0.8,
               stretch=0.95, unit="×")
        for query in _QUERIES
    ),
    *(
        _mark(f"one empty time through word count's graph, {words}", {"mark": "empty time", "workers": workers}, reach,
              stretch, figure="empty_us", unit="µs", digits=1)
        for workers, words, reach, stretch in ((1, "1 worker", 15, 5), (2, "2 processes", 60, 25))
    ),
)  # fmt: skip
"""In the order in which they are told.  Latencies are of records by the time at which they were due."""
