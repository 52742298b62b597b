"""Log-linear histograms: a distribution of latencies in 8 KiB, whatever the number of records.

The counting is C (``histogram.h`` has the shape of the array); this face adds what is asked of a histogram once a run
is over.  A bucket is never wider than 1/16 of its least value, so every quantile is within 6.25 % of the exact one;
values below 32 and the maximum are exact.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from megaphone._core import ffi, lib
from megaphone.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    U64Array: TypeAlias = npt.NDArray[np.uint64]

WORD_COUNT: int = int(lib.mp_histogram_words())
BUCKET_COUNT: int = int(lib.mp_histogram_buckets())
MAX_WORD = BUCKET_COUNT
"""Index of the word that holds the exact maximum; the word after it holds the count."""
COUNT_WORD = BUCKET_COUNT + 1

BUCKET_GREATEST: U64Array = np.array(
    [lib.mp_histogram_bucket_greatest(bucket) for bucket in range(BUCKET_COUNT)], dtype=np.uint64
)
"""uint64[BUCKET_COUNT], the greatest value that each bucket holds (inclusive)."""


def quantiles_of(words: U64Array, probabilities: Iterable[float]) -> list[int]:
    """Return the quantiles of the histogram in ``words``.

    The quantile ``p`` of n values is the value of rank ``max(1, ceil(p * n))`` in rising order; of that value only the
    bucket is known, and the bucket's greatest value stands for it, or the exact maximum where that is less.  So a
    quantile is never below the exact one and at most 1/16 above it, and ``p = 1`` is the exact maximum.

    Args:
        words: uint64[WORD_COUNT], as ``histogram.h`` lays it out; not kept.
        probabilities: each in 0 ... 1.

    Returns:
        One integer per probability, in the unit of what was recorded; all 0 if nothing was recorded.

    Raises:
        UsageError: a probability is not in 0 ... 1.

    Cost: O(BUCKET_COUNT) for the lot.
    """
    fractions = [_exact(probability) for probability in probabilities]
    cumulative = np.cumsum(words[:BUCKET_COUNT])
    count = int(cumulative[-1])
    if count == 0:
        return [0] * len(fractions)
    ranks = np.array([max(1, math.ceil(fraction * count)) for fraction in fractions], dtype=np.uint64)
    greatest = BUCKET_GREATEST[np.searchsorted(cumulative, ranks, side="left")]
    return [int(value) for value in np.minimum(greatest, words[MAX_WORD])]


def _exact(probability: float) -> Fraction:
    """Return the decimal that was meant: 0.07 * 100 is 7, not a hair above it, and the rank must not jump to 8."""
    if not 0.0 <= probability <= 1.0:
        message = f"quantile {probability!r} is not a probability: give a number from 0 to 1"
        raise UsageError(message)
    return Fraction(probability).limit_denominator(10**9)


def merge_words(rows: U64Array) -> U64Array:
    """Return one histogram that holds all of ``rows``.

    Args:
        rows: uint64[n, WORD_COUNT]; n may be 0.

    Returns:
        uint64[WORD_COUNT], a new array.
    """
    merged = rows.sum(axis=0, dtype=np.uint64)
    merged[MAX_WORD] = rows[:, MAX_WORD].max(initial=np.uint64(0))
    return np.asarray(merged, dtype=np.uint64)


class Histogram:
    """Counts of values by size.

    Args:
        words: uint64[WORD_COUNT], C-order and writable, to count in; it may view shared memory and is kept.  A new
            array of zeros if omitted.

    Raises:
        UsageError: ``words`` has another shape or type.

    >>> waits = Histogram()
    >>> waits.record_schedule(now_ns=1_000, first_ns=0, step_ns=10, count=100)
    >>> waits.count, waits.max, waits.quantile(0.5)
    (100, 1000, 511)
    """

    __slots__ = ("_pointer", "words")

    def __init__(self, words: U64Array | None = None) -> None:
        self.words: U64Array = np.zeros(WORD_COUNT, dtype=np.uint64) if words is None else _checked(words)
        self._pointer = ffi.from_buffer("uint64_t[]", self.words, require_writable=True)

    @classmethod
    def from_array(cls, words: U64Array) -> Histogram:
        """Return a histogram of its own with what ``words`` (uint64[WORD_COUNT]) holds; the array is copied."""
        return cls(_checked(words).copy())

    def to_array(self) -> U64Array:
        """Return a copy of the words, uint64[WORD_COUNT]; what ``from_array`` takes."""
        return self.words.copy()

    def record(self, value: int, count: int = 1) -> None:
        """Record ``value`` (0 ... 2**64 - 1) ``count`` times.  O(1)."""
        lib.mp_histogram_record(self._pointer, value, count)

    def record_each(self, values: U64Array) -> None:
        """Record every element of ``values``, uint64[n] in C-order, not kept.  O(n) in C."""
        lib.mp_histogram_record_each(self._pointer, ffi.from_buffer("uint64_t[]", values), len(values))

    def record_schedule(self, now_ns: int, first_ns: int, step_ns: int, count: int) -> None:
        """Record the latencies of ``count`` records that were due at first_ns, first_ns + step_ns, ... and are done.

        A record that was due after ``now_ns`` counts as 0.

        Cost: O(buckets touched), not O(count).
        """
        lib.mp_histogram_schedule(self._pointer, now_ns, first_ns, step_ns, count)

    def merge(self, other: Histogram) -> None:
        """Add all that ``other`` holds."""
        lib.mp_histogram_merge(self._pointer, other._pointer)

    @property
    def count(self) -> int:
        """How many values were recorded."""
        return int(self.words[COUNT_WORD])

    @property
    def max(self) -> int:
        """The greatest value recorded, exactly; 0 if there is none."""
        return int(self.words[MAX_WORD])

    def quantile(self, probability: float) -> int:
        """Return one quantile, by the rule of `quantiles_of`."""
        return self.quantiles((probability,))[0]

    def quantiles(self, probabilities: Sequence[float]) -> list[int]:
        """Return several quantiles at the price of one, by the rule of `quantiles_of`."""
        return quantiles_of(self.words, probabilities)

    def ccdf(self) -> list[tuple[int, float, int]]:
        """Return the complementary distribution as the original prints it.

        Returns:
            One (value, fraction, count) per bucket, from the first that is not empty to one past the last.  ``value``
            is the bucket's upper edge (exclusive), ``count`` what is in it, and ``fraction`` is
            ``(total + 1 - count before it) / (total + 1)``.  Nothing if the histogram is empty.
        """
        buckets = self.words[:BUCKET_COUNT]
        filled = np.flatnonzero(buckets)
        if len(filled) == 0:
            return []
        total = int(buckets.sum())
        lines = []
        count_before = 0
        for bucket in range(int(filled[0]), min(int(filled[-1]) + 2, BUCKET_COUNT)):
            count = int(buckets[bucket])
            lines.append((int(BUCKET_GREATEST[bucket]) + 1, (total + 1 - count_before) / (total + 1), count))
            count_before += count
        return lines

    def __repr__(self) -> str:
        """Return the figures one looks for first."""
        p50, p99 = self.quantiles((0.5, 0.99))
        return f"Histogram(count={self.count}, p50={p50}, p99={p99}, max={self.max})"


def _checked(words: U64Array) -> U64Array:
    """Return ``words`` if C may count in it."""
    if words.shape != (WORD_COUNT,) or words.dtype != np.uint64 or not words.flags.c_contiguous:
        message = (
            f"a histogram needs uint64[{WORD_COUNT}] in C-order, this is {words.dtype}{list(words.shape)}: "
            "use what to_array returned"
        )
        raise UsageError(message)
    return words
