"""A bin's heap of post-dated records against a sorted list: order, growth, hand-over, bytes columns, full outputs."""

from __future__ import annotations

import errno
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from megaphone._core import ffi, lib
from megaphone.dataflow.batch import BytesColumn
from megaphone.dataflow.schema import Schema
from megaphone.state.stores import DenseArray
from tests.unit.state.memory import SlotMemory

BIN_SHIFT = 2
NEVER = 2**64 - 1
SCHEMA = Schema({"key": "u4", "note": "bytes", "flag": "u1", "other": "bytes", "value": "f8"})
TIMES = st.integers(0, 30) | st.just(NEVER - 1)
NOTES = st.binary(max_size=3) | st.integers(0, 3000).map(lambda n: b"n" * n)
RECORD = st.tuples(TIMES, st.integers(0, 3), st.integers(0, 2**32 - 1), NOTES, NOTES)


class Pending:
    """The pending calls of one slot over numpy columns."""

    def __init__(self, memory: SlotMemory, slot: int, schema: Schema = SCHEMA) -> None:
        self.slot = memory.slots[slot]
        self.schema = schema
        self.why = ffi.new("mp_outcome *")

    def push(self, records: list[tuple[int, int, int, bytes, bytes]]) -> tuple[int, list[int]]:
        """Push (time, bin, key, note, other); returns records done and bins whose least time fell."""
        times = np.array([r[0] for r in records], dtype=np.uint64)
        hashes = np.array([r[1] << (64 - BIN_SHIFT) | r[2] for r in records], dtype=np.uint64)
        keys = np.array([r[2] for r in records], dtype=np.uint32)
        notes, others = BytesColumn.of([r[3] for r in records]), BytesColumn.of([r[4] for r in records])
        flags, values = (keys % 7).astype(np.uint8), keys / 2
        kept = [keys, notes.offsets, flags, others.offsets, values, notes.data, others.data]
        pointers = [ffi.from_buffer(array) for array in kept]
        changed = np.zeros(len(records), dtype=np.uint32)
        changed_count = ffi.new("uint64_t *")
        done = lib.mp_pending_push_many(
            self.slot, 0, BIN_SHIFT, self.schema.c,
            ffi.new("void *[]", pointers[:5]), ffi.new("void *[]", pointers[5:]),
            ffi.from_buffer("uint64_t[]", times), ffi.from_buffer("uint64_t[]", hashes), len(records),
            ffi.from_buffer("uint32_t[]", changed), changed_count, self.why,
        )  # fmt: skip
        return int(done), changed[: changed_count[0]].tolist()

    def pop(self, bin_id: int, limit: int, room: int, bytes_room: int) -> list[tuple[int, int, bytes, bytes]]:
        """Pop (time, key, note, other), having checked the columns that follow from the key."""
        columns: list[Any] = [
            np.zeros(room, np.uint32), np.zeros(room + 1, np.uint32), np.zeros(room, np.uint8),
            np.zeros(room + 1, np.uint32), np.zeros(room, np.float64),
        ]  # fmt: skip
        data = [np.zeros(bytes_room, np.uint8), np.zeros(bytes_room, np.uint8)]
        times, hashes = np.zeros(room, np.uint64), np.zeros(room, np.uint64)
        done = int(
            lib.mp_pending_pop(
                self.slot, 0, bin_id, self.schema.c, limit, 0, room,
                ffi.new("void *[]", [ffi.from_buffer(c) for c in columns]),
                ffi.new("void *[]", [ffi.from_buffer(d) for d in data]), ffi.new("uint64_t[]", [bytes_room] * 2),
                ffi.from_buffer("uint64_t[]", times), ffi.from_buffer("uint64_t[]", hashes), self.why,
            )
        )  # fmt: skip
        keys = columns[0][:done]
        assert (columns[2][:done] == keys % 7).all()
        assert (columns[4][:done] == keys / 2).all()
        assert (hashes[:done] == (np.uint64(bin_id) << np.uint64(64 - BIN_SHIFT)) + keys).all()
        notes = BytesColumn(columns[1][: done + 1], data[0]).tolist()
        others = BytesColumn(columns[3][: done + 1], data[1]).tolist()
        return list(zip(times[:done].tolist(), keys.tolist(), notes, others, strict=True))

    def due(self, bin_id: int, limit: int) -> tuple[int, int, int]:
        """Count of records due, and the bytes of their two bytes columns."""
        var_bytes = ffi.new("uint64_t[3]")
        count = int(lib.mp_pending_due(self.slot, 0, bin_id, self.schema.c, limit, var_bytes))
        return count, var_bytes[0], var_bytes[1]


