"""What is kept equals what is counted from the roots after every step of any dataflow.

The dataflows, and what they must show, are those of the other property tests; here everything is counted again after
each step of each slot, alone and as sums over all slots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megaphone.migration.control import Map
from tests.native.recounting import RecountedSimulation
from tests.property import binary_runs, migrating, test_binary, test_dataflow, test_migration
from tests.property.migrating import Script, check_outcome, run_script
from tests.property.test_migration import scripts
from tests.unit.dataflow import runs


class _Counted(RecountedSimulation):
    """Counts what this file has recounted."""


@pytest.fixture(autouse=True)
def recounted(
    monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, Any], None]
) -> Iterator[type[RecountedSimulation]]:
    """Simulations of the other files recount, and the number of recounts is reported."""
    for module in (binary_runs, migrating, test_binary, test_dataflow, test_migration, runs):
        monkeypatch.setattr(module, "Simulation", _Counted)
    _Counted.recounts = _Counted.run_recounts = 0
    yield _Counted
    assert _Counted.recounts
    assert _Counted.run_recounts
    record_property("runs", _Counted.recounts + _Counted.run_recounts)


@settings(suppress_health_check=[*HealthCheck])
@given(scripts())
def test_all_that_is_kept_is_what_the_roots_say_while_bins_move_and_records_are_post_dated(script: Script) -> None:
    check_outcome(script, run_script(script))


@settings(suppress_health_check=[*HealthCheck])
@given(test_binary.scripts())
def test_all_that_is_kept_is_what_the_roots_say_while_bins_of_two_inputs_move(script: binary_runs.BinaryScript) -> None:
    binary_runs.check_outcome(script, binary_runs.run_script(script))


@pytest.mark.parametrize(
    "law",
    [
        test_dataflow.test_every_record_that_goes_in_comes_out_with_its_time,
        test_dataflow.test_a_frontier_never_falls_never_passes_a_record_and_reaches_the_end,
        test_dataflow.test_what_is_complete_is_counted_whole,
        test_dataflow.test_a_loop_ends_and_each_round_is_a_step_later,
        test_dataflow.test_views_kept_by_an_operator_read_the_same_at_the_end,
        test_migration.test_a_state_machine_and_what_consumes_input_equal_their_references_while_both_are_moved,
        test_migration.test_a_time_is_not_applied_before_what_comes_back_to_it_through_a_loop,
        test_binary.test_a_time_is_not_applied_before_what_comes_back_to_either_side_through_a_loop,
        test_binary.test_distributed_records_are_the_input_and_each_is_where_the_configuration_of_its_time_says,
    ],
    ids=lambda law: law.__name__.removeprefix("test_"),
)
def test_all_that_is_kept_is_what_the_roots_say_while(law: Callable[[], None]) -> None:
    law()


@given(st.integers(2, 4), st.integers(0, 2**32 - 1), st.sampled_from(["handover", "copy"]))
def test_all_that_is_kept_is_what_the_roots_say_where_memory_is_scarce_and_all_bins_move(
    slots: int, seed: int, transfer: str
) -> None:
    burst = tuple(range(400))
    moved = [Map([(shift + number) % slots for number in range(8)]) for shift in range(6)]
    rounds = tuple(
        migrating.Round(
            tuple(migrating.Sending(slot, burst, delay=slot) for slot in range(slots)), (migrating.Update((there,)),), 3
        )
        for there in moved
    )
    script = Script(slots, 3, migrating.BACKENDS[seed % 4], transfer, rounds, seed)
    check_outcome(script, run_script(script))
