"""Lists and objects as an operator's state: whatever moves where and how, each key has its rows in order.

Every step is followed by a recount: each block of the arenas is named exactly once at all times, on the way as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import megaphone
from megaphone._core import ffi, lib
from megaphone.dataflow.batch import BytesColumn
from megaphone.dataflow.graph import Graph
from megaphone.dataflow.hashing import bins_of, hash_keys
from megaphone.errors import GraphError, UsageError
from megaphone.migration.control import Map
from megaphone.state.stores import Pickled, Rows
from megaphone.testing import Simulation
from tests.native.recounting import RecountedSimulation
from tests.property.migrating import settle

SLOTS, BIN_SHIFT, ROUNDS = 3, 2, 24
BINS = 1 << BIN_SHIFT
KEYS = 40


def column_of(keys: Any, kind: str) -> Any:
    return BytesColumn.of([b"key %d" % key for key in keys]) if kind == "bytes" else np.array(keys, np.uint64)


def number_of(key: Any) -> int:
    return int(key.split()[1]) if isinstance(key, bytes) else int(key)


def append_and_count(context: Any) -> None:
    for time, segments in context.by_time():
        state = context.state
        for segment in segments:  # a batch may arrive in several
            state.append(segment["k"], {"id": segment["id"], "low": segment["id"] % 100})
        for segment in segments:
            context.output.send({"k": segment["id"], "n": state.counts(segment["k"])}, time=time)
        if time % 5 == 4:  # lists that have become long lose their beginning, and some go as a whole
            for segment in segments:
                state.pop_front(segment["k"], 1)


def count_in_objects(context: Any) -> None:
    for time, segments in context.by_time():
        for segment in segments:
            keys, idents = list(segment["k"]), segment["id"].tolist()
            column = segment["k"] if isinstance(segment["k"], BytesColumn) else np.array(keys, np.uint64)
            sent = []
            for index, ident in enumerate(idents):
                key = (
                    column[index : index + 1] if not isinstance(column, BytesColumn) else BytesColumn.of([keys[index]])
                )
                (seen,) = context.state.get(key)
                context.state.put(key, [(*(seen or ()), ident)])
                sent.append(len(seen or ()) + 1)
            context.output.send({"k": segment["id"], "n": sent}, time=time)


def build_of(kind: str, transfer: str, state: Any, fold: Callable[[Any], None]) -> Callable[[Graph], Any]:
    def build(graph: Graph) -> Any:
        words, stream = graph.input("words", {"k": kind, "id": "u8"})
        control = graph.control(words)
        lists = stream.stateful_unary(
            key="k", state=state, fold=fold, columns={"k": "u8", "n": "u8"}, control=control, bin_shift=BIN_SHIFT,
            transfer=transfer,
        )  # fmt: skip
        got: list[tuple[int, int]] = []
        shown = lists.inspect(lambda batch: got.extend(zip(batch["k"].tolist(), batch["n"].tolist(), strict=True)))
        return words, control, lists, shown.probe(), got

    return build


def play(simulation: Simulation, kind: str, per_round: int, seed: int) -> list[tuple[int, list[int], list[int]]]:
    """Send rounds of records from one slot each while all bins move about; returns what was sent."""
    random = np.random.default_rng(seed)
    handles, sent = simulation.handles, []
    for time in range(ROUNDS):
        keys = random.integers(0, KEYS, per_round).tolist()
        idents = list(range(time * per_round, (time + 1) * per_round))
        words = handles[time % SLOTS][0]
        words.send({"k": column_of(keys, kind), "id": idents})
        sent.append((time, keys, idents))
        handles[0][1].send_instructions([Map(random.integers(0, SLOTS, BINS))])
        for handle in handles:
            handle[0].advance_to(time + 1)
        if random.integers(0, 3) == 0:
            simulation.run_until(partial(handles[0][3].done, time))
    for handle in handles:
        handle[0].close()
    simulation.run()
    return sent


def bins_exact(simulation: Simulation) -> None:
    for worker, handle in zip(simulation.workers, simulation.handles, strict=True):
        state = handle[2].state
        for bin_id in range(BINS):
            if lib.mp_store_live_bin(worker.slot, state.c, bin_id):
                assert lib.mp_rows_check(worker.slot, state.c, bin_id) == 0


@pytest.mark.parametrize("transfer", ["handover", "copy"])
@pytest.mark.parametrize("kind", ["u8", "bytes"])
@pytest.mark.parametrize(("per_round", "seed"), [(12, 1), (30, 2), (900, 3)])
def test_lists_keep_their_order_whatever_moves_3w(transfer: str, kind: str, per_round: int, seed: int) -> None:
    build = build_of(kind, transfer, Rows(kind, {"id": "u8", "low": "u1"}), append_and_count)
    with RecountedSimulation(build, slots=SLOTS, seed=seed, memory="64M") as simulation:
        sent = play(simulation, kind, per_round, seed)
        expected: dict[int, list[int]] = defaultdict(list)
        counts: dict[int, int] = {}
        for time, keys, idents in sent:
            for key, ident in zip(keys, idents, strict=True):
                expected[key].append(ident)
            for key, ident in zip(keys, idents, strict=True):
                counts[ident] = len(expected[key])
            if time % 5 == 4:
                for key in keys:
                    expected[key] = expected[key][1:]
        assert dict(pair for handle in simulation.handles for pair in handle[4]) == counts
        got: dict[int, list[int]] = {}
        for handle in simulation.handles:
            for keys, offsets, columns in handle[2].state.lists_items():
                assert (columns["low"] == columns["id"] % 100).all()
                for key, begin, end in zip(list(keys), offsets, offsets[1:], strict=False):
                    got[number_of(key)] = columns["id"][int(begin) : int(end)].tolist()
        assert got == {key: idents for key, idents in expected.items() if idents}
        bins_exact(simulation)
        assert simulation.counter("bins_out") > ROUNDS
        assert (simulation.counter("copied_migrate") > 0) == (transfer == "copy")


@pytest.mark.parametrize("transfer", ["handover", "copy"])
@pytest.mark.parametrize("kind", ["u8", "bytes"])
def test_objects_move_with_their_bins_3w(transfer: str, kind: str) -> None:
    with RecountedSimulation(
        build_of(kind, transfer, Pickled(kind), count_in_objects), slots=SLOTS, seed=4
    ) as simulation:
        sent = play(simulation, kind, 10, 4)
        expected: dict[int, tuple[int, ...]] = defaultdict(tuple)
        for _, keys, idents in sent:
            for key, ident in zip(keys, idents, strict=True):
                expected[key] = (*expected[key], ident)
        got = {
            number_of(key): value
            for handle in simulation.handles
            for keys, objects in handle[2].state.objects()
            for key, value in zip(list(keys), objects, strict=True)
        }
        assert got == expected
        bins_exact(simulation)


@pytest.mark.parametrize("transfer", ["handover", "copy"])
def test_a_bin_of_many_pages_arrives_whole(transfer: str) -> None:
    """One bin with an arena far larger than a message, and lists with free cells between them."""
    build = build_of("u8", transfer, Rows("u8", {"id": "u8", "low": "u1"}), append_and_count)
    with RecountedSimulation(build, slots=SLOTS, seed=7, memory="64M", late=False) as simulation:
        handles = simulation.handles
        state = handles[0][2].state
        keys = np.arange(2000, dtype=np.uint64)
        owned = keys[[bool(b % SLOTS == 0) for b in bins_of_keys(keys)]]
        for _ in range(60):
            state.append(owned, {"id": owned, "low": 1})
        state.remove(owned[::3])
        state.pop_front(owned, 3)
        left = np.delete(owned, slice(0, None, 3))
        slot, checksum = simulation.workers[0].slot, state.checksum()
        size_bytes = sum(lib.mp_store_bytes(slot, state.c, bin_id) for bin_id in range(BINS))
        assert size_bytes > 700_000  # a message has some 60,000
        handles[0][1].send_instructions([Map([1] * BINS)])
        for handle in handles:
            handle[0].advance_to(5)
        simulation.run_until(lambda: all(handle[3].frontier() >= 5 for handle in handles))
        there = handles[1][2].state
        assert (state.live(), there.checksum()) == (0, checksum)
        assert (there.counts(left) == 57).all()
        assert not there.counts(owned[::3]).any()
        bins_exact(simulation)
        copied = simulation.counter("copied_migrate")
        assert copied == 0 if transfer == "handover" else copied > 2 * size_bytes - 1000
        for handle in handles:
            handle[0].close()
        simulation.run()
        for bin_id in range(BINS):
            lib.mp_store_clear(simulation.workers[1].slot, there.c, bin_id)
        settle(simulation)  # blocks go home to who carved them
        assert simulation.counter("block_live_bytes") < SLOTS * (64 << 10)


def bins_of_keys(keys: Any) -> Any:
    return bins_of(hash_keys(keys, "mix", BIN_SHIFT), BIN_SHIFT).tolist()


def test_the_pages_of_what_will_arrive_are_warmed() -> None:
    build = build_of("u8", "handover", Rows("u8", {"id": "u8", "low": "u1"}), append_and_count)
    with Simulation(build, slots=2, seed=7, memory="64M") as simulation:
        state = simulation.handles[0][2].state
        keys = np.arange(2000, dtype=np.uint64)
        owned = keys[[b % 2 == 0 for b in bins_of_keys(keys)]]
        for _ in range(10):
            state.append(owned, {"id": owned, "low": 1})
        size_bytes = sum(lib.mp_store_bytes(simulation.workers[0].slot, state.c, b) for b in range(BINS))
        op, slot = simulation.handles[1][2].operator.op, simulation.workers[1].slot
        position, mapped = ffi.new("mp_warming *"), 0
        while step := int(lib.mp_warm(slot, op, bytes([1] * BINS), position, 1 << 16)):
            mapped += step
        assert mapped == lib.mp_warm_bytes(slot, op, bytes([1] * BINS)) == size_bytes
        for handle in simulation.handles:
            handle[0].close()
        simulation.run()


def unary(fold: Callable[[Any], None], state: Any) -> Callable[[Graph], Any]:
    def build(graph: Graph) -> Any:
        words, stream = graph.input("words", {"k": "u8"})
        counts = stream.stateful_unary(key="k", state=state, fold=fold, columns={"k": "u8", "n": "u8"}, name="joins")
        return words, counts.probe()

    return build


@pytest.mark.parametrize(
    ("state", "fold", "told"),
    [
        (
            Pickled("u8"),
            lambda c: c.state.put(c.column("k"), [lambda: 0]),
            "joins.*put of key 7: an object of type function",
        ),
        (
            Pickled("u8"),
            lambda c: c.state.append(c.column("k"), {}),
            "joins.*append is a call for Rows: the state is Pickled",
        ),
        (Rows("u8", "u8"), lambda c: c.state.get(c.column("k")), "joins.*get is a call for Pickled: the state is Rows"),
        (Rows("u8", "u8"), lambda c: c.state.append(c.column("k"), {"v": 1}), "joins.*there is no column 'v'"),
        (Rows("u8", "u8"), lambda c: c.add_emit("k"), "joins.*the state is Rows: declare a HashTable"),
    ],
)
def test_a_mistake_in_a_fold_names_the_operator_and_the_cure(state: Any, fold: Any, told: str) -> None:
    with Simulation(unary(fold, state), slots=1) as simulation:
        simulation.handles[0][0].send({"k": [7]})
        simulation.handles[0][0].close()
        with pytest.raises(UsageError, match=f"(?s){told}"):
            simulation.run()


def test_a_state_machine_has_a_row_per_key() -> None:
    def build(graph: Graph) -> Any:
        _, stream = graph.input("words", {"k": "u8"})
        fold: Any = append_and_count
        return stream.stateful_state_machine(key="k", state=Rows("u8", "u8"), fold=fold, columns={"k": "u8"})

    with pytest.raises(GraphError, match="state is Rows: a state machine has a row per key"):
        Simulation(build, slots=1)


def test_the_public_face_has_both() -> None:
    assert megaphone.Rows is Rows
    assert megaphone.Pickled is Pickled
