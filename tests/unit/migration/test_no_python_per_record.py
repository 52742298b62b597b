"""Python runs per batch and per activation, never per record, key or bin: counted with the interpreter's own hook."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from megaphone.dataflow.graph import Graph
from megaphone.migration.control import Instructions
from megaphone.migration.operators.state_machine import KeyGroups, Transition
from megaphone.state.stores import DenseArray, HashTable
from megaphone.testing import Simulation

ROUNDS = 40


def counting(stream: Any, common: dict[str, Any]) -> Any:
    return stream.stateful_unary(state=HashTable("u8", "u8"), fold=lambda context: context.add_emit("k"), **common)


def counting_in_arrays(stream: Any, common: dict[str, Any]) -> Any:
    return stream.stateful_unary(
        state=DenseArray("u8"), hash="dense", fold=lambda context: context.add_emit("k"), **common
    )


def gathering(stream: Any, common: dict[str, Any]) -> Any:
    def fold(context: Any) -> None:
        for time, segments in context.by_time():
            for segment in segments:
                rows = context.state.rows(segment["k"])
                context.state.put(rows, "value", context.state.gather(rows, "value") + np.uint64(1))
                context.output.forward(segment, time)

    return stream.stateful_unary(state=HashTable("u8", "u8"), fold=fold, **common | {"columns": {"k": "u8"}})


def delaying(stream: Any, common: dict[str, Any]) -> Any:
    def consume(context: Any) -> None:
        context.post_date({"k": context.column("k")}, context.times + np.uint64(1))

    return stream.stateful_unary_input(
        state=HashTable("u8", "u8"), consume=consume, fold=lambda context: context.add_emit("k"), pending={"k": "u8"},
        **common,
    )  # fmt: skip


def machine(stream: Any, common: dict[str, Any]) -> Any:
    def fold(groups: KeyGroups) -> Transition:
        total = groups.state["value"] + groups.counts.astype(np.uint64)
        keys = np.repeat(groups.keys, groups.counts)
        return Transition({"value": total}, total > 100, {"k": keys, "n": keys})

    return stream.stateful_state_machine(state=HashTable("u8", "u8"), fold=fold, **common)


def calls_of(operator: Callable[[Any, dict[str, Any]], Any], records: int, keys: int, bin_shift: int) -> int:
    """Return the calls of a run in which bins move every third round; its batches and steps are always the same."""

    def build(graph: Graph) -> Any:
        words, stream = graph.input("words", {"k": "u8"})
        control = graph.control(words)
        common = {"key": "k", "columns": {"k": "u8", "n": "u8"}, "control": control, "bin_shift": bin_shift}
        return words, control, operator(stream, common).probe()

    calls = 0

    def count(_: Any, event: str, __: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    random = np.random.default_rng(1)
    bins = 1 << bin_shift
    maps = [Instructions.of_map((np.arange(bins) + turn) % 2) for turn in range(2)]
    batches = [[random.integers(0, keys, records).astype(np.uint64) for _ in range(2)] for _ in range(ROUNDS)]
    with Simulation(build, slots=2, late=False, memory="256M", ring_cells=256) as simulation:
        handles = simulation.handles
        # What other tests have left behind would be collected, and its finalisers counted, whenever that falls due.
        gc.collect()
        gc.disable()
        sys.setprofile(count)
        try:
            for time, columns in enumerate(batches):
                for (words, _, _), column in zip(handles, columns, strict=True):
                    words.send({"k": column})
                if time % 3 == 0:
                    handles[0][1].send_instructions(maps[time // 3 % 2])
                for words, _, _ in handles:
                    words.advance_to(time + 1)
                for step in range(12):
                    simulation.step(step % 2)
        finally:
            sys.setprofile(None)
            gc.enable()
        assert simulation.counter("bins_out") > ROUNDS // 3 * bins // 2
        assert handles[0][2].frontier() == ROUNDS
    return calls


@pytest.mark.parametrize("operator", [counting, counting_in_arrays, gathering, delaying, machine])
def test_ten_times_the_records_keys_and_bins_make_no_more_python_calls(operator: Callable[..., Any]) -> None:
    calls_of(operator, records=20, keys=10, bin_shift=5)  # what is imported on its first use is not counted
    few = calls_of(operator, records=200, keys=1000, bin_shift=5)
    many = calls_of(operator, records=2000, keys=10_000, bin_shift=8)
    most = calls_of(operator, records=2000, keys=10_000, bin_shift=9)
    assert few > ROUNDS
    assert abs(many - few) <= few / 100, f"{few} calls, {many} with ten times as much"
    assert abs(most - few) <= few / 100, f"{few} calls, {most} with sixteen times the bins"
