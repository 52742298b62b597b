"""What a migration copies: nothing by hand-over, every byte twice by copy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from megaphone._core import ffi, lib
from megaphone.dataflow.graph import Graph
from megaphone.migration.control import Map, Move
from megaphone.state.stores import DenseArray, HashTable
from megaphone.testing import Simulation

BINS = 4
KEYS = np.arange(4000, dtype=np.uint64)
STATES = [(DenseArray("u8"), "dense"), (HashTable("u8", {"n": "u8"}), "mix")]


class Running:
    """Two workers that have counted KEYS once; a third of them has a record that comes back later."""

    def __init__(self, transfer: str, state: Any, hash_name: str, keys: Any = KEYS) -> None:
        def fold(context: Any) -> None:
            for time, segments in context.by_time():
                for segment in segments:
                    context.state.add_emit(segment["k"])
                    if time == 0:
                        context.post_date({"k": segment["k"][segment["k"] % 3 == 0]}, 100)

        def build(graph: Graph) -> Any:
            words, stream = graph.input("words", {"k": "u8"})
            control = graph.control(words)
            counts = stream.stateful_unary(
                key="k", state=state, hash=hash_name, fold=fold, columns={"k": "u8"}, pending={"k": "u8"},
                control=control, bin_shift=2, transfer=transfer,
            )  # fmt: skip
            return words, control, counts, counts.probe()

        self.simulation = Simulation(build, slots=2, seed=3)
        self.handles = self.simulation.handles
        self.handles[0][0].send({"k": keys})
        self.time = 0
        self.advance()

    def advance(self) -> None:
        """Complete one more time."""
        self.time += 1
        for words, *_ in self.handles:
            words.advance_to(self.time)
        self.simulation.run_until(lambda: all(probe.frontier() >= self.time for *_, probe in self.handles))

    def migrate(self, *instructions: Any) -> None:
        self.handles[0][1].send_instructions(instructions)
        self.advance()
        self.advance()

    def look(self, bin_id: int) -> dict[str, Any]:
        """Return what the directory says of a bin."""
        out = ffi.new("uint64_t[10]")
        worker = self.simulation.workers[0]
        lib.mp_bin_look(worker.slot, self.handles[0][2].operator.op, bin_id, out)
        names = ("owner", "resident", "generation", "time_last", "keys", "pending")
        return dict(zip(names, out[0:6], strict=True)) | {"blocks": list(out[6:10])}

    def counter(self, name: str) -> int:
        return self.simulation.counter(name)

    def finish(self) -> int:
        """Run to the end; returns the sum of all counts."""
        for words, *_ in self.handles:
            words.close()
        self.simulation.run()
        items = [values for _, _, counts, _ in self.handles for _, values in counts.state.items()]
        total = sum(int(next(iter(values.values())).sum()) for values in items)
        self.simulation.close()
        return total


@pytest.mark.parametrize(("state", "hash_name"), STATES, ids=["vec", "hashmap"])
def test_a_bin_that_is_handed_over_keeps_its_region_and_offset_and_nothing_is_copied(
    state: Any, hash_name: str
) -> None:
    running = Running("handover", state, hash_name)
    before = [running.look(bin_id) for bin_id in range(BINS)]
    assert [look["owner"] for look in before] == [0, 1, 0, 1]
    assert all(any(look["blocks"]) and look["pending"] for look in before)
    running.migrate(Map([1, 0, 0, 1]))
    after = [running.look(bin_id) for bin_id in range(BINS)]
    assert [look["owner"] for look in after] == [1, 0, 0, 1]
    assert [look["resident"] for look in after] == [1] * BINS
    assert [look["blocks"] for look in after] == [look["blocks"] for look in before]
    rises = [b["generation"] - a["generation"] for a, b in zip(before, after, strict=True)]
    assert [rise > 0 for rise in rises] == [True, True, False, False]
    assert running.counter("copied_migrate") == 0
    assert running.counter("bins_out") == running.counter("bins_in") == 2
    assert running.counter("keys_moved") == before[0]["keys"] + before[1]["keys"]
    assert running.counter("bytes_moved") > 0
    assert running.finish() == len(KEYS) + len(KEYS[::3])


@pytest.mark.parametrize(("state", "hash_name"), STATES, ids=["vec", "hashmap"])
def test_a_bin_that_is_copied_lies_in_other_blocks_and_counts_its_bytes_twice(state: Any, hash_name: str) -> None:
    running = Running("copy", state, hash_name)
    before = running.look(0)
    running.migrate(Move(0, 1))
    after = running.look(0)
    assert (after["owner"], after["resident"], after["keys"]) == (1, 1, before["keys"])
    assert after["pending"] == before["pending"] > 0
    assert after["generation"] > before["generation"]
    used = [(old, new) for old, new in zip(before["blocks"], after["blocks"], strict=True) if old or new]
    assert used
    assert all(old and new and old != new for old, new in used)
    assert running.counter("copied_migrate") == 2 * running.counter("bytes_moved") > 0
    assert running.finish() == len(KEYS) + len(KEYS[::3])


def test_a_bin_that_moves_says_until_when_it_was_applied() -> None:
    for transfer in ("handover", "copy"):
        running = Running(transfer, *STATES[0])
        assert running.look(0)["time_last"] == 0
        for _ in range(3):
            running.handles[0][0].send({"k": KEYS[:8]})
            running.advance()
        running.migrate(Move(0, 1))
        assert running.look(0)["time_last"] == 3
        running.finish()


@pytest.mark.parametrize("transfer", ["handover", "copy"])
def test_bins_of_many_slabs_arrive_whole(transfer: str) -> None:
    keys = np.arange(100_000, dtype=np.uint64)
    running = Running(transfer, *STATES[0], keys=keys)
    bytes_before = running.counter("bytes_moved")
    running.migrate(Map([1] * BINS))
    assert running.counter("bytes_moved") - bytes_before > 4 * (64 << 10), "less than a few slabs"
    running.migrate(Map([0] * BINS))
    assert [running.look(bin_id)["owner"] for bin_id in range(BINS)] == [0] * BINS
    assert running.finish() == len(keys) + len(keys[::3])


def test_a_move_to_where_the_bin_is_moves_nothing() -> None:
    running = Running("handover", *STATES[1])
    before = running.look(0)
    running.migrate(Move(0, 0), Move(1, 1))
    assert running.look(0) == before
    assert running.counter("bins_out") == 0
    assert running.finish() == len(KEYS) + len(KEYS[::3])
