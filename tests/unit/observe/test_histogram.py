"""The histogram: what a bucket is, that schedules are counted exactly, and how far a quantile may be off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from megaphone._core import lib
from megaphone.errors import UsageError
from megaphone.observe.histogram import BUCKET_COUNT, BUCKET_GREATEST, WORD_COUNT, Histogram, merge_words

U64_MAX = 2**64 - 1


def naive_bucket(value: int) -> int:
    """Return the bucket by the published formula, which the C code does not use as it stands."""
    row = max(0, value.bit_length() - 4)
    return row * 16 + ((value >> max(0, row - 1)) & 15)


def naive_schedule(now_ns: int, first_ns: int, step_ns: int, count: int) -> list[int]:
    """Return every latency, one record at a time."""
    return [max(0, now_ns - (first_ns + index * step_ns)) for index in range(count)]


def counted(values: list[int]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Return the words that a histogram of ``values`` must have."""
    words = np.zeros(WORD_COUNT, dtype=np.uint64)
    for value in values:
        words[naive_bucket(value)] += np.uint64(1)
    words[BUCKET_COUNT] = max(values, default=0)
    words[BUCKET_COUNT + 1] = len(values)
    return words


@settings(deadline=None)
@given(st.integers(0, U64_MAX))
@example(0)
@example(15)
@example(16)
@example(31)
@example(32)
@example(U64_MAX)
def test_a_value_lies_in_its_bucket_and_the_bucket_is_within_a_sixteenth(value: int) -> None:
    bucket = lib.mp_histogram_bucket(value)
    least, greatest = lib.mp_histogram_bucket_least(bucket), lib.mp_histogram_bucket_greatest(bucket)
    assert bucket == naive_bucket(value)
    assert least <= value <= greatest
    assert (greatest - least) * 16 <= least


def test_the_buckets_cover_64_bits_without_a_gap() -> None:
    assert lib.mp_histogram_bucket_least(0) == 0
    for bucket in range(1, BUCKET_COUNT):
        assert lib.mp_histogram_bucket_least(bucket) == int(BUCKET_GREATEST[bucket - 1]) + 1
    assert int(BUCKET_GREATEST[-1]) == U64_MAX


@settings(deadline=None)
@given(
    now_ns=st.integers(0, 2**20),
    first_ns=st.integers(0, 2**20),
    step_ns=st.integers(0, 2**12),
    count=st.integers(0, 300),
)
@example(now_ns=1000, first_ns=1000, step_ns=1, count=5)
@example(now_ns=1000, first_ns=0, step_ns=10, count=101)
@example(now_ns=1000, first_ns=0, step_ns=10, count=102)
@example(now_ns=1000, first_ns=0, step_ns=0, count=7)
def test_a_schedule_is_counted_as_a_loop_would(now_ns: int, first_ns: int, step_ns: int, count: int) -> None:
    histogram = Histogram()
    histogram.record_schedule(now_ns, first_ns, step_ns, count)
    np.testing.assert_array_equal(histogram.words, counted(naive_schedule(now_ns, first_ns, step_ns, count)))


@settings(deadline=None)
@given(
    now_ns=st.integers(U64_MAX - 2**40, U64_MAX),
    first_ns=st.integers(0, U64_MAX),
    step_ns=st.integers(0, U64_MAX),
    count=st.integers(0, 50),
)
def test_a_schedule_at_the_end_of_time_does_not_wrap(now_ns: int, first_ns: int, step_ns: int, count: int) -> None:
    histogram = Histogram()
    histogram.record_schedule(now_ns, first_ns, step_ns, count)
    np.testing.assert_array_equal(histogram.words, counted(naive_schedule(now_ns, first_ns, step_ns, count)))


def test_a_schedule_of_more_records_than_a_loop_could_visit_is_counted() -> None:
    histogram = Histogram()
    histogram.record_schedule(now_ns=10**15, first_ns=0, step_ns=1, count=10**15)
    assert histogram.count == 10**15
    assert int(histogram.words[:BUCKET_COUNT].sum()) == 10**15
    assert histogram.max == 10**15
    assert histogram.quantile(0.5) == pytest.approx(5 * 10**14, rel=1 / 16)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**50), min_size=1, max_size=200), st.sampled_from([0.01, 0.25, 0.5, 0.9, 0.99, 0.999]))
