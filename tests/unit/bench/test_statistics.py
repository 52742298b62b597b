"""Medians of ratios, and what few runs can prove."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from megaphone.bench.statistics import adjusted, least_p, rank_test, ratio, share


def counted_by_hand(a: list[float], b: list[float]) -> float:
    """Return the rank test's answer by trying every way of choosing which values were a's."""
    values = a + b
    middle = len(a) * len(b) / 2

    def away(of_a: tuple[int, ...]) -> float:
        rest = [i for i in range(len(values)) if i not in of_a]
        return abs(sum(values[i] > values[j] for i in of_a for j in rest) - middle)

    seen = away(tuple(range(len(a))))
    ways = list(itertools.combinations(range(len(values)), len(a)))
    return sum(away(way) >= seen for way in ways) / len(ways)


@pytest.mark.parametrize(
    ("a", "b"),
    [([1, 2, 3], [4, 5, 6]), ([1, 5, 3], [2, 4, 6]), ([1], [2]), ([3, 1], [2, 4, 5, 6]), ([1, 2, 3, 4], [5, 6, 7, 8])],
)
def test_the_rank_test_counts_all_orders(a: list[float], b: list[float]) -> None:
    assert rank_test(a, b) == pytest.approx(counted_by_hand(a, b))
    assert rank_test(b, a) == pytest.approx(rank_test(a, b))


def test_equal_sets_prove_nothing() -> None:
    assert rank_test([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]) == 1.0


def test_three_runs_of_each_prove_nothing_and_four_do() -> None:
    three, four = ratio([1, 2, 3], [7, 8, 9]), ratio([1, 2, 3, 4], [7, 8, 9, 10])
    assert three is not None
    assert four is not None
    assert not three.proven
    assert four.proven


def test_the_least_chance_is_that_of_ranks_wholly_apart() -> None:
    for n, m in itertools.product(range(1, 8), repeat=2):
        apart = rank_test([float(i) for i in range(n)], [100.0 + i for i in range(m)])
        assert least_p(n, m) == pytest.approx(apart)
    # What the help says.
    can = {(n, m) for n, m in itertools.product(range(1, 8), repeat=2) if least_p(n, m) < 0.05}
    assert not can & {(3, 3), (2, 7), (3, 4)}
    assert can >= {(4, 4), (3, 5), (3, 7)}
    assert least_p(3, 7) == pytest.approx(2 / 120)


def test_many_tests_are_adjusted_as_by_hand() -> None:
    # Each times their number over its rank, and never more than a larger one's.
    assert adjusted([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])
    assert adjusted([0.02]) == [0.02]
    assert adjusted([]) == []
    assert adjusted([1.0, 1.0]) == [1.0, 1.0]


def test_of_equals_almost_no_comparison_finds_a_difference() -> None:
    rng = random.Random(7)
    found = 0
    for _ in range(100):
        sets = [([rng.random() for _ in range(7)], [rng.random() for _ in range(7)]) for _ in range(40)]
        found += any(p < 0.05 for p in adjusted([rank_test(a, b) for a, b in sets]))
    assert found <= 15


def test_a_ratio_is_the_median_of_all_pairs_and_has_its_spread() -> None:
    found = ratio([1.0, 2.0], [2.0, 8.0])
    assert found is not None
    assert (found.least, found.middle, found.most) == (1.0, 3.0, 8.0)


@pytest.mark.parametrize(("a", "b"), [([], [1.0]), ([1.0], [])])
def test_nothing_has_no_ratio(a: list[float], b: list[float]) -> None:
    assert ratio(a, b) is None


@pytest.mark.parametrize(
    ("a", "b", "told", "rises"),
    [
        ([0.0], [100.0], "0 -> 100", True), ([2.0], [0.0], "2 -> 0", False), ([0.0, 0.0], [0.0], "1.000", False),
        ([1.0], [-1.0], "1 -> -1", False), ([-1.0], [-2.0], "-1 -> -2", False),
        ([0.0, 0.0, 1.0], [1, 1, 1], "0 -> 1", True),
    ],
)  # fmt: skip
def test_from_nothing_to_something_is_a_difference_and_tells_both(
    a: list[float], b: list[float], told: str, rises: bool
) -> None:
    found = ratio(a, b)
    assert found is not None
    assert (found.told, found.rises) == (told, rises)


@pytest.mark.parametrize(
    ("figure", "beside", "wanted"),
    [
        ("rate_m_s", "increments_8mb_m_s_2", 0.5), ("rate_m_s", "ring_m_records_s", 0.5),
        ("copied_gb_s", "copy_256m_gb_s_2", 0.5), ("rate_m_s", "copy_256m_gb_s_2", None),
        ("p50_ms", "futex_wake_us_p50", None),
    ],
)  # fmt: skip
def test_a_share_is_of_a_yardstick_in_the_same_unit(figure: str, beside: str, wanted: float | None) -> None:
    assert share(figure, 5.0, 10.0, beside) == wanted
    assert share(figure, None, 10.0, beside) is None
    assert share(figure, 5.0, 0.0, beside) is None


def test_the_chance_is_never_above_one() -> None:
    for n, m in itertools.product(range(1, 6), repeat=2):
        for wins in range(n * m + 1):
            a = [0.0] * n
            b = [1.0 if i < wins else -1.0 for i in range(m)]
            assert 0 < rank_test(a, b) <= 1
            assert not math.isnan(rank_test(a, b))
