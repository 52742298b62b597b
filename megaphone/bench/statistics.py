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
        middle: median of all pairs' ratios.
        least: smallest of them.
        most: largest of them.
        p: chance that two sets of the same thing differ so much; 1 where there are too few to tell.
    """

    middle: float
    least: float
    most: float
    p: float

    @property
    def proven(self) -> bool:
        """Whether it is a difference, as far as that many runs can tell."""
        return self.p < PROVEN


def ratio(a: Sequence[float], b: Sequence[float]) -> Ratio | None:
    """Compare two sets of positive figures; None where one is empty or has a figure that is not positive.

    >>> ratio([1.0, 1.1, 0.9, 1.0], [2.0, 2.1, 2.2, 1.9]).proven
    True
    """
    if not a or not b or min(*a, *b, math.inf) <= 0:
        return None
    ratios = sorted(theirs / mine for mine, theirs in itertools.product(a, b))
    return Ratio(statistics.median(ratios), ratios[0], ratios[-1], rank_test(a, b))


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


@cache
def _orders(n: int, m: int, wins: int) -> int:
    """Return in how many orders of n and m values the n win so many of their n * m comparisons."""
    if wins < 0:
        return 0
    if n == 0 or m == 0:
        return int(wins == 0)
    # The largest value of all is one of the n, which then beats all m, or one of the m, which nobody of the n beats.
    return _orders(n - 1, m, wins - m) + _orders(n, m - 1, wins)


def share(figure: str, value: float | None, yardstick: float | None, beside: str) -> float | None:
    """Return a rate as a share of its yardstick; None where they are not rates of one unit.

    >>> share("rate_m_s", 50.0, 100.0, "increments_8mb_m_s_2")
    0.5
    """
    for unit, others in (("_m_s", ("_m_s", "_m_records_s")), ("_gb_s", ("_gb_s",))):
        if figure.endswith(unit) and any(other in beside for other in others) and value is not None and yardstick:
            return value / yardstick
    return None
