"""The heap of post-dated records: what its C may not do, and that its growth is told, as that of lists is."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from megaphone._core import ffi, lib
from megaphone.shm.counters import COUNTER_INDEX
from megaphone.state.stores import HashTable, Rows
from tests.native.building import CFLAGS, ROOT, compiler, run_checked
from tests.unit.state.memory import SlotMemory


def test_a_row_of_the_heap_is_never_moved_as_another_type_than_its_fields() -> None:
    """Rows hold refs of uint32_t beside their words: what is punned, a compiler may move past what reads a ref."""
    if shutil.which(compiler()) is None:
        pytest.skip("no C compiler: the models are compiled from the sources")
    source = ROOT / "megaphone" / "state" / "pending.c"
    run_checked(compiler(), *CFLAGS, "-Wstrict-aliasing=1", "-fsyntax-only", f"-I{ROOT / 'megaphone'}", source)


def pause_max_ns(memory: SlotMemory, slot: int) -> int:
    return int(lib.mp_counter_read(memory._control.pointer, slot, COUNTER_INDEX["grow_pause_max_ns"]))


def committed_before(memory: SlotMemory) -> None:
    """Let other slots have had all memory, so that none has to come from the system: that is a pause as well."""
    with memory.without(0):
        pass


def test_the_longest_pause_counts_the_growth_of_the_heap(memory: SlotMemory) -> None:
    access = memory.access(HashTable("u8", {"n": "u8"}), "mix")
    memory.give(access, 0, 1)
    committed_before(memory)
    assert pause_max_ns(memory, 1) == 0
    schema, why = ffi.new("mp_schema *"), ffi.new("mp_outcome *")
    schema.columns, schema.item_bytes[0] = 1, 8
    numbers = np.arange(100, dtype=np.uint64)  # hashes of bin 0
    column = ffi.from_buffer("uint64_t[]", numbers)
    done = lib.mp_pending_push_many(
        memory.slots[1], 0, memory.bin_shift, schema, ffi.new("void *[]", [column]), ffi.NULL, column, column, 100,
        ffi.NULL, ffi.NULL, why,
    )  # fmt: skip
    assert done == 100
    assert pause_max_ns(memory, 1) > 0


def push_one_for_each_bin(memory: SlotMemory, columns: int, length: int) -> None:
    """Push a record to each bin: an integer, and where there are two columns `length` bytes as well."""
    bins = 1 << memory.bin_shift
    schema, why = ffi.new("mp_schema *"), ffi.new("mp_outcome *")
    schema.columns, schema.item_bytes[0] = columns, 8
    schema.var_columns = schema.is_var[1] = columns - 1
    numbers, hashes = np.arange(bins, dtype=np.uint64), np.arange(bins, dtype=np.uint64) << (64 - memory.bin_shift)
    data, ends = np.zeros(bins * length, np.uint8), np.arange(bins + 1, dtype=np.uint32) * length
    held = [ffi.from_buffer("uint64_t[]", numbers), ffi.from_buffer("uint32_t[]", ends)][:columns]
    done = lib.mp_pending_push_many(
        memory.slots[0], 0, memory.bin_shift, schema, ffi.new("void *[]", held),
        ffi.new("void *[]", [ffi.from_buffer("uint8_t[]", data)]), held[0], ffi.from_buffer("uint64_t[]", hashes), bins,
        ffi.NULL, ffi.NULL, why,
    )  # fmt: skip
    assert (done, why.error) == (bins, 0)


def size_after(number: int, row_bytes: int, count: int, size_bytes: int, rows: int, room: int) -> tuple[int, int]:
    """Return rows and room that a heap of `rows` and `room` grows into."""
    grown = ffi.new("uint64_t[2]", [rows, room])
    lib.mp_pending_size(number, row_bytes, count, size_bytes, grown, grown + 1)
    return grown[0], grown[1]


@pytest.mark.parametrize(("row_bytes", "length"), [(32, 0), (40, 8), (40, 32), (40, 200)])
def test_each_bins_heap_takes_nearly_all_that_fits_a_block(row_bytes: int, length: int) -> None:
    """Where twice as much is too large for a block, there is less of it, and not another limit for each bin."""
    for number in range(256):
        rows = room = grown = 0
        while True:
            count = rows if length == 0 else min(rows, room // length)
            rows, room = size_after(number, row_bytes, count, length * (count + 1), rows, room)
            if 32 + rows * row_bytes + room > 2**31:
                break
            assert rows > count
            assert room >= length * (count + 1)
            grown += 1
        assert count * (row_bytes + length) > 0.9 * 2**31
        assert grown < 80


def test_a_heap_that_is_crowded_by_what_was_popped_is_squeezed_and_no_larger() -> None:
    assert size_after(7, 40, 100, 1000, 160, 2000) == (160, 2000)
    rows, room = size_after(7, 40, 100, 1001, 160, 2000)
    assert rows == 160
    assert 2002 <= room <= 4004


def test_a_heap_of_nothing_but_empty_strings_needs_no_room_for_them() -> None:
    assert size_after(0, 40, 0, 0, 0, 0) == (4, 0)
    memory = SlotMemory(slots=1, bin_shift=1)
    try:
        memory.access(HashTable("u8", {"n": "u8"}), "mix")
        for length in (0, 0, 0, 0, 0, 24):
            push_one_for_each_bin(memory, 2, length)
        assert lib.mp_pending_count(memory.slots[0], 0, 1) == 6
    finally:
        memory.close()


@pytest.mark.parametrize(("columns", "length"), [(1, 0), (2, 16), (2, 200)])
def test_heaps_that_fill_evenly_do_not_grow_at_the_same_time(columns: int, length: int) -> None:
    """If they did, all that waits for one moment would be copied at once, and records would wait for that."""
    memory = SlotMemory(slots=1, bin_shift=8, memory_mib=256)
    try:
        memory.access(HashTable("u8", {"n": "u8"}), "mix")
        grown = []
        for pushed in range(400):
            before = memory.counter("block_allocs")
            push_one_for_each_bin(memory, columns, length)
            if pushed >= 100:  # two doublings: of that many records a bin, one is a hundredth
                grown.append(memory.counter("block_allocs") - before)
        assert 256 < sum(grown) <= 3 * 256  # each heap did, for its rows and its bytes together
        assert max(grown) < 256 / 16, grown
    finally:
        memory.close()


def test_the_longest_pause_counts_the_growth_of_lists(memory: SlotMemory) -> None:
    access = memory.access(Rows("u8", {"n": "u8"}), "mix")
    memory.give(access, 0, 1)
    committed_before(memory)
    access[1].reserve(0, 10)  # the table of keys, so that only cells grow after it
    assert pause_max_ns(memory, 1) == 0
    access[1].reserve(0, 10, rows=1000)
    assert pause_max_ns(memory, 1) > 0
