"""What a look from outside says of lists and objects: keys, lengths and bytes; what is in them it leaves alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megaphone._core import ffi, lib
from megaphone.dataflow.graph import Graph
from megaphone.observe.inspect_look import sum_of
from megaphone.observe.inspect_model import model_of
from megaphone.observe.inspect_text import render
from megaphone.state.stores import Pickled, Rows
from megaphone.testing import Simulation
from tests.unit.observe.test_inspect_law import look_at

ARENA_WORD = 32 + 8 * 2
"""Where a bin names its arena: bin.h."""


def running(store: Rows | Pickled) -> Simulation:
    def build(graph: Graph) -> Any:
        words, stream = graph.input("words", {"k": "u8"})
        lists = stream.stateful_unary(
            key="k", state=store, fold=lambda _: None, columns={"k": "u8"}, bin_shift=1, name="joins",
            initial=[0, 0],
        )  # fmt: skip
        return words, lists, lists.probe()

    return Simulation(build, slots=2, memory="16M")


@pytest.fixture
def rows() -> Iterator[Simulation]:
    with running(Rows("u8", {"bidder": "u8", "price": "u4"})) as simulation:
        yield simulation


def test_keys_rows_and_bytes_are_told_at_every_stage_of_growth(rows: Simulation) -> None:
    state = rows.handles[0][1].state
    look = look_at(rows)
    kinds = look.stateful[0].kinds
    for key in range(1200):
        state.append(np.array([key] * (1 + key % 3), np.uint64), {"bidder": 1, "price": 2})
        if key % 7 == 6:
            state.remove(np.array([key - 3], np.uint64))
        ((_, bins, sums),) = look.bins(look.stateful[0])
        assert sum(int(sum_of(sums[i, 0], kinds[0])) for i in range(2)) == state.total()
        assert bins["keys"].sum() == state.live()
        size_bytes = sum(lib.mp_store_bytes(rows.workers[0].slot, state.c, bin_id) for bin_id in range(2))
        assert bins["bytes"].sum() == size_bytes
        assert not bins["torn"].any()


@pytest.mark.parametrize(
    ("store", "told", "counted"),
    [
        (Rows("u8", {"bidder": "u8", "price": "u4"}), "lists of uint64 -> bidder uint64, price uint32", "sum of rows"),
        (Pickled("u8"), "objects of uint64, pickled", "sum of pickled bytes"),
    ],
)
def test_people_are_told_what_it_is_and_how_much(store: Rows | Pickled, told: str, counted: str) -> None:
    with running(store) as simulation:
        state = simulation.handles[0][1].state
        keys = np.arange(10, dtype=np.uint64)
        if isinstance(store, Rows):
            state.append(keys, {"bidder": 1, "price": 2})
        else:
            state.put(keys, list(range(10)))
        model = model_of(look_at(simulation), None)
        text = render(model, width=160)
        assert told in text
        assert counted in text
        (operator,) = model["stateful"]
        (name,) = (column["name"] for column in operator["store"]["columns"])
        assert sum(entry["sums"][name] for entry in operator["bins"]) == state.total()


def test_whatever_a_directory_says_the_look_ends_and_touches_nothing_it_may_not(rows: Simulation) -> None:
    state, chance = rows.handles[0][1].state, random.Random(3)
    state.append(np.arange(500, dtype=np.uint64), {"bidder": 1, "price": 2})
    look = look_at(rows)
    blocks = Path(f"/proc/self/fd/{rows.memory.data_fd}").stat().st_blocks
    at = int(lib.mp_bins_at(rows.memory.control, 0)) + ARENA_WORD
    offset = int(np.frombuffer(ffi.buffer(rows.memory.control + at, 8), np.uint64)[0])
    directory = np.frombuffer(ffi.buffer(rows.memory.data + offset, 256), np.uint64)
    whole = directory.copy()
    interesting = [1, 63, 64, 2**31, 2**33 + 64, 2**63, 2**64 - 64, offset, (1 << 24) - 64, 1 << 23]
    owners = np.ones(2, np.uint8)
    op, slot = rows.handles[1][1].operator.op, rows.workers[1].slot
    unreadable = 0
    for _ in range(300):
        for _ in range(chance.choice([1, 5, 30])):
            directory[chance.randrange(len(directory))] = chance.choice([*interesting, chance.randrange(1 << 24)])
        ((_, bins, _),) = look.bins(look.stateful[0])
        unreadable += bool(bins["torn"].any())
        lib.mp_warm_bytes(slot, op, ffi.from_buffer("uint8_t[]", owners))
        position = ffi.new("mp_warming *")
        while lib.mp_warm(slot, op, ffi.from_buffer("uint8_t[]", owners), position, 1 << 20):
            pass
        directory[:] = whole
    assert unreadable > 100
    assert Path(f"/proc/self/fd/{rows.memory.data_fd}").stat().st_blocks == blocks
    assert lib.mp_rows_check(rows.workers[0].slot, state.c, 0) == 0
