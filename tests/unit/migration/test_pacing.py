"""Pacing: a step goes out when its time has come, the one before is complete, and the gap is over; not earlier."""

from __future__ import annotations

import pytest

from megaphone.errors import InternalError, UsageError
from megaphone.migration.control import Map, Move
from megaphone.migration.pacing import Pacer
from megaphone.migration.plan import Plan, Step, fluid, none, round_trip, sudden

EMPTY = 2**64 - 1


def _three_moves_at_100() -> Plan:
    return fluid([0, 0, 0], [1, 1, 1], 100)


def test_a_step_is_not_due_before_its_file_time() -> None:
    pacer = Pacer(_three_moves_at_100())
    assert pacer.next_due_ns == 100
    assert pacer.due(99, 99) is None
    assert pacer.due(100, 100) == Step(100, [Move(0, 1)])


def test_a_step_takes_effect_at_the_time_of_the_control_and_not_of_the_file() -> None:
    pacer = Pacer(_three_moves_at_100())
    assert pacer.due(250, 0, now_ns=7) is not None
    assert pacer.in_flight_ns == 250
    assert pacer.record(0).effective_ns == 250
    assert pacer.record(0).sent_ns == 7


def test_a_step_waits_until_the_probe_is_beyond_the_step_before() -> None:
    pacer = Pacer(_three_moves_at_100())
    assert pacer.due(100, 100) is not None
    assert pacer.next_due_ns is None
    assert pacer.due(150, 100) is None
    assert pacer.due(10**6, 100) is None
    assert pacer.due(10**6, 101) == Step(100, [Move(1, 1)])
    assert pacer.due(10**6 + 1, EMPTY) == Step(100, [Move(2, 1)])


def test_two_steps_never_share_a_control_time() -> None:
    pacer = Pacer(_three_moves_at_100())
    assert pacer.due(100, 100) is not None
    assert pacer.due(100, EMPTY) is None
    assert pacer.due(101, EMPTY) is not None


def test_the_gap_runs_from_the_completion_of_the_step_before() -> None:
    pacer = Pacer(_three_moves_at_100(), gap_ns=50)
    assert pacer.due(100, 100) is not None
    assert pacer.completed(100, 180) is None
    record = pacer.completed(101, 200)
    assert record is not None
    assert (record.index, record.completed_ns) == (0, 200)
    assert pacer.next_due_ns == 250
    assert pacer.due(249, 249) is None
    assert pacer.due(250, 250) is not None


def test_the_gap_does_not_hold_back_the_first_step() -> None:
    assert Pacer(fluid([0], [1], 3), gap_ns=10**9).due(3, 3) is not None


def test_due_notes_the_completion_that_it_sees() -> None:
    pacer = Pacer(_three_moves_at_100())
    assert pacer.due(100, 0) is not None
    assert pacer.due(130, 120) is not None
    assert pacer.record(0).completed_ns == 130
    assert pacer.record(1).completed_ns is None


def test_completion_is_noted_once() -> None:
    pacer = Pacer(_three_moves_at_100())
    assert pacer.completed(EMPTY, 5) is None
    pacer.due(100, 0)
    assert pacer.completed(EMPTY, 140) is not None
    assert pacer.completed(EMPTY, 150) is None
    assert pacer.record(0).completed_ns == 140


def test_steps_at_time_zero_are_initial_and_never_due() -> None:
    plan = Plan.of([Step(0, [Map([1, 1])]), Step(0, [Move(0, 0)]), Step(5, [Move(0, 1)])], "by hand", [0, 0])
    pacer = Pacer(plan)
    assert pacer.initial_steps() == (Step(0, [Map([1, 1])]), Step(0, [Move(0, 0)]))
    assert pacer.next_step == Step(5, [Move(0, 1)])
    assert pacer.due(5, 5) == Step(5, [Move(0, 1)])
    assert [record.index for record in pacer.records] == [2]


def test_a_plan_without_migrations_is_finished_at_once() -> None:
    pacer = Pacer(none([0, 1]))
    assert len(pacer.initial_steps()) == 1
    assert pacer.finished
    assert pacer.next_step is None
    assert pacer.next_due_ns is None
    assert pacer.due(10**12, EMPTY) is None
    assert pacer.migrations == ()


def test_all_are_sent_before_all_is_finished() -> None:
    pacer = Pacer(sudden([0], [1], 1))
    assert (pacer.all_sent, pacer.finished) == (False, False)
    pacer.due(1, 1)
    assert (pacer.all_sent, pacer.finished) == (True, False)
    pacer.completed(2, 9)
    assert (pacer.all_sent, pacer.finished) == (True, True)


def test_migrations_group_the_steps_of_one_time() -> None:
    pacer = Pacer(round_trip("fluid", [0, 0], [1, 1], 300))
    for now_ns in range(0, 300, 10):
        pacer.due(now_ns, now_ns)
    first, second = pacer.migrations
    assert (first.time_ns, first.strategy, first.steps, first.bins) == (100, "fluid", 2, 2)
    assert (first.sent_ns, first.completed_ns, first.duration_ns) == (100, 120, 20)
    assert (second.time_ns, second.steps, second.steps_planned, second.duration_ns) == (200, 2, 2, 20)


def test_migrations_of_different_strategies_are_apart_even_at_one_time() -> None:
    pacer = Pacer(sudden([0, 0], [1, 1], 5).then(fluid([1, 1], [0, 1], 5)))
    pacer.due(5, 5)
    pacer.due(6, 6)
    assert [(record.strategy, record.bins) for record in pacer.migrations] == [("sudden", 2), ("fluid", 1)]


def test_a_migration_cut_short_has_no_duration() -> None:
    pacer = Pacer(_three_moves_at_100())
    pacer.due(100, 0)
    pacer.due(120, 120)
    (record,) = pacer.migrations
    assert (record.steps, record.steps_planned, record.bins) == (2, 3, 2)
    assert record.completed_ns is None
    assert record.duration_ns is None


def test_bins_that_stay_are_not_counted() -> None:
    pacer = Pacer(Plan.of([Step(1, [Move(0, 0), Move(1, 1)])], "by hand", [0, 0]))
    pacer.due(1, 1)
    assert pacer.migrations[0].bins == 1


def test_a_negative_gap_and_a_record_of_what_was_not_sent_are_refused() -> None:
    with pytest.raises(UsageError, match="negative gap between steps, -1 ns; use 0 or more"):
        Pacer(_three_moves_at_100(), gap_ns=-1)
    with pytest.raises(InternalError, match="no record of step 0"):
        Pacer(_three_moves_at_100()).record(0)
