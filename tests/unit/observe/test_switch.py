"""The second after a switch: exactly its records, and the worst 10 ms in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from megaphone.observe.switch import BEFORE_NS, SECOND_NS, SLICE_NS, Switch
from megaphone.observe.timeline import LatencySummary

MS = 1_000_000
AT = 2_345_678_901
"""In the middle of every window that a timeline could have."""


@dataclass
class Figures:
    """Those of a whole second."""

    latency: LatencySummary
    worst_start_ns: int
    worst_p99: int
    slices: list[list[int]]


def figures(switch: Switch) -> Figures:
    found = switch.latency()
    assert found is not None
    assert found.covered_ns == SECOND_NS
    assert found.latency is not None
    assert found.worst_start_ns is not None
    assert found.worst_p99 is not None
    return Figures(found.latency, found.worst_start_ns, found.worst_p99, found.slices)


@pytest.mark.parametrize("covered_ns", [0, 1, 590 * MS, SECOND_NS - 1])
def test_a_second_that_is_not_whole_has_no_figures_and_says_how_much_of_it_there_was(covered_ns: int) -> None:
    switch = Switch(AT)
    for due in range(AT - BEFORE_NS, AT + 590 * MS, MS):
        switch.record_schedule(due + 1_000, due, 0, 10)
    found = switch.latency(covered_ns)
    assert found is not None
    told = found.to_dict()
    assert (told["time_ns"], told["covered_ns"]) == (AT, covered_ns)
    assert told["latency_ns"] is told["worst_slice_ns"] is None
    # What is drawn is what there was.
    assert found.slices == figures(switch).slices


@pytest.mark.parametrize("step_ns", [1_000, 7_777, 999_983])
def test_the_second_has_what_was_due_from_the_switch_on_and_nothing_else(step_ns: int) -> None:
    switch = Switch(AT)
    first, count = AT - SECOND_NS, 3 * SECOND_NS // step_ns
    # In pieces of several lengths, of which some begin before what is kept, some end behind it, and some do both.
    at = 0
    for piece in [100_000, 1, 250, 1_300_000, count]:
        taken = min(piece, count - at)
        switch.record_schedule(first + 10 * SECOND_NS, first + at * step_ns, step_ns, taken)
        at += taken
    due = first + np.arange(count) * step_ns
    found = figures(switch)
    assert found.latency.samples == int(((due >= AT) & (due < AT + SECOND_NS)).sum())
    kept = switch.to_array().view(np.uint64)
    assert int(kept[:, :976].sum()) == int(((due >= AT - BEFORE_NS) & (due < AT + SECOND_NS)).sum())


def test_records_at_the_edges_are_in_the_second_when_they_were_due_in_it() -> None:
    for due, inside in ((AT - 1, 0), (AT, 1), (AT + SECOND_NS - 1, 1), (AT + SECOND_NS, 0)):
        switch = Switch(AT)
        switch.record_schedule(due + 5, due, 0, 1)
        assert (figures(switch).latency.samples if switch.latency() else 0) == inside


@pytest.mark.parametrize("stall_ms", [1, 4, 25])
def test_a_stall_is_seen_whole_in_the_slice_in_which_it_began(stall_ms: int) -> None:
    switch, step_ns = Switch(AT), 1_000
    stall_from, stall_end = AT + 403 * MS, AT + (403 + stall_ms) * MS
    for due in range(AT - 100 * MS, AT + SECOND_NS, 100_000):
        done = max(due + 100_000, stall_end) if due >= stall_from else due + 100_000
        switch.record_schedule(done, due, step_ns, 100)
    found = figures(switch)
    assert found.worst_start_ns == AT + 400 * MS
    # The first record that it held waited for all of it; one in a hundred of its slice waited nearly as long.
    (worst,) = [one for one in found.slices if one[0] == found.worst_start_ns]
    assert worst[3] == found.latency.max == stall_ms * MS
    assert 0.85 * stall_ms * MS <= found.worst_p99 <= 1.07 * stall_ms * MS
    calm = [one[2] for one in found.slices if one[0] < found.worst_start_ns]
    assert max(calm) < 200_000


def test_a_stall_before_the_switch_is_shown_and_is_no_part_of_any_figure() -> None:
    switch = Switch(AT)
    for due in range(AT - BEFORE_NS, AT + SECOND_NS, MS):
        switch.record_schedule(due + (50 * MS if due < AT - 60 * MS else 1_000), due, 0, 10)
    found = figures(switch)
    assert (found.latency.max, found.worst_p99) == (1_000, 1_000)
    assert found.slices[0] == [AT - BEFORE_NS, 50 * MS, 50 * MS, 50 * MS]
    assert len(found.slices) == (BEFORE_NS + SECOND_NS) // SLICE_NS


def test_what_two_workers_measured_is_the_same_as_what_one_would_have() -> None:
    one, *parts = (Switch(AT) for _ in range(3))
    for number, due in enumerate(range(AT - 50 * MS, AT + SECOND_NS, 3 * MS)):
        wait = 1_000 * (1 + number * 37 % 101)
        for switch in (one, parts[number % 2]):
            switch.record_schedule(due + wait, due, 10, 40)
    merged = Switch(AT, parts[0].to_array())
    merged.merge(Switch(AT, parts[1].to_array()))
    assert figures(merged) == figures(one)


def test_without_records_in_the_second_there_are_no_figures() -> None:
    switch = Switch(AT)
    switch.record_schedule(AT, AT - 10 * MS, 10, 5)
    switch.record_schedule(AT + 9 * SECOND_NS, AT + 5 * SECOND_NS, 10, 5)
    switch.record_schedule(AT + MS, AT, 10, 0)
    assert switch.latency() is None


def test_a_switch_at_the_start_of_a_run_has_no_time_before_it() -> None:
    switch = Switch(0)
    switch.record_schedule(3_000, 1, 1_000, 3)
    assert figures(switch).latency.samples == 3
