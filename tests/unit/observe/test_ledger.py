"""The ledger: sums over workers, and what counts as a copy on the way of a record."""

from __future__ import annotations

import pytest

from megaphone.errors import InternalError
from megaphone.observe.ledger import COUNTERS, DATA_PATH_CAUSES, TIME_COUNTERS, TIMED_PARTS, CopyCause, Ledger


def counters(**given: int) -> dict[str, int]:
    """Return one worker's counters, 0 where nothing is said."""
    return {**dict.fromkeys(COUNTERS, 0), **given}


def test_counters_add_up_over_the_workers() -> None:
    workers = [
        counters(**{name: index for index, name in enumerate(COUNTERS)}),
        counters(**{name: 100 * index for index, name in enumerate(COUNTERS)}),
    ]
    ledger = Ledger.of(workers)
    expected = {name: 101 * index for index, name in enumerate(COUNTERS)}
    expected["grow_pause_max_ns"] = 100 * COUNTERS.index("grow_pause_max_ns")  # the longest, and no sum
    assert ledger.bytes_copied == {str(cause): expected[f"copied_{cause}"] for cause in CopyCause}
    for name in set(COUNTERS) - {f"copied_{cause}" for cause in CopyCause} - {"pinned_bytes"}:
        assert getattr(ledger, name) == expected[name]


def test_an_exchange_that_scatters_costs_one_copy_per_record() -> None:
    ledger = Ledger.of([counters(input_bytes=800, copied_scatter=800), counters(input_bytes=200, copied_scatter=200)])
    assert ledger.copies_per_record == 1.0


@pytest.mark.parametrize("cause", CopyCause)
def test_waiting_moving_and_growing_are_not_copies_per_record_and_all_else_is(cause: CopyCause) -> None:
    ledger = Ledger.of([counters(input_bytes=1000, **{f"copied_{cause}": 250})])
    apart = cause in (CopyCause.PEND, CopyCause.MIGRATE, CopyCause.GROW)
    assert ledger.copies_per_record == (0.0 if apart else 0.25)
    assert (cause in DATA_PATH_CAUSES) is not apart


def test_copies_per_record_of_nothing_is_unknown_and_not_zero() -> None:
    assert Ledger.of([counters()]).copies_per_record is None
    assert Ledger.of([]).to_dict()["copies_per_record"] is None


def test_fresh_allocations_of_the_warm_up_are_not_counted_after_it() -> None:
    end = [counters(allocations_fresh=12), counters(allocations_fresh=10)]
    warm = [counters(allocations_fresh=12), counters(allocations_fresh=7)]
    assert Ledger.of(end, warm).fresh_after_warmup == 3


def test_without_a_warm_up_every_fresh_allocation_counts() -> None:
    assert Ledger.of([counters(allocations_fresh=12)]).fresh_after_warmup == 12


def test_a_missing_counter_is_an_error_and_not_a_zero() -> None:
    lacking = counters()
    del lacking["copied_gather"]
    with pytest.raises(InternalError, match="worker 1 lacks the counters copied_gather"):
        Ledger.of([counters(), lacking])


def test_times_are_told_only_where_they_were_measured_and_then_zeros_too() -> None:
    first = counters(**{**dict.fromkeys(TIME_COUNTERS, 0), "ns_scatter": 5})
    workers = [first, counters(**dict.fromkeys(TIME_COUNTERS, 2))]
    assert Ledger.of(workers).nanoseconds is None
    assert "nanoseconds" not in Ledger.of(workers).to_dict()
    measured = Ledger.of(workers, has_times=True)
    assert measured.nanoseconds == {part: 7 if part == "scatter" else 2 for part in TIMED_PARTS}
    assert measured.to_dict()["nanoseconds"] == measured.nanoseconds
    with pytest.raises(InternalError, match="worker 0 lacks the counters ns_ingest"):
        Ledger.of([counters()], has_times=True)


def test_every_cause_that_is_counted_anywhere_has_a_clock() -> None:
    assert {*TIMED_PARTS} - {str(cause) for cause in CopyCause} == {"slab_scan", "slab_fresh", "blocks"}
    assert {str(cause) for cause in CopyCause} - {*TIMED_PARTS} == {"realign"}


def test_further_counters_are_allowed() -> None:
    assert Ledger.of([counters(activations=5)]).records_in == 0


def test_the_report_has_the_names_of_the_schema_in_their_order() -> None:
    shown = Ledger.of([counters(input_bytes=3, copied_own=1)]).to_dict()
    assert list(shown) == [
        "copies_per_record",
        "bytes_copied",
        "allocations_fresh",
        "allocations_recycled",
        "fresh_after_warmup",
        "pinned_bytes_max",
        "minor_faults",
        "outbox",
        "parks",
        "wakes",
        "grow_pause_max_ns",
    ]
    assert shown["copies_per_record"] == 0.333333
