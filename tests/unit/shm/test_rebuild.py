"""Blocks and slabs counted again: what is wrong is noticed and repaired, whatever was scribbled or cut short."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from megaphone._core import ffi, lib
from megaphone.dataflow.recounting import describe
from megaphone.shm.limits import MIB
from tests.native.heap import JUMBO, STORE, Heap
from tests.native.libraries import Scribble, crash_library, scribble

KEEP_BYTES = 1000


def recount(slot: Any) -> str:
    """Return what a recount of blocks and slabs says; empty when all is equal."""
    difference = ffi.new("mp_difference *")
    for count in (lib.mp_blocks_recount, lib.mp_slabs_recount):
        rc = count(slot, difference)
        if rc == 1:
            return describe(difference)
        assert rc == 0
    return ""


def rebuild(slot: Any) -> tuple[int, int]:
    difference = ffi.new("mp_difference *")
    return int(lib.mp_blocks_rebuild(slot, difference)), int(lib.mp_slabs_rebuild(slot, difference))


@pytest.fixture
def used() -> Iterator[tuple[Heap, dict[int, bytes]]]:
    """A heap after some use: several spans and slabs, free blocks of several classes; what live blocks hold."""
    rng = random.Random(7)
    with Heap(slot_count=2, memory_bytes=32 * MIB) as heap:
        offsets = [heap.alloc(0, rng.choice((64, 200, KEEP_BYTES, 30_000, 300_000))) for _ in range(120)]
        offsets.append(heap.alloc(0, 3 * MIB))  # a run of chunks
        rng.shuffle(offsets)
        assert all(offsets)
        for offset in offsets[::3]:
            heap.free(0, offset)
        heap.free(1, offsets[1])  # on its way home
        for _ in range(20):
            slab = int(lib.mp_slab_reserve(heap.slots[0], 40_000))
            lib.mp_ref_add_at(heap.slots[0], slab)
        lib.mp_ref_add_at(heap.slots[0], int(lib.mp_slab_reserve(heap.slots[0], MIB + 1)))
        live = {}
        for number, offset in enumerate(offsets):
            if number % 3 and number != 1:
                live[offset] = number.to_bytes(8, "little") * 8
                heap.buffer(offset, 64)[:] = live[offset]
        assert recount(heap.slots[0]) == ""
        yield heap, live


def assert_repaired(heap: Heap, live: dict[int, bytes]) -> None:
    """After a rebuild all is equal, live blocks are as they were, and the heap serves until it is empty."""
    slot = heap.slots[0]
    assert rebuild(slot) == (0, 0)
    assert recount(slot) == ""
    heap.assert_sound()
    assert all(bytes(heap.buffer(offset, 64)) == content for offset, content in live.items())
    fresh = [heap.alloc(0, 777) for _ in range(200)]
    assert len({*fresh, *live}) == 200 + len(live)
    for offset in [*fresh, *live]:
        heap.free(0, offset)
    heap.deliver()
    assert recount(slot) == ""
    assert heap.statistics(0).blocks == 1  # the list of slabs


def set_word(pointer: Any, value: int) -> None:
    assert pointer[0] != value
    pointer[0] = value


SCRIBBLES: dict[str, Callable[[Scribble, Any], None]] = {
    "a list of free blocks that is lost": lambda s, slot: set_word(s.free_list(slot, 0), 0),
    "a list that begins at its second entry": lambda s, slot: set_word(
        s.free_list(slot, 0), s.free_next(slot)[0] or 64
    ),
    "a list that leads out of memory": lambda s, slot: set_word(s.free_list(slot, 1), 1 << 40),
    "a list that leads into a block's content": lambda s, slot: set_word(s.free_list(slot, 2), 3 * MIB + 4096),
    "two lists swapped": lambda s, slot: set_word(s.free_list(slot, 0), s.free_list(slot, 1)[0]),
    "an entry that leads back to itself": lambda s, slot: set_word(s.free_next(slot), s.free_list(slot, 0)[0]),
    "no first bitmap": lambda s, slot: set_word(s.first_map(slot), 0),
    "a bit too many": lambda s, slot: set_word(s.first_map(slot), s.first_map(slot)[0] | 1 << 31),
    "second bitmaps of ones": lambda s, slot: s.ffi.memmove(s.second_maps(slot), b"\x0f" * 32, 32),
    "no list of spans": lambda s, slot: set_word(s.span_list(slot), 0),
    "a list of spans that leads nowhere": lambda s, slot: set_word(s.span_list(slot), 12345),
    "a span with too many live blocks": lambda s, slot: set_word(s.span_live(slot), s.span_live(slot)[0] + 1),
    "a span with none": lambda s, slot: set_word(s.span_live(slot), 0),
    "a span whose last block is another": lambda s, slot: set_word(s.span_last(slot), s.span_list(slot)[0] + 64),
    "a span that is too short": lambda s, slot: set_word(s.span_bytes(slot), 4096),
    "a span that has touched nothing": lambda s, slot: set_word(s.span_touched(slot), 0),
    "a block that names another before it": lambda s, slot: set_word(s.before(slot), 64),
    "live bytes of the slot": lambda s, slot: set_word(s.live_bytes(slot), 1),
    "live bytes of a chunk": lambda s, slot: set_word(s.chunk_live(slot), 1),
    "a slab that is listed twice": lambda s, slot: set_word(s.slab_entry(slot), s.slab_entry(slot)[1]),
    "a slab that does not exist": lambda s, slot: set_word(s.slab_entry(slot), 1 << 30),
    "a slab that is lost": lambda s, slot: set_word(
        s.ffi.addressof(s.slab_list(slot)[0], "head"), s.slab_list(slot).head + 1
    ),
    "an open slab that is lost": lambda s, slot: set_word(s.slab_open(slot), 0),
    "a list of slabs whose block is none": lambda s, slot: set_word(
        s.ffi.addressof(s.slab_list(slot)[0], "block"), 4096
    ),
    "a chunk that is carved further than it is": lambda s, slot: set_word(s.batch_carved(slot), MIB // 2),
    "a chunk in which nobody carves": lambda s, slot: set_word(s.batch_chunk(slot), 0),
}


@pytest.mark.parametrize("what", SCRIBBLES)
def test_a_recount_notices_and_a_rebuild_repairs(what: str, used: tuple[Heap, dict[int, bytes]]) -> None:
    heap, live = used
    SCRIBBLES[what](scribble(), heap.slots[0])
    assert recount(heap.slots[0]).startswith("recount of worker 0: ")
    if what == "a list of slabs whose block is none":
        assert rebuild(heap.slots[0]) == (0, 0)
        assert recount(heap.slots[0]) == ""  # the old list's block is nobody's now: the audit of names finds that
        return
    assert_repaired(heap, live)


def test_a_rebuild_of_what_is_right_changes_nothing_that_is_seen(used: tuple[Heap, dict[int, bytes]]) -> None:
    heap, live = used
    before = heap.statistics(0)
    seen = (before.spans, before.blocks, before.live_bytes, before.free_bytes, before.span_bytes)
    assert rebuild(heap.slots[0]) == (0, 0)
    after = heap.statistics(0)
    assert seen == (after.spans, after.blocks, after.live_bytes, after.free_bytes, after.span_bytes)
    assert_repaired(heap, live)


def test_all_lists_can_be_noise(used: tuple[Heap, dict[int, bytes]]) -> None:
    heap, live = used
    slot, noise = heap.slots[0], random.Random(3)
    write = scribble()
    maps = write.second_maps(slot)
    write.ffi.memmove(maps, noise.randbytes(32), 32)
    write.first_map(slot)[0] = noise.getrandbits(32)
    lists = write.ffi.cast("uint64_t *", maps + 36)  # they stand behind the maps
    for number in range(32 * 4 - 1):
        lists[number] = noise.getrandbits(64)
    for pointer in (write.span_live(slot), write.span_last(slot), write.span_bytes(slot), write.span_touched(slot)):
        pointer[0] = noise.getrandbits(64)
    write.span_list(slot)[0] = noise.getrandbits(64)
    assert recount(slot)
    assert_repaired(heap, live)


def test_a_header_that_is_none_is_told_and_nothing_is_guessed(used: tuple[Heap, dict[int, bytes]]) -> None:
    heap, live = used
    offset = min(live)
    set_word(scribble().header_magic(heap.slots[0], offset), 0)
    difference = ffi.new("mp_difference *")
    assert lib.mp_blocks_recount(heap.slots[0], difference) == 1
    assert lib.mp_blocks_rebuild(heap.slots[0], difference) < 0
    assert (difference.kind, difference.name) == (lib.MP_DIFFER_BROKEN, offset - 64)


def test_a_lease_that_no_run_covers_goes_back(used: tuple[Heap, dict[int, bytes]]) -> None:
    heap, live = used
    chunk = heap.lease(0, run=2, kind=STORE)
    scribble().run(heap.slots[0], chunk)[0] = 0
    assert "no run covers it" in recount(heap.slots[0])
    assert_repaired(heap, live)
    assert scribble().lease(heap.slots[0], chunk)[0] == scribble().lease(heap.slots[0], chunk + 1)[0] == 0


def test_a_run_whose_span_was_never_laid_out_goes_back(used: tuple[Heap, dict[int, bytes]]) -> None:
    heap, live = used
    chunk = heap.lease(0, run=2, kind=STORE)
    assert recount(heap.slots[0])
    assert_repaired(heap, live)
    assert scribble().lease(heap.slots[0], chunk)[0] == 0


# -- stopped after any store -----------------------------------------------------------------------------------------

CHUNK_BYTES, SLAB_BYTES, MEMORY_BYTES = 64 << 10, 8 << 10, 1 << 20
BATCH = 1  # MP_CHUNK_BATCH
LIVE, SENT = 2, 3  # MP_BLOCK_*
ALLOC, FREE, TAKE_BACK, SEND, TRIM, PUSH, SLAB, GIVE_BACK, REBUILD, REBUILD_SLABS, COUNT, POST = range(12)


class Crashing:
    """An allocator with two slots that is stopped at every store of every call.

    Each time from the same state; then it is rebuilt, compared, and taken back.
    """

    def __init__(self, optimisation: str) -> None:
        self.ffi, self.lib = crash_library(optimisation)
        assert self.lib.crash_open(2, MEMORY_BYTES, CHUNK_BYTES, SLAB_BYTES) == 0
        self._result, self._stores = self.ffi.new("int64_t *"), self.ffi.new("uint64_t *")
        self.live: dict[int, int] = {}  # block -> what is written in it
        self.pushed: list[int] = []
        self.states = 0

    def run(self, what: int, slot: int, value: int = 0, stop: int = 0) -> int | None:
        """Make a call; None when it was stopped."""
        if self.lib.crash_run(what, slot, value, stop, self._result, self._stores):
            return None
        return int(self._result[0])

    def blocks(self, slot: int) -> dict[int, int]:
        """Return blocks that a slot has carved and that are not free, with their states."""
        offsets, states = self.ffi.new("uint64_t[1024]"), self.ffi.new("uint64_t[1024]")
        count = self.lib.crash_blocks(slot, offsets, states, 1024)
        assert 0 <= count <= 1024
        return dict(zip(offsets[0:count], states[0:count], strict=True))

    def recount(self, slot: int) -> None:
        difference = self.ffi.new("mp_difference *")
        rc = self.lib.crash_recount(slot, 1, difference)
        assert rc == 0, f"{rc}: {difference.kind} {difference.name} {difference.counted} {difference.found}"

    def list_of(self, slot: int) -> list[int]:
        entries = self.ffi.new("uint64_t[1024]")
        count = self.lib.crash_list(slot, entries, 1024)
        assert count >= 0, count
        return list(entries[0:count])

    def call(self, what: int, slot: int, value: int = 0, nested: int = 0) -> int:
        """Stop a call at each of its stores, check each state, and then let it happen."""
        mark, sum_before = self.lib.crash_mark(), self.lib.crash_sum()
        before = self.blocks(0) | self.blocks(1)
        result = self.run(what, slot, value)
        assert result is not None
        stores = int(self._stores[0])
        self.lib.crash_undo(mark)
        assert self.lib.crash_sum() == sum_before, "a store was not noted"
        for stop in range(1, stores + 1):
            assert self.run(what, slot, value, stop) is None
            self.states += 1
            self.check(slot, before, {value} if what in (FREE, TAKE_BACK) else set())
            self.lib.crash_undo(mark)
            if nested and stop % nested == 1:
                self.check_rebuild_stopped(what, slot, value, stop, before, mark)
        assert self.run(what, slot, value) == result
        self.recount(slot)
        return result

    def check_rebuild_stopped(
        self, what: int, slot: int, value: int, stop: int, before: dict[int, int], mark: int
    ) -> None:
        """Whoever rebuilds may be stopped as well, at any store; the next one gives the same."""
        again = 1
        while True:
            assert self.run(what, slot, value, stop) is None
            done = self.run(REBUILD, slot, 0, again)
            if done is None:
                self.states += 1
                self.check(slot, before, {value} if what in (FREE, TAKE_BACK) else set())
            self.lib.crash_undo(mark)
            if done is not None:
                return
            again += 1

    def check(self, slot: int, before: dict[int, int], going: set[int]) -> None:
        """Rebuild, and see that nothing that was in use is lost, and that all memory serves again."""
        assert self.run(REBUILD, slot) == 0
        assert self.run(REBUILD_SLABS, slot) == 0
        self.recount(0)
        self.recount(1)
        after = self.blocks(0) | self.blocks(1)
        lost = before.keys() - after.keys() - going
        grown = {offset for offset in lost if offset not in self.live}  # a list's block that a longer one replaced
        assert len(lost) == len(grown) <= 1
        for offset, value in self.live.items():
            if offset not in going:
                assert (after[offset], self.lib.crash_read(offset)) == (before[offset], value)
        assert self.list_of(slot) == self.pushed[: len(self.list_of(slot))]
        assert len(self.list_of(slot)) >= len(self.pushed) - 1
        for named in (self.lib.crash_times(slot), self.lib.crash_pending(slot)):
            assert named == 0 or after.get(named) == LIVE, "a block that has been freed is still named"
        self.drain(slot, after)

    def drain(self, slot: int, blocks: dict[int, int]) -> None:
        """Free all that the slot has carved: then all its store chunks go back."""
        mine = self.blocks(slot)
        for offset, state in mine.items():
            if state == LIVE:
                self.run(FREE, slot, offset)
        for offset in mine:
            if self.blocks(slot).get(offset) == SENT:
                self.run(TAKE_BACK, slot, offset)
        self.run(TRIM, slot)
        assert (self.blocks(slot), self.lib.crash_leased(slot, STORE)) == ({}, 0)
        assert blocks.keys() >= mine.keys()


@pytest.fixture(params=["-O0", "-O2"])
def crashing(request: pytest.FixtureRequest) -> Iterator[Crashing]:
    made = Crashing(request.param)
    yield made
    made.lib.crash_close()


def test_after_any_store_of_the_allocator_a_rebuild_loses_no_live_block_and_no_memory(
    crashing: Crashing, record_property: Callable[[str, Any], None]
) -> None:
    c, rng = crashing, random.Random(11)
    sizes = (64, 64, 100, 500, 2_000, 9_000, 40_000, 100_000)
    for number in range(250):
        mine = sorted(offset for offset, state in (c.blocks(0) | c.blocks(1)).items() if offset in c.live)
        choice = rng.choice("aaaafffst") if mine else "a"
        if choice == "a":
            offset = c.call(ALLOC, rng.choice((0, 0, 0, 1)), rng.choice(sizes), nested=17 if number % 9 == 0 else 0)
            if offset:
                c.live[offset] = number
                c.lib.crash_write(offset, number)
        elif choice == "f":
            offset = rng.choice(mine)
            c.call(FREE, 0, offset, nested=7 if number % 5 == 0 else 0)
            del c.live[offset]
        elif choice == "s":
            offset = c.call(SEND, 0, 1)
            if offset:
                c.call(TAKE_BACK, 1, offset)
        else:
            c.call(TRIM, rng.choice((0, 1)))
    assert c.states > 5_000
    record_property("states", c.states)


def test_after_any_store_of_a_growing_list_its_entries_are_there(
    crashing: Crashing, record_property: Callable[[str, Any], None]
) -> None:
    for number in range(70):
        crashing.pushed.append(number)
        assert crashing.call(PUSH, 0, number) == 0
    assert crashing.list_of(0) == list(range(70))
    record_property("states", crashing.states)


@pytest.mark.parametrize("what", [COUNT, POST])
def test_after_any_store_of_what_grows_no_block_that_has_been_freed_is_named(
    what: int, crashing: Crashing, record_property: Callable[[str, Any], None]
) -> None:
    for number in range(150):
        assert crashing.call(what, 0, number * 7 % 150) == 0
    record_property("states", crashing.states)


def test_after_any_store_of_a_slab_that_is_carved_opened_or_given_back_all_that_are_carved_are_listed(
    crashing: Crashing, record_property: Callable[[str, Any], None]
) -> None:
    c, rng = crashing, random.Random(5)
    named: list[int] = []
    for _ in range(90):
        choice = rng.choice("sssssddj") if named else "s"
        if choice == "d":
            for _ in range(rng.randrange(1, 12)):
                if named:
                    c.lib.crash_reference(0, named.pop(rng.randrange(len(named))), -1)
            c.call(GIVE_BACK, 0)
        else:
            slab = c.call(SLAB, 0, rng.choice((64, 3000, SLAB_BYTES)) if choice == "s" else CHUNK_BYTES + 1)
            if slab:
                c.lib.crash_reference(0, slab, 1)
                named.append(slab)
    for offset in named:
        c.lib.crash_reference(0, offset, -1)
    assert c.run(REBUILD_SLABS, 0) == 0  # closes the open slab
    c.run(GIVE_BACK, 0)
    assert c.lib.crash_leased(0, JUMBO) == 0
    assert c.lib.crash_leased(0, BATCH) <= 1  # the one in which slabs are carved
    record_property("states", c.states)
