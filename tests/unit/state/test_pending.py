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


def test_the_longest_pause_counts_the_growth_of_lists(memory: SlotMemory) -> None:
    access = memory.access(Rows("u8", {"n": "u8"}), "mix")
    memory.give(access, 0, 1)
    committed_before(memory)
    access[1].reserve(0, 10)  # the table of keys, so that only cells grow after it
    assert pause_max_ns(memory, 1) == 0
    access[1].reserve(0, 10, rows=1000)
    assert pause_max_ns(memory, 1) > 0
