"""The greatest value of a column over all bins here, against numpy, while tables grow and shrink."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from megaphone.dataflow.graph import Graph
from megaphone.dataflow.hashing import bins_of, hash_keys
from megaphone.errors import UsageError
from megaphone.state.greatest import NONE, greatest
from megaphone.state.stores import DenseArray, HashTable
from megaphone.testing import Simulation

BIN_SHIFT = 3


def state_of(store: Any, key: str = "u8") -> Simulation:
    """Return a run with one operator, whose bins are all here."""

    def build(graph: Graph) -> Any:
        _, stream = graph.input("keys", {"k": key})
        counted = stream.stateful_unary(
            key="k", state=store, fold=lambda _: None, columns={"k": key}, bin_shift=BIN_SHIFT,
            hash="dense" if isinstance(store, DenseArray) else "mix",
        )  # fmt: skip
        counted.probe()
        return counted

    return Simulation(build, slots=1, memory="32M")


def expected(counts: dict[int, int]) -> tuple[int, list[int], list[int]]:
    of_bin = [NONE] * (1 << BIN_SHIFT)
    if counts:
        keys = np.array(list(counts), np.uint64)
        for value, bin_id in zip(counts.values(), bins_of(hash_keys(keys), BIN_SHIFT).tolist(), strict=True):
            of_bin[bin_id] = max(of_bin[bin_id], value)
    best = max(counts.values(), default=NONE)
    return best, sorted(key for key, value in counts.items() if value == best), of_bin


@pytest.mark.parametrize("key", ["u8", "u4"])
@pytest.mark.parametrize("seed", range(5))
def test_greatest_is_that_of_all_rows_while_tables_grow_and_shrink(seed: int, key: str) -> None:
    draw = np.random.default_rng(seed)
    counts: dict[int, int] = {}
    with state_of(HashTable(key, {"n": "i8"}), key) as simulation:
        state = simulation.handles[0].state
        for _ in range(40):
            keys = draw.integers(0, draw.choice([5, 500, 5000]), draw.integers(1, 900)).astype(key)
            change = draw.integers(-2, 4, len(keys))
            left = state.add_emit(keys, change)
            for one, by in zip(keys.tolist(), change.tolist(), strict=True):
                counts[one] = counts.get(one, 0) + by
            gone = [one for one in np.unique(keys[left <= 0]).tolist() if counts[one] <= 0]
            state.remove(state.rows(np.array(gone, key), insert=False))
            for one in gone:
                del counts[one]
            found = greatest(state, "n")
            assert (found.value, sorted(found.keys.tolist()), found.of_bin.tolist()) == expected(counts)
            assert found.keys.dtype == np.dtype(key)


def test_greatest_of_nothing_has_no_keys() -> None:
    with state_of(HashTable("u8", {"n": "i8"})) as simulation:
        found = greatest(simulation.handles[0].state, "n")
        assert found.value == NONE
        assert not len(found.keys)
        assert set(found.of_bin.tolist()) == {NONE}


def test_greatest_of_what_it_cannot_compare_is_refused() -> None:
    with state_of(HashTable("u8", {"n": "u8"})) as simulation, pytest.raises(UsageError, match="use 'i8'"):
        greatest(simulation.handles[0].state, "n")
    with state_of(HashTable("S4", {"n": "i8"}), "S4") as simulation, pytest.raises(UsageError, match="integers"):
        greatest(simulation.handles[0].state, "n")


def test_greatest_sees_the_key_that_marks_empty_rows() -> None:
    marked = 2**64 - 1
    with state_of(HashTable("u8", {"n": "i8"})) as simulation:
        state = simulation.handles[0].state
        state.add_emit(np.arange(100, dtype=np.uint64), np.arange(100))
        state.add_emit(np.array([marked], np.uint64), 99)
        assert (greatest(state, "n").value, sorted(greatest(state, "n").keys.tolist())) == (99, [99, marked])
        state.add_emit(np.array([marked], np.uint64), 1)
        assert greatest(state, "n").keys.tolist() == [marked]
        state.remove(state.rows(np.array([marked], np.uint64)))
        assert greatest(state, "n").keys.tolist() == [99]


def test_greatest_is_looked_for_in_both_tables_of_a_bin_that_grows() -> None:
    """Ten keys are raised and then lowered, so that what a row held before it was moved would be the greatest."""
    draw = np.random.default_rng(1)
    counts = np.zeros(0, np.int64)
    with state_of(HashTable("u8", {"n": "i8"})) as simulation:
        state = simulation.handles[0].state
        raised = np.zeros(0, np.uint64)
        for _ in range(250):
            keys = np.arange(len(counts), len(counts) + 40, dtype=np.uint64)
            counts = np.append(counts, draw.integers(0, 50, 40))
            state.add_emit(keys, counts[keys])
            counts[raised] -= 1000
            state.add_emit(raised, np.full(len(raised), -1000))
            raised = draw.choice(np.arange(len(counts), dtype=np.uint64), 10, replace=False)
            counts[raised] += 1000
            state.add_emit(raised, np.full(len(raised), 1000))
            found = greatest(state, "n")
            assert found.value == counts.max()
            assert sorted(found.keys.tolist()) == np.flatnonzero(counts == counts.max()).tolist()
        assert state.statistics().rows_moved > 10_000


def test_greatest_of_an_array_is_that_of_its_rows_and_zeros_are_none() -> None:
    with state_of(DenseArray("i8")) as simulation:
        state = simulation.handles[0].state
        state.add_emit(np.array([3, 77, 500], np.uint64), np.array([-5, 4, 4]))
        found = greatest(state, next(iter(state.store.columns)))
        assert (found.value, sorted(found.keys.tolist())) == (4, [77, 500])
        assert found.of_bin.tolist() == [-5 if b == 3 else 4 if b in (77 % 8, 500 % 8) else NONE for b in range(8)]
