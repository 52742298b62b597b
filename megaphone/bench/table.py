"""Results as tables for people: of one result, and of two that are compared."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from megaphone.bench import statistics as statistics_of
from megaphone.bench.statistics import PROVEN, Ratio, ratio, share

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from megaphone.bench.experiment import Better, Experiment, Pair
    from megaphone.bench.results import Result

OFFERED: Final = "rate_m_s"
"""The rate of a run, which says nothing about the machine where it was offered on schedule."""

Group = tuple[Mapping[str, Any], list[dict[str, Any]]]


def grouped(result: Result) -> list[Group]:
    """Return the rows of each point, in the order in which points first ran."""
    groups: list[Group] = []
    for row in result.rows:
        for parameters, rows in groups:
            if parameters == row["point"]:
                rows.append(row)
                break
        else:
            groups.append((row["point"], [row]))
    return groups


def figures(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """Return one figure of all rows in which it is a number."""
    found = (row["figures"].get(name) for row in rows)
    return [value for value in found if isinstance(value, (int, float))]


def shares(rows: Sequence[Mapping[str, Any]], name: str, beside: str) -> list[float]:
    """Return one rate of all rows as a share of the yardstick of their minute; a rate that was asked for has none."""
    mine = [row for row in rows if not (row["paced"] and name == OFFERED)]
    found = (share(name, row["figures"].get(name), row["yardstick"].get(beside), beside) for row in mine)
    return [value for value in found if value is not None]


def ratios(result: Result, pair: Pair) -> list[tuple[Mapping[str, Any], list[float]]]:
    """Return, for each point above the line, the ratio of each round in which both points have the figure."""
    groups = grouped(result)
    found = []
    for parameters, rows in groups:
        if all(parameters.get(name) == value for name, value in pair.over.items()):
            below = {**parameters, **pair.under}
            others = [row for other, members in groups if other == below for row in members]
            by_round = {row["repeat"]: value for row in others for value in figures([row], pair.figure)}
            both = [(v, by_round.get(row["repeat"])) for row in rows for v in figures([row], pair.figure)]
            found.append((parameters, [mine / other for mine, other in both if other]))
    return found


def lines_of(experiment: Experiment, result: Result) -> list[str]:
    """Return the table of one result: medians, the rate as a share of its yardstick, and what is told in pairs."""
    groups = grouped(result)
    names = list(dict.fromkeys(name for parameters, _ in groups for name in parameters))
    beside_all = experiment.beside.items()
    rated = [(name, beside) for name, beside in beside_all if any(shares(rows, name, beside) for _, rows in groups)]
    of_rates = [f"{_title(experiment, name)} share" for name, _ in rated]
    header = [*names, *(column.title for column in experiment.columns), *of_rates, "runs"]
    rows = []
    for parameters, members in groups:
        row = [_text(parameters.get(name, "")) for name in names]
        for column in experiment.columns:
            values = figures(members, column.figure)
            row.append(f"{statistics.median(values):,.{column.digits}f}" if values else _word(members, column.figure))
        for name, beside in rated:
            found = shares(members, name, beside)
            row.append(f"{statistics.median(found):.3f}" if found else "-")
        rows.append([*row, str(len(members))])
    of = sorted({beside for _, beside in rated})
    return [
        *aligned(header, rows, left=len(names)),
        *(f"share: of {beside} of the same minute" for beside in of),
        *_lines_of_pairs(experiment, result),
        *(f"left out: {name}: {why}" for name, why in result.head.get("left_out", {}).items()),
    ]


def _lines_of_pairs(experiment: Experiment, result: Result) -> list[str]:
    rows = [
        [pair.name, " ".join(_text(value) for name, value in parameters.items() if name not in pair.over),
         f"{statistics.median(found):.3f}", f"{min(found):.3f}", f"{max(found):.3f}", str(len(found))]
        for pair in experiment.pairs
        for parameters, found in ratios(result, pair)
        if found
    ]  # fmt: skip
    return aligned(["ratio in one round", "", "median", "least", "most", "pairs"], rows, left=2) if rows else []


def _word(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    return next((row["figures"][name] for row in rows if isinstance(row["figures"].get(name), str)), "-")


def _title(experiment: Experiment, figure: str) -> str:
    return next((column.title for column in experiment.columns if column.figure == figure), figure)


@dataclass(frozen=True)
class Difference:
    """A figure that two results have.

    Attributes:
        point: its parameters.
        figure: its name, or that of a pair.
        better: which way it is better.
        found: B over A.
        is_share: whether that is of shares of the yardstick of their minute.
    """

    point: Mapping[str, Any]
    figure: str
    better: Better
    found: Ratio
    is_share: bool = False


class Judged(NamedTuple):
    """A difference among all of its comparison.

    Attributes:
        difference: which.
        p: its chance, adjusted for the number of tests.
        could: whether so many runs could have been proof.
    """

    difference: Difference
    p: float
    could: bool


def compared(experiment: Experiment, a: Result, b: Result) -> Iterator[Difference]:
    """Yield everything that both results have.

    A rate is compared as a share of its yardstick, so that a machine's slow hour does not count; a paced rate, which is
    what was asked for, is no figure.
    """
    theirs = grouped(b)
    for parameters, rows in grouped(a):
        others = next((members for other, members in theirs if other == parameters), [])
        for column in experiment.columns:
            if column.figure == OFFERED and any(row["paced"] for row in rows):
                continue
            beside = experiment.beside.get(column.figure, "")
            mine, other = shares(rows, column.figure, beside), shares(others, column.figure, beside)
            is_share = bool(mine and other)
            if not is_share:
                mine, other = figures(rows, column.figure), figures(others, column.figure)
            found = ratio(mine, other)
            if found is not None:
                yield Difference(parameters, column.figure, column.better, found, is_share)
    for pair in experiment.pairs:
        others_of = ratios(b, pair)
        for parameters, mine in ratios(a, pair):
            found = ratio(mine, next((other for point, other in others_of if point == parameters), []))
            if found is not None:
                yield Difference(parameters, pair.name, experiment.better(pair.figure), found)


def adjusted(differences: Sequence[Difference]) -> list[Judged]:
    """Judge all differences of one comparison together: the more there are, the more have to be chance.

    What so few runs can never prove, whatever they find, is no test and does not count as one.
    """
    tests = [one.found.p for one in differences if one.found.provable]
    chances = iter(statistics_of.adjusted(tests))
    judged = []
    for one in differences:
        p = next(chances) if one.found.provable else 1.0
        could = one.found.provable and (p < PROVEN or _could_be_proven(tests, one.found))
        judged.append(Judged(one, p, could))
    return judged


def _could_be_proven(tests: Sequence[float], found: Ratio) -> bool:
    """Return whether a test would be proven among the others as they are, had its runs differed as much as they can."""
    others = list(tests)
    others[others.index(found.p)] = found.p_least
    return statistics_of.adjusted(others)[others.index(found.p_least)] < PROVEN


def lines_compared(judged: Sequence[Judged]) -> list[str]:
    """Return the table of a comparison."""
    rows = [
        [" ".join(_text(value) for value in one.point.values()), f"{one.figure} share" if one.is_share else one.figure,
         one.found.told, f"{one.found.least:.3f}", f"{one.found.most:.3f}", f"{p:.3f}" if one.found.provable else "-",
         _verdict(one, p, could)]
        for one, p, could in judged
    ]  # fmt: skip
    return aligned(["point", "figure", "B/A", "least", "most", "p", ""], rows, left=2)


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Return lines whose columns stand below each other, the first ``left`` of them flush left."""
    table = [header, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    return [
        "  ".join(
            text.ljust(width) if column < left else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def _text(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _verdict(one: Difference, p: float, could: bool) -> str:
    why = "" if p < PROVEN else "noise" if could else "too few runs"
    if why and not one.found.from_or_to_zero:
        return why
    way = "differs" if one.better == "neither" else "better" if one.found.rises == (one.better == "more") else "worse"
    return f"{way}, {why}" if why else way