class PendingMachine(RuleBasedStateMachine):
    """The model keeps, for each bin, its records in the order in which they were pushed."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = SlotMemory(slots=2, bin_shift=BIN_SHIFT)
        self.accesses = self.memory.access(DenseArray("u8"), "dense")
        self.pending = [Pending(self.memory, slot) for slot in (0, 1)]
        self.owner = [0] * (1 << BIN_SHIFT)
        self.model: list[list[tuple[int, int, bytes, bytes]]] = [[] for _ in self.owner]

    def least(self, bin_id: int) -> int:
        return min((record[0] for record in self.model[bin_id]), default=NEVER)

    @rule(records=st.lists(RECORD, min_size=1, max_size=30))
    def push(self, records: list[tuple[int, int, int, bytes, bytes]]) -> None:
        for slot in (0, 1):
            mine = [record for record in records if self.owner[record[1]] == slot]
            if not mine:
                continue
            falls = []
            for time, bin_id, *rest in mine:
                if time < self.least(bin_id):
                    falls.append(bin_id)
                self.model[bin_id].append((time, *rest))  # type: ignore[arg-type]
            assert self.pending[slot].push(mine) == (len(mine), falls)

    @rule(bin_id=st.integers(0, 3), limit=TIMES, room=st.integers(0, 40), bytes_room=st.integers(0, 9000))
    def pop(self, bin_id: int, limit: int, room: int, bytes_room: int) -> None:
        ordered = sorted(self.model[bin_id], key=lambda record: record[0])  # stable: order of arrival within a time
        due = [record for record in ordered if record[0] < limit]
        pending = self.pending[self.owner[bin_id]]
        notes, others = [len(record[2]) for record in due], [len(record[3]) for record in due]
        assert pending.due(bin_id, limit) == (len(due), sum(notes), sum(others))
        got = pending.pop(bin_id, limit, room, bytes_room)
        assert got == due[: len(got)]
        if len(got) < min(len(due), room):
            assert pending.why.error == -errno.ENOBUFS
            needed = [sum(lengths[: len(got) + 1]) for lengths in (notes, others)]
            assert pending.why.bytes in needed
            assert pending.why.bytes > bytes_room
        for record in got:
            self.model[bin_id].remove(record)

    @rule(bin_id=st.integers(0, 3))
    def hand_over(self, bin_id: int) -> None:
        self.owner[bin_id] ^= 1
        self.memory.give(self.accesses, bin_id, self.owner[bin_id])

    @invariant()
    def header_tells_count_and_least_time(self) -> None:
        for bin_id, records in enumerate(self.model):
            slot = self.memory.slots[self.owner[bin_id]]
            assert lib.mp_pending_count(slot, 0, bin_id) == len(records)
            assert lib.mp_pending_least(slot, 0, bin_id) == self.least(bin_id)

    def teardown(self) -> None:
        for bin_id, records in enumerate(self.model):
            bytes_room = sum(len(record[2]) + len(record[3]) for record in records)
            got = self.pending[self.owner[bin_id]].pop(bin_id, NEVER, len(records), bytes_room)
            assert got == sorted(records, key=lambda record: record[0])
        self.memory.close()


TestPending = PendingMachine.TestCase


def test_a_heap_that_becomes_empty_gives_a_large_block_back() -> None:
    memory = SlotMemory(slots=1)
    memory.access(DenseArray("u8"), "dense")
    pending = Pending(memory, 0)
    pending.push([(time, 1, time, b"note" * 10, b"") for time in range(5000)])
    assert memory.counter("block_live_bytes") > 5000 * 64
    assert len(pending.pop(1, NEVER, 5000, 5000 * 40)) == 5000
    assert memory.counter("block_live_bytes") == 0
    memory.close()


def test_bytes_that_were_popped_are_squeezed_out() -> None:
    memory = SlotMemory(slots=1)
    memory.access(DenseArray("u8"), "dense")
    pending = Pending(memory, 0)
    pending.push([(NEVER - 1, 1, 0, b"stays", b"")])
    for time in range(2000):
        pending.push([(time, 1, time, b"x" * 100, b"")])
        assert pending.pop(1, time + 1, 1, 100) == [(time, time, b"x" * 100, b"")]
    assert memory.counter("block_live_bytes") < 8192
    assert pending.pop(1, NEVER, 1, 100) == [(NEVER - 1, 0, b"stays", b"")]
    memory.close()


def test_what_goes_in_and_comes_out_is_counted_as_pend() -> None:
    memory = SlotMemory(slots=1)
    memory.access(DenseArray("u8"), "dense")
    pending = Pending(memory, 0)
    pending.push([(1, 0, 1, b"", b"")])
    pushed = memory.counter("copied_pend")
    assert pushed == 24 + 4 + 8 + 1 + 3 + 8 + 8  # time, sequence, hash; columns at natural alignment
    pending.pop(0, 2, 1, 0)
    assert memory.counter("copied_pend") - pushed == 4 + 4 + 1 + 4 + 8 + 8 + 8  # columns, offsets, time and hash
    memory.close()


@pytest.mark.parametrize("bin_id", [0, 3])
def test_a_bin_that_is_not_resident_is_not_touched(bin_id: int) -> None:
    memory = SlotMemory(slots=2)
    accesses = memory.access(DenseArray("u8"), "dense")
    memory.give(accesses, bin_id, 1)
    pending = Pending(memory, 0)
    before = [(5, bin_index, 9, b"", b"") for bin_index in (1, bin_id, 2)]
    assert pending.push(before)[0] == 1
    assert (pending.why.error, pending.why.bin_id) == (-errno.EPERM, bin_id)
    assert pending.pop(bin_id, NEVER, 1, 0) == []
    assert pending.why.error == -errno.EPERM
    memory.close()
