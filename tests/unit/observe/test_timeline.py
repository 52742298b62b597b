"""The timeline: a record counts where it was due, and sums of windows are exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from megaphone._core import ffi, lib
from megaphone.errors import UsageError
from megaphone.observe.histogram import COUNT_WORD, WORD_COUNT, Histogram
from megaphone.observe.timeline import LatencySummary, Timeline, warm_up_ns

if TYPE_CHECKING:
    import numpy.typing as npt

MS = 1_000_000
SECOND = 1000 * MS


def naive_windows(
    window_ns: int, now_ns: int, first_ns: int, step_ns: int, count: int
) -> dict[int, npt.NDArray[np.uint64]]:
    """Return the words of each window that holds a record, one record at a time."""
    windows: dict[int, Histogram] = {}
    for index in range(count):
        due_ns = first_ns + index * step_ns
        windows.setdefault(due_ns // window_ns, Histogram()).record(max(0, now_ns - due_ns))
    return {window: histogram.words for window, histogram in windows.items()}


@settings(deadline=None)
@given(
    window_ns=st.integers(20, 1000),
    now_ns=st.integers(0, 2**12),
    first_ns=st.integers(0, 2**9),
    step_ns=st.integers(0, 60),
    count=st.integers(0, 60),
)
@example(window_ns=100, now_ns=1000, first_ns=0, step_ns=50, count=20)
@example(window_ns=100, now_ns=1000, first_ns=99, step_ns=1, count=2)
def test_every_record_counts_in_the_window_in_which_it_was_due(
    window_ns: int, now_ns: int, first_ns: int, step_ns: int, count: int
) -> None:
    expected = naive_windows(window_ns, now_ns, first_ns, step_ns, count)
    window_count = max(expected, default=0) + 1
    words = np.zeros((window_count, WORD_COUNT), dtype=np.uint64)
    pointer = ffi.from_buffer("uint64_t[]", words)
    recorded = lib.mp_timeline_schedule(pointer, window_count, window_ns, now_ns, first_ns, step_ns, count)
    assert recorded == count
    for window in range(window_count):
        np.testing.assert_array_equal(words[window], expected.get(window, np.zeros(WORD_COUNT, dtype=np.uint64)))


@pytest.mark.parametrize(
    ("first_ns", "step_ns", "count", "recorded"),
    [
        (0, 10, 100, 20),
        (199, 1, 5, 1),
        (200, 1, 5, 0),
        (2**64 - 1, 0, 5, 0),
        (0, 2**64 - 1, 5, 1),
        (0, 150, 3, 2),
    ],
)
def test_records_beyond_the_last_window_are_left_out_and_told(
    first_ns: int, step_ns: int, count: int, recorded: int
) -> None:
    # One window more than the call is told of: it must stay untouched.
    words = np.zeros((3, WORD_COUNT), dtype=np.uint64)
    pointer = ffi.from_buffer("uint64_t[]", words)
    assert lib.mp_timeline_schedule(pointer, 2, 100, 10**6, first_ns, step_ns, count) == recorded
    assert int(words[:, COUNT_WORD].sum()) == recorded
    assert not words[2].any()


def test_the_last_window_of_all_times_takes_its_records() -> None:
    # The second of two windows of 10**19 ns would end beyond 2**64 - 1, where no record can be due.
    words = np.zeros((2, WORD_COUNT), dtype=np.uint64)
    pointer = ffi.from_buffer("uint64_t[]", words)
    first_ns = 2**64 - 10
    assert lib.mp_timeline_schedule(pointer, 2, 10**19, 2**64 - 1, first_ns, 4, 3) == 3
    assert lib.mp_timeline_schedule(pointer, 2, 10**19, 2**64 - 1, first_ns, 4, 4) == 3
    assert words[1, COUNT_WORD] == 6


def test_windows_without_width_take_no_records() -> None:
    words = np.zeros((2, WORD_COUNT), dtype=np.uint64)
    assert lib.mp_timeline_schedule(ffi.from_buffer("uint64_t[]", words), 2, 0, 1, 0, 1, 1) == 0


def test_a_stall_shows_in_every_window_that_it_delayed() -> None:
    timeline = Timeline()
    timeline.record_schedule(now_ns=SECOND, first_ns=0, step_ns=MS, count=1000)
    rows = timeline.rows()
    assert [row[0] for row in rows] == [0, 250 * MS, 500 * MS, 750 * MS]
    assert [row[-1] for row in rows] == [1000 * MS, 750 * MS, 500 * MS, 250 * MS]
    for row in rows:
        assert len(row) == 8
        assert row[1:] == sorted(row[1:])
        assert row[2] == pytest.approx(row[-1] - 125 * MS, rel=1 / 16)


def test_windows_without_records_have_no_row() -> None:
    timeline = Timeline()
    timeline.record_schedule(now_ns=3 * SECOND, first_ns=2 * SECOND, step_ns=0, count=1)
    assert timeline.rows() == [[2 * SECOND, *[SECOND] * 7]]


@pytest.mark.parametrize(("duration_s", "warm_up_s"), [(1, 0.0), (2, 0.0), (3, 2.0), (20, 2.0), (30, 3.0), (33, 3.3)])
def test_the_warm_up_is_2_s_or_a_tenth_and_nothing_in_a_run_that_is_shorter(duration_s: int, warm_up_s: float) -> None:
    assert warm_up_ns(duration_s * SECOND) == round(warm_up_s * 10) * 100 * MS


def test_the_warm_up_is_left_out_of_the_summary_but_not_of_the_timeline() -> None:
    timeline = Timeline()
    timeline.record_schedule(now_ns=5 * SECOND, first_ns=1999 * MS, step_ns=0, count=5)
    timeline.record_schedule(now_ns=5 * SECOND, first_ns=2000 * MS, step_ns=0, count=7)
    summary = timeline.after_warm_up(10 * SECOND)
    assert (summary.count, summary.max) == (7, 3 * SECOND)
    assert len(timeline.rows()) == 2


def test_a_warm_up_that_ends_inside_a_window_leaves_the_whole_window_out() -> None:
    timeline = Timeline()
    timeline.record_schedule(now_ns=5 * SECOND, first_ns=3450 * MS, step_ns=0, count=5)
    timeline.record_schedule(now_ns=5 * SECOND, first_ns=3500 * MS, step_ns=0, count=7)
    assert timeline.after_warm_up(33 * SECOND).count == 7


def test_around_has_no_window_in_two_parts() -> None:
    timeline = Timeline()
    for window in range(40):
        timeline.record_schedule(now_ns=20 * SECOND, first_ns=window * 250 * MS, step_ns=0, count=1)
    around = timeline.around(time_ns=4 * SECOND + 1, duration_ns=300 * MS)
    assert around.before is not None
    assert around.during is not None
    assert around.after is not None
    assert (around.before.samples, around.during.samples, around.after.samples) == (4, 2, 4)
    assert around.before.max == 17 * SECOND
    assert around.during.max == 16 * SECOND
    assert around.after.max == 15500 * MS


def test_around_a_migration_at_the_very_start_has_no_before() -> None:
    timeline = Timeline()
    timeline.record_schedule(now_ns=SECOND, first_ns=0, step_ns=0, count=3)
    around = timeline.around(time_ns=0, duration_ns=0)
    assert around.before is None
    assert around.during is not None
    assert around.during.samples == 3
    assert around.after is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(1, 10**10), st.integers(1, 40)), max_size=5))
@example([(0, 1, 1), (5000 * 250 * MS, 1, 1)])
def test_a_timeline_of_any_length_loses_nothing_and_stays_within_its_memory(
    schedules: list[tuple[int, int, int]],
) -> None:
    timeline, whole = Timeline(), Histogram()
    now_ns = 2 * 10**12
    for first_ns, step_ns, count in schedules:
        timeline.record_schedule(now_ns, first_ns, step_ns, count)
        whole.record_schedule(now_ns, first_ns, step_ns, count)
    assert len(timeline.to_array()) <= 4096
    np.testing.assert_array_equal(timeline.between(0, 2**62).words, whole.words)


@settings(deadline=None, max_examples=25)  # each one adds up tens of megabytes
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 8000), st.integers(1, 5)), max_size=8),
    st.sampled_from([1, 2, 8]),
)
@example([(True, 0, 1), (False, 8000, 1)], 1)
@example([(True, 8000, 1), (False, 0, 1)], 1)
@example([(False, 4095, 1), (True, 1, 1)], 2)
def test_merging_is_recording_both_whatever_the_widths(
    schedules: list[tuple[bool, int, int]], other_width: int
) -> None:
    left, right, whole = Timeline(100), Timeline(100 * other_width), Timeline(100)
    for to_left, first_window, count in schedules:
        for timeline in (left if to_left else right, whole):
            timeline.record_schedule(10**7, first_window * 100, 100, count)
    left.merge(right)
    np.testing.assert_array_equal(left.between(0, 2**62).words, whole.between(0, 2**62).words)
    while whole.window_ns < left.window_ns:
        widened = Timeline(whole.window_ns * 2)
        widened.merge(whole)
        whole = widened
    assert left.rows() == whole.rows()


def test_timelines_whose_windows_do_not_nest_are_not_merged() -> None:
    timeline = Timeline(200)
    for width_ns in (300, 600):
        with pytest.raises(UsageError, match=f"{width_ns} ns do not nest with windows of 200 ns"):
            timeline.merge(Timeline(width_ns))
    assert timeline.window_ns == 200


def test_a_timeline_from_an_array_is_the_same_and_its_own() -> None:
    timeline = Timeline()
    timeline.record_schedule(now_ns=SECOND, first_ns=0, step_ns=MS, count=1000)
    copy = Timeline.from_array(timeline.to_array(), timeline.window_ns)
    assert copy.rows() == timeline.rows()
    copy.record_schedule(now_ns=SECOND, first_ns=0, step_ns=MS, count=10_000)
    assert timeline.between(0, 2**62).count == 1000


def test_an_empty_timeline_has_no_rows_and_survives_its_array() -> None:
    timeline = Timeline.from_array(Timeline().to_array(), 100)
    assert timeline.rows() == []
    timeline.merge(Timeline(100))
    timeline.record_schedule(now_ns=10, first_ns=5, step_ns=0, count=0)
    assert timeline.after_warm_up(SECOND).count == 0


def test_windows_of_another_shape_or_without_width_are_refused() -> None:
    with pytest.raises(UsageError, match="to_array"):
        Timeline.from_array(np.zeros((2, 3), dtype=np.uint64), 100)
    with pytest.raises(UsageError, match="window of 0 ns"):
        Timeline(0)


def test_a_summary_has_the_names_of_the_report_in_their_order() -> None:
    histogram = Histogram()
    histogram.record(5, count=10)
    assert list(LatencySummary.of(histogram).to_dict().items()) == [
        ("p50", 5),
        ("p90", 5),
        ("p99", 5),
        ("p999", 5),
        ("max", 5),
        ("samples", 10),
    ]
