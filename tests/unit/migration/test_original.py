"""The original's own tests of migration, with a control input that the test steers by hand.

Records 0 ... 9 from worker 0, keyed by parity under the identity as hash, are summed: two workers, one time per record.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from megaphone.dataflow.graph import Graph
from megaphone.errors import ControlOrderError
from megaphone.migration.control import Instruction, Map, Move
from megaphone.state.stores import HashTable
from megaphone.testing import Simulation

BIN_SHIFT = 4
BINS = 1 << BIN_SHIFT
SUMS = {(0, 0), (0, 2), (0, 6), (0, 12), (0, 20), (1, 1), (1, 4), (1, 9), (1, 16), (1, 25)}


def build(graph: Graph) -> tuple[Any, Any, Any, list[tuple[int, int, int]]]:
    numbers, stream = graph.input("numbers", {"k": "u8", "v": "u8"})
    control = graph.control(manual=True)
    # The identity as a hash puts both keys into bin 0, as in the original; the state then needs the hashes given.
    shown: list[tuple[int, int, int]] = []

    def identity(batch: Any) -> Any:
        return np.array(batch["k"])

    def fold(context: Any) -> None:
        for time, segments in context.by_time():
            for segment in segments:
                rows = context.state.rows(segment["k"], segment["k"])
                sums = context.state.gather(rows, "sum") + segment["v"]
                context.state.put(rows, "sum", sums)
                context.output.send({"k": segment["k"], "sum": sums}, time=time)
                shown.extend(zip([time] * segment.n, segment["k"].tolist(), sums.tolist(), strict=True))

    sums = stream.stateful_unary(
        key=identity, state=HashTable("u8", {"sum": "u8"}), fold=fold, columns={"k": "u8", "sum": "u8"},
        control=control, bin_shift=BIN_SHIFT,
    )  # fmt: skip
    return numbers, control, sums.probe(), shown


def run(
    updates: list[tuple[int, list[Instruction]]], control_time: int | None = None
) -> tuple[set[tuple[int, int]], list[set[int]]]:
    """Return the (key, sum) that were shown, and for each worker the times at which it applied records."""
    with Simulation(build, slots=2, seed=11) as simulation:
        (numbers, control, probe, _), (numbers_1, control_1, _, _) = simulation.handles
        for time, instructions in updates:
            control.send_instructions(instructions, at=time)
        if control_time is None:
            control.close()
        else:
            control.advance_to(control_time)
        numbers_1.close()
        assert control_1.closed, "only worker 0 sends control, the others' inputs are closed from the start"
        for number in range(10):
            numbers.send({"k": [number % 2], "v": [number]})
            numbers.advance_to(number + 1)
            simulation.run_until(partial(probe.done, number))
        numbers.close()
        control.close()
        simulation.run()
        shown = [handle[3] for handle in simulation.handles]
    return {(key, total) for log in shown for _, key, total in log}, [{time for time, _, _ in log} for log in shown]


def test_default_configuration_without_any_control_gives_the_sums() -> None:
    sums, times = run([])
    assert sums == SUMS
    assert times == [set(range(10)), set()]


def test_custom_configurations_that_are_sent_before_any_data_take_effect_at_their_times() -> None:
    sums, times = run([(0, [Map([0] * BINS)]), (5, [Map([1] * BINS)])], control_time=10)
    assert sums == SUMS
    assert times == [set(range(5)), set(range(5, 10))]


def test_adjacent_configurations_at_times_0_and_1_take_effect_one_after_the_other() -> None:
    sums, times = run([(0, [Map([0] * BINS)]), (1, [Map([1] * BINS)])], control_time=10)
    assert sums == SUMS
    assert times == [{0}, set(range(1, 10))]


def test_a_map_at_the_first_time_holds_for_the_first_record() -> None:
    sums, times = run([(0, [Map([1] * BINS)])], control_time=10)
    assert sums == SUMS
    assert times == [set(), set(range(10))]


def test_error_sequence_an_instruction_before_one_that_was_sent_is_refused_and_changes_nothing() -> None:
    with Simulation(build, slots=2) as simulation:
        control = simulation.handles[0][1]
        control.send_instructions([Map([1] * BINS)], at=10)
        with pytest.raises(ControlOrderError, match=r"instruction for time 9 after one for 10"):
            control.send_instructions([Map([0] * BINS)], at=9)
        control.advance_to(12)
        with pytest.raises(ControlOrderError, match=r"control is at time 12, an instruction for 11 comes too late"):
            control.send_instructions([Map([0] * BINS)], at=11)
        assert control.updates == 1
        for handle in simulation.handles:
            handle[0].close()
            handle[1].close()
        simulation.run()


def test_two_sends_at_one_time_are_one_update_in_which_the_later_instruction_wins() -> None:
    # Where the original fails over two sequence numbers at one time, instructions of one time merge in send order.
    sums, times = run([(3, [Map([1] * BINS)]), (3, [Move(0, 0), Move(1, 0)]), (5, [Move(0, 1)])], control_time=10)
    assert sums == SUMS
    assert times == [set(range(5)), set(range(5, 10))]


def test_an_open_control_input_that_is_not_advanced_holds_everything_back() -> None:
    with Simulation(build, slots=2) as simulation:
        numbers, control, probe, shown = simulation.handles[0]
        numbers.send({"k": [0], "v": [1]})
        for handle in simulation.handles:
            handle[0].close()
        for _ in range(200):
            simulation.step()
        assert (probe.frontier(), shown) == (0, [])
        assert "'control'" in simulation.why_stuck()
        control.close()
        simulation.run()
        assert shown == [(0, 0, 1)]
