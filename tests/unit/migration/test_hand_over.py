"""A bin that changes owner: who may write to it, and until when its times are held."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from megaphone._core import ffi, lib
from megaphone.dataflow.graph import Graph
from megaphone.dataflow.operators.unary_frontier import FrontierInput, FrontierOutput
from megaphone.errors import InternalError, SharedMemoryError
from megaphone.migration.control import Instructions, Map, Move
from megaphone.migration.operators.fold_context import FoldContext
from megaphone.state.stores import HashTable
from megaphone.testing import Simulation


def build_delaying(transfer: str, delay: int) -> Any:
    """Return build of a count whose records come back ``delay`` later, and an operator that watches its frontier."""

    def build(graph: Graph) -> Any:
        words, stream = graph.input("words", {"k": "u8", "left": "u8"})
        control = graph.control(words)
        frontiers = [0]

        def fold(context: FoldContext) -> None:
            for time, segments in context.by_time():
                for segment in segments:
                    context.output.send({"k": segment["k"]}, time=time)
                    context.state.add_emit(segment["k"])
                    more = segment["left"] > 0
                    back = {"k": segment["k"][more], "left": segment["left"][more] - np.uint64(1)}
                    context.post_date(back, time + delay)

        def watch(source: FrontierInput, output: FrontierOutput, _: Any) -> None:
            assert source.frontier >= frontiers[-1], "a frontier fell"
            for batch in source:
                assert batch.time >= frontiers[-1], f"a record of {batch.time} came behind the frontier {frontiers[-1]}"
                output.forward(batch)
            frontiers.append(source.frontier)

        counts = stream.stateful_unary(
            key="k", state=HashTable("u8", {"n": "u8"}), fold=fold, columns={"k": "u8"}, control=control, bin_shift=2,
            pending={"k": "u8", "left": "u8"}, transfer=transfer,
        )  # fmt: skip
        return words, control, counts, counts.exchange("k").unary_frontier(watch).probe()

    return build


@pytest.mark.parametrize("transfer", ["handover", "copy"])
@pytest.mark.parametrize("seed", range(8))
def test_no_record_that_comes_back_comes_behind_the_frontier(seed: int, transfer: str) -> None:
    with Simulation(build_delaying(transfer, 3), slots=3, seed=seed) as simulation:
        for time in range(6):
            for slot, (words, *_) in enumerate(simulation.handles):
                words.send({"k": np.arange(8) + slot, "left": np.full(8, 4)})
            simulation.handles[0][1].send_instructions([Map([(time + b) % 3 for b in range(4)])])
            for words, *_ in simulation.handles:
                words.advance_to(time + 1)
            simulation.step()
        for words, *_ in simulation.handles:
            words.close()
        simulation.run()
        shown = [int(values["n"].sum()) for _, _, counts, _ in simulation.handles for _, values in counts.state.items()]
        assert sum(shown) == 6 * 3 * 8 * 5


@pytest.mark.parametrize("transfer", ["handover", "copy"])
@pytest.mark.parametrize("what", ["resident already", "another owner's"])
def test_a_bin_that_arrives_where_it_cannot_be_ends_the_run(what: str, transfer: str) -> None:
    """Two slots would write to it: that is a broken rule of the engine, seen before the first record is applied."""
    with Simulation(build_delaying(transfer, 3), slots=3, seed=0, late=False) as simulation:
        words, control, counts, _ = simulation.handles[0]
        words.send({"k": np.arange(64), "left": np.zeros(64, np.uint64)})
        control.send_instructions([Move(0, 1)], at=1)
        for handle in simulation.handles:
            handle[0].advance_to(5)
        look = ffi.new("uint64_t[10]")
        slot, op = simulation.workers[0].slot, counts.operator.op
        for _ in range(100):
            simulation.step(0)
            lib.mp_bin_look(slot, op, 0, look)
            if list(look[0:2]) == [1, 0]:
                break
            simulation.step(1)
            simulation.step(2)
        assert list(look[0:2]) == [1, 0], "the bin never was on its way"
        thief = simulation.workers[1 if what == "resident already" else 2]
        lib.mp_store_adopt(thief.slot, ffi.new("mp_store *", {"bin_shift": 2, "keyed": op.keyed}), 0)
        with pytest.raises(InternalError, match="-71 in operator"):
            simulation.step(1)


def test_instructions_of_many_messages_are_sent_whole_or_not_at_all() -> None:
    """What has been sent cannot be taken back: a part of a configuration would be another one."""
    bin_shift, slab_bytes = 16, 64 << 10

    def build(graph: Graph) -> Any:
        words, stream = graph.input("words", {"k": "u8"})
        control = graph.control(words)
        counts = stream.stateful_unary(
            key="k", state=HashTable("u8", {"n": "u8"}), fold=lambda _: None, columns={"k": "u8"}, control=control,
            bin_shift=bin_shift,
        )  # fmt: skip
        return words, control, counts, counts.probe()

    def owner(simulation: Simulation, slot: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        out = np.empty(1 << bin_shift, np.uint8)
        lib.mp_router_owners(
            simulation.workers[slot].slot, simulation.handles[slot][2].operator.op, ffi.from_buffer("uint8_t[]", out)
        )
        return out

    with Simulation(build, slots=2, memory="8M") as simulation:
        words, control, counts, _ = simulation.handles[0]
        before = owner(simulation, 0)
        instructions = Instructions.of_moves(np.arange(1 << bin_shift, dtype=np.uint32), (1 - before).astype(np.uint32))
        assert len(instructions.words) * 4 > 4 * slab_bytes
        loans: list[Any] = []

        def take_all() -> None:
            while True:
                loans.append(words.loan(slab_bytes // 8))

        with pytest.raises(SharedMemoryError):
            take_all()
        del loans[-2:]  # room for some of the messages
        with pytest.raises(SharedMemoryError):
            control.send_instructions(instructions)
        simulation.workers[0].commit()
        for _ in range(20):
            simulation.step()
        assert [int(lib.mp_router_updates(w.slot, counts.operator.op)) for w in simulation.workers] == [0, 0]
        loans.clear()
        control.send_instructions(instructions)
        for words, *_ in simulation.handles:
            words.close()
        simulation.run()
        for slot in range(2):
            assert np.array_equal(owner(simulation, slot), 1 - before)
