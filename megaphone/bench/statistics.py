"""Of few measurements of a noisy machine: medians, ratios with their spread, and whether a difference is proven.

Two sets of runs are compared by their ranks, which no outlier can bend: `rank_test` is the exact two-sided test of Mann
and Whitney, by counting all orders that there could have been.  The ratio that stands beside it is the median of all
ratios of a run of one to a run of the other (Hodges and Lehmann's estimate, of logarithms).
"""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

PROVEN: Final = 0.05
"""A difference as large would be seen in less than one of twenty comparisons of equals."""


@dataclass(frozen=True)
class Ratio:
    """Figures of B over those of A.

    Attributes:
        before: median of A.
        after: median of B.
        middle: median of all pairs' ratios; not finite, or 0, where a figure is 0, and then the medians tell more.
        least: smallest of them.
        most: largest of them.
        rises: whether B is the larger one in more than half of all pairs; never asked where nothing differs.
        p: chance that two sets of the same thing differ so much.
        p_least: the smallest p that so many runs can have, however much they differ.
    """

    before: float
    after: float
    middle: float
    least: float
    most: float
    rises: bool
    p: float
    p_least: float

    @property
    def proven(self) -> bool:
        """Whether it is a difference, were it the only one that is looked at; of many, see `adjusted`."""
        return self.p < PROVEN

    @property
    def provable(self) -> bool:
        """Whether so many runs could prove anything."""
        return self.p_least < PROVEN

    @property
    def told(self) -> str:
        """The ratio, or from what to what it went where there is none, as from 0 to 3.

        >>> ratio([0.0], [3.0]).told
        '0 -> 3'
        """
        if self.before == self.after or (0 < self.middle < math.inf and min(self.before, self.after) >= 0):
            return f"{self.middle:.3f}"
        return f"{self.before:.4g} -> {self.after:.4g}"

    @property
    def from_or_to_zero(self) -> bool:
        """Whether it is no matter of degree: nothing became something, or something nothing."""
        return (self.before == 0) != (self.after == 0)


def ratio(a: Sequence[float], b: Sequence[float]) -> Ratio | None:
    """Compare two sets of figures; None only where one is empty: a figure that was 0 and is not is a difference, too.

    >>> ratio([1.0, 1.1, 0.9, 1.0], [2.0, 2.1, 2.2, 1.9]).proven
    True
    """
    if not a or not b:
        return None
    pairs = list(itertools.product(a, b))
    ratios = sorted(_over(theirs, mine) for mine, theirs in pairs)
    wins = sum((theirs > mine) - (theirs < mine) for mine, theirs in pairs)
    return Ratio(
        statistics.median(a), statistics.median(b), statistics.median(ratios), ratios[0], ratios[-1], wins > 0,
        rank_test(a, b), least_p(len(a), len(b)),
    )  # fmt: skip


def _over(value: float, by: float) -> float:
    """Return a ratio of figures that are never negative: equals are 1, also two zeros, and anything over 0 is endless.

    What is negative all the same (a time that a clock bent) counts as 0: its rank is what tells.
    """
    value, by = max(value, 0.0), max(by, 0.0)
    if by == 0:
        return 1.0 if value == 0 else math.inf
    return value / by


def rank_test(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the two-sided probability of ranks as far apart as these, were both sets of the same thing.

    Ties count half, and widen the answer towards 1.

    Cost: O((n * m)**2) for the counts of orders; sets are of tens, not thousands.
    """
    n, m = len(a), len(b)
    wins = sum((x > y) + 0.5 * (x == y) for x, y in itertools.product(a, b))
    extreme = math.floor(min(wins, n * m - wins) + 0.5)
    tail = sum(_orders(n, m, count) for count in range(extreme + 1))
    return min(1.0, 2 * tail / math.comb(n + m, n))


def least_p(n: int, m: int) -> float:
    """Return the smallest answer that `rank_test` can have of n and m runs: two of all orders are the farthest apart.

    >>> least_p(3, 3), round(least_p(3, 7), 3)
    (0.1, 0.017)
    """
    return min(1.0, 2 / math.comb(n + m, n))


def adjusted(chances: Sequence[float]) -> list[float]:
    """Return chances of many tests made larger, so that below `PROVEN` one of twenty found differences is none.

    One of twenty tests of equals is below 0.05 by itself, so that among a hundred there are always some.  This is
    Benjamini and Hochberg's way: the k-th smallest of n counts n/k times.  It holds for tests that are independent or
    go up and down together, as the figures of one run do.

    >>> adjusted([0.5, 0.01, 0.02])
    [0.5, 0.03, 0.03]
    """
    order = sorted(range(len(chances)), key=chances.__getitem__, reverse=True)
    answers, least = [1.0] * len(chances), 1.0
    for rank, index in zip(range(len(chances), 0, -1), order, strict=True):
        least = min(least, chances[index] * len(chances) / rank)
        answers[index] = least
    return answers


@cache
def _orders(n: int, m: int, wins: int) -> int:
    """Return in how many orders of n and m values the n win so many of their n * m comparisons."""
    if wins < 0:
        return 0
    if n == 0 or m == 0:
        return int(wins == 0)
    # The largest value of all is one of the n, which then beats all m, or one of the m, which nobody of the n beats.
    return _orders(n - 1, m, wins - m) + _orders(n, m - 1, wins)


def has_share(figure: str, beside: str) -> bool:
    """Return whether a figure and a yardstick are rates of one unit.

    >>> has_share("rate_m_s", "ring_m_records_s"), has_share("p50_ms", "futex_wake_us_p50")
    (True, False)
    """
    units = (("_m_s", ("_m_s", "_m_records_s")), ("_gb_s", ("_gb_s",)))
    return any(figure.endswith(unit) and any(other in beside for other in others) for unit, others in units)


def share(figure: str, value: float | None, yardstick: float | None, beside: str) -> float | None:
    """Return a rate as a share of its yardstick; None where they are not rates of one unit.

    >>> share("rate_m_s", 50.0, 100.0, "increments_8mb_m_s_2")
    0.5
    """
    return value / yardstick if has_share(figure, beside) and value is not None and yardstick else None