def test_a_quantile_is_never_below_the_exact_one_and_at_most_a_sixteenth_above(values: list[int], p: float) -> None:
    histogram = Histogram()
    histogram.record_each(np.array(values, dtype=np.uint64))
    exact = int(np.percentile(np.array(values, dtype=np.int64), p * 100, method="inverted_cdf"))
    assert exact <= histogram.quantile(p) <= exact + exact // 16


def test_the_greatest_quantile_is_the_exact_maximum() -> None:
    histogram = Histogram()
    histogram.record(1_000_003)
    histogram.record(7)
    assert histogram.quantiles((0.5, 1.0)) == [7, 1_000_003]


@pytest.mark.parametrize("percent", range(1, 101))
def test_a_rank_does_not_slip_by_the_rounding_of_its_probability(percent: int) -> None:
    # 0.07 * 100 is 7.000000000000001 in floating point; the 7th of 100 values is asked for, not the 8th.
    histogram = Histogram()
    for value in range(1, 101):
        histogram.record(value if value <= percent else 10**6)
    assert histogram.quantile(percent / 100) < 10**6


def test_an_empty_histogram_has_quantiles_of_zero_and_no_ccdf() -> None:
    histogram = Histogram()
    assert histogram.quantiles((0.0, 0.5, 1.0)) == [0, 0, 0]
    assert histogram.ccdf() == []


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_a_quantile_outside_0_to_1_is_refused(p: float) -> None:
    with pytest.raises(UsageError, match="from 0 to 1"):
        Histogram().quantile(p)


@settings(deadline=None)
@given(st.lists(st.integers(0, U64_MAX), max_size=30), st.lists(st.integers(0, U64_MAX), max_size=30))
def test_merging_is_recording_both(left: list[int], right: list[int]) -> None:
    merged, other = Histogram(), Histogram()
    merged.record_each(np.array(left, dtype=np.uint64))
    other.record_each(np.array(right, dtype=np.uint64))
    rows = np.stack([merged.to_array(), other.to_array()])
    merged.merge(other)
    np.testing.assert_array_equal(merged.words, counted(left + right))
    np.testing.assert_array_equal(merge_words(rows), merged.words)


def test_a_histogram_counts_in_the_array_that_it_was_given() -> None:
    words = np.zeros(WORD_COUNT, dtype=np.uint64)
    Histogram(words).record(5, count=3)
    assert words[5] == 3
    assert Histogram.from_array(words).count == 3


def test_a_histogram_from_an_array_is_its_own() -> None:
    source = Histogram()
    source.record(5)
    copy = Histogram.from_array(source.to_array())
    copy.record(6)
    assert (source.count, copy.count) == (1, 2)


def test_words_of_another_shape_or_type_are_refused() -> None:
    with pytest.raises(UsageError, match=rf"uint64\[{WORD_COUNT}\]"):
        Histogram(np.zeros(WORD_COUNT - 1, dtype=np.uint64))
    with pytest.raises(UsageError, match="int64"):
        Histogram.from_array(np.zeros(WORD_COUNT, dtype=np.int64))
    with pytest.raises(UsageError, match="C-order"):
        Histogram(np.zeros(2 * WORD_COUNT, dtype=np.uint64)[::2])


def test_the_ccdf_runs_from_the_first_bucket_to_one_past_the_last() -> None:
    histogram = Histogram()
    histogram.record(4)
    histogram.record(6, count=2)
    assert histogram.ccdf() == [(5, 1.0, 1), (6, 0.75, 0), (7, 0.75, 2), (8, 0.25, 0)]


def test_the_ccdf_of_the_greatest_value_ends_at_the_last_bucket() -> None:
    histogram = Histogram()
    histogram.record(U64_MAX)
    assert histogram.ccdf() == [(2**64, 1.0, 1)]
