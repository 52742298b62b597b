"""Blocks: carved from spans, joined again when free, sent home when freed by a slot that has not carved them."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from megaphone.shm.limits import MIB
from tests.native.heap import CODE_MASK, HEADER_BYTES, PIECE_BYTES, Heap

if TYPE_CHECKING:
    from collections.abc import Iterator

LINE_BYTES = 64
FIRST_OFFSET = 192
"""Behind the line that is never handed out, the span's line and the first header."""


@pytest.fixture
def heap() -> Iterator[Heap]:
    with Heap(slot_count=3, memory_bytes=16 * MIB, chunk_bytes=MIB) as made:
        yield made
        made.assert_sound()


@pytest.mark.parametrize("asked_bytes", [0, 1, 63, 64, 65, 4096, 100_001, MIB - 192, MIB, 3 * MIB + 5])
def test_a_block_is_aligned_has_the_room_asked_for_and_little_more(heap: Heap, asked_bytes: int) -> None:
    offset = heap.alloc(0, asked_bytes)
    assert offset >= FIRST_OFFSET
    assert offset % LINE_BYTES == 0
    assert asked_bytes <= heap.room(0, offset) <= max(asked_bytes, 1) + 2 * LINE_BYTES - 1
    content = heap.buffer(offset, heap.room(0, offset))
    content[:] = b"x" * len(content)


def test_the_none_offset_has_no_room_and_is_freed_in_vain(heap: Heap) -> None:
    assert heap.room(0, 0) == 0
    heap.free(0, 0)


def test_blocks_of_two_slots_lie_in_chunks_of_their_own(heap: Heap) -> None:
    chunks = [{heap.alloc(slot, 1000) // MIB for _ in range(100)} for slot in range(3)]
    assert chunks == [{0}, {1}, {2}]


def test_a_freed_block_is_carved_again_before_fresh_memory(heap: Heap) -> None:
    offsets = [heap.alloc(0, 1000) for _ in range(10)]
    heap.free(0, offsets[4])
    heap.free(0, offsets[7])
    assert heap.alloc(0, 1000) == offsets[4]
    assert heap.alloc(0, 1000) == offsets[7]


@pytest.mark.parametrize("asked_bytes", [1000, 1024, 1300, 5000, 77_777])
def test_a_hole_of_exactly_the_size_is_found_whatever_its_class(heap: Heap, asked_bytes: int) -> None:
    hole = heap.alloc(0, asked_bytes)
    heap.alloc(0, LINE_BYTES)
    heap.free(0, hole)
    assert heap.alloc(0, asked_bytes) == hole


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1)])
def test_free_neighbours_are_one_block_in_whatever_order_they_fall_free(heap: Heap, order: tuple[int, ...]) -> None:
    offsets = [heap.alloc(0, 1024) for _ in range(3)]
    heap.alloc(0, LINE_BYTES)
    for index in order:
        heap.free(0, offsets[index])
        heap.assert_sound()
    joined_bytes = 3 * 1024 + 2 * HEADER_BYTES
    assert heap.alloc(0, joined_bytes) == offsets[0]
    assert heap.room(0, offsets[0]) == joined_bytes


def test_a_chunk_commits_only_what_has_been_carved_from_it(heap: Heap) -> None:
    heap.alloc(0, LINE_BYTES)
    assert heap.committed_bytes == PIECE_BYTES
    heap.alloc(0, PIECE_BYTES)
    assert heap.committed_bytes == 2 * PIECE_BYTES
    heap.alloc(1, 2 * MIB)
    assert heap.committed_bytes == heap.allocated_bytes == 4 * PIECE_BYTES + 2 * MIB - PIECE_BYTES
    assert heap.statistics(1).span_bytes >= 3 * MIB


def test_what_a_run_has_left_behind_a_large_block_serves_small_ones(heap: Heap) -> None:
    large = heap.alloc(0, 2 * MIB)
    small = heap.alloc(0, 1000)
    assert large < small < 3 * MIB


def test_an_emptied_run_goes_back_and_one_emptied_chunk_is_kept(heap: Heap) -> None:
    large = heap.alloc(0, 5 * MIB)
    heap.free(0, large)
    assert heap.statistics(0).spans == 0
    offsets = [heap.alloc(0, 100_000) for _ in range(40)]
    assert heap.statistics(0).spans == 4
    for offset in offsets:
        heap.free(0, offset)
    assert heap.statistics(0).spans == 1
    assert heap.alloc(0, 64) == FIRST_OFFSET


def test_trimming_gives_the_kept_chunk_to_the_other_slots(heap: Heap) -> None:
    heap.free(0, heap.alloc(0, 64))
    assert heap.alloc(1, 16 * MIB - FIRST_OFFSET) == 0
    assert heap.trim(0) == MIB
    assert heap.trim(0) == 0
    assert heap.alloc(1, 16 * MIB - FIRST_OFFSET) == FIRST_OFFSET


def test_trimming_gives_the_unused_end_of_a_run_to_the_other_slots(heap: Heap) -> None:
    kept = heap.alloc(0, MIB // 2)
    assert heap.statistics(0).span_bytes > MIB
    assert heap.alloc(1, 15 * MIB - FIRST_OFFSET) == 0
    heap.trim(0)
    heap.assert_sound()
    assert heap.statistics(0).span_bytes == MIB
    assert heap.alloc(1, 15 * MIB - FIRST_OFFSET) == MIB + FIRST_OFFSET
    heap.free(0, kept)


@pytest.mark.parametrize("asked_bytes", [MIB // 8, MIB // 4, MIB // 2, MIB])
def test_blocks_as_large_as_a_part_of_a_chunk_can_use_three_quarters_of_the_memory(asked_bytes: int) -> None:
    with Heap(memory_bytes=64 * MIB) as heap:
        count = 0
        while heap.alloc(count % 2, asked_bytes):
            count += 1
        assert count * asked_bytes >= 48 * MIB


def test_a_slot_gives_up_its_own_kept_chunk_for_a_larger_run(heap: Heap) -> None:
    heap.free(0, heap.alloc(0, 64))
    assert heap.alloc(0, 16 * MIB - FIRST_OFFSET) == FIRST_OFFSET


def test_chunks_that_fall_free_are_reused_without_committing_more(heap: Heap) -> None:
    for slot in (0, 1, 2, 0):
        offsets = [heap.alloc(slot, 100_000) for _ in range(100)]
        assert 0 not in offsets
        for offset in offsets:
            heap.free(slot, offset)
        heap.trim(slot)
    assert heap.committed_bytes <= 12 * MIB


def test_alloc_returns_none_when_memory_is_exhausted_and_goes_on_after_a_free(heap: Heap) -> None:
    offsets = []
    while offset := heap.alloc(0, 300_000):
        offsets.append(offset)
    assert len(offsets) >= 16 * 3
    heap.assert_sound()
    heap.free(0, offsets[20])
    assert heap.alloc(0, 300_000) == offsets[20]
    assert heap.alloc(0, 300_000) == 0


@pytest.mark.parametrize("asked_bytes", [17 * MIB, 1 << 36, (1 << 36) + 1, (1 << 63) + 1, (1 << 64) - 1])
def test_a_block_larger_than_the_region_is_none(heap: Heap, asked_bytes: int) -> None:
    assert heap.alloc(0, asked_bytes) == 0
    assert heap.alloc(0, 64) == FIRST_OFFSET


def test_a_block_freed_by_another_slot_lives_until_its_carver_takes_it_back(heap: Heap) -> None:
    offset = heap.alloc(0, 1000)
    assert heap.room(1, offset) == 1024
    heap.free(1, offset)
    assert heap.statistics(0).blocks == 1
    assert heap.alloc(0, 1000) != offset
    assert heap.deliver() == 1
    assert heap.alloc(0, 1000) == offset


def test_blocks_come_home_in_the_order_they_were_freed_however_many_wait(heap: Heap) -> None:
    offsets = [heap.alloc(0, 64) for _ in range(5000)]
    random.Random(3).shuffle(offsets)
    for offset in offsets[:2500]:
        heap.free(1, offset)
    assert heap.take_frees(1, 0, count_max=100) == offsets[:100]
    for offset in offsets[2500:]:
        heap.free(1, offset)
    assert heap.take_frees(1, 0) == offsets[100:]
    assert heap.take_frees(1, 0) == []


def test_freeing_for_another_slot_needs_no_memory_and_loses_nothing() -> None:
    with Heap(slot_count=2, memory_bytes=8 * MIB) as heap:
        offsets = []
        while offset := heap.alloc(0, 1500):
            offsets.append(offset)
        assert len(offsets) > 5000
        random.Random(5).shuffle(offsets)
        for offset in offsets:
            heap.free(1, offset)
        heap.assert_sound()
        heap.deliver()
        heap.assert_sound()
        # The block whose content became the queue is all that may be left.
        assert heap.statistics(0).blocks <= 1
        assert heap.statistics(1).blocks == 0
        # A queue that can grow again gives that block back as well.
        offsets = [heap.alloc(0, 1500) for _ in range(1000)]
        for offset in offsets:
            heap.free(1, offset)
        heap.deliver()
        heap.assert_sound()
        assert heap.statistics(0).blocks == 0


def test_blocks_never_overlap_and_keep_what_is_written(heap: Heap) -> None:
    rng = random.Random(7)
    held: dict[int, tuple[int, int, bytes]] = {}
    for step in range(4000):
        if held and rng.random() < 0.45:
            offset = rng.choice(list(held))
            slot, size_bytes, mark = held.pop(offset)
            assert bytes(heap.buffer(offset, 8)) == bytes(heap.buffer(offset + size_bytes - 8, 8)) == mark
            heap.free(rng.choice((slot, 1 - slot)), offset)
        else:
            slot, asked_bytes = rng.randrange(2), int(2 ** rng.uniform(3, 17))
            offset = heap.alloc(slot, asked_bytes)
            if offset:
                size_bytes, mark = heap.room(slot, offset), step.to_bytes(8, "little")
                heap.buffer(offset, 8)[:] = heap.buffer(offset + size_bytes - 8, 8)[:] = mark
                held[offset] = (slot, size_bytes, mark)
        if step % 50 == 0:
            heap.deliver()
            heap.assert_sound()
    extents = sorted((offset - HEADER_BYTES, offset + size_bytes) for offset, (_, size_bytes, _) in held.items())
    assert all(end <= begin for (_, end), (begin, _) in pairwise(extents))


def test_statistics_add_up_to_the_spans(heap: Heap) -> None:
    offsets = [heap.alloc(0, 1000 * index) for index in range(1, 60)]
    for offset in offsets[::3]:
        heap.free(0, offset)
    told = heap.statistics(0)
    rooms = [heap.room(0, offset) for index, offset in enumerate(offsets) if index % 3]
    assert told.blocks == len(rooms)
    assert told.live_bytes == sum(rooms)
    assert told.free_bytes_max <= told.free_bytes <= told.span_bytes - told.live_bytes
    assert told.touched_bytes <= heap.committed_bytes
    assert told.span_bytes == told.spans * MIB


@pytest.mark.parametrize(
    ("distance", "byte"),
    [(0, 0x00), (4, 0x07), (6, 0x00), (8, 0x40), (16, 0x40), (24, 0xFF), (32, 0x40), (40, 0x40)],
    ids=["magic", "carver", "state", "bytes", "before", "span", "next", "prev"],
)
def test_the_check_finds_a_header_that_was_overwritten(distance: int, byte: int) -> None:
    with Heap() as heap:
        offsets = [heap.alloc(0, 1000) for _ in range(4)]
        heap.free(0, offsets[1])
        heap.assert_sound()
        heap.buffer(offsets[1] - HEADER_BYTES + distance, 1)[:] = bytes([byte])
        assert heap.wrong(0) & CODE_MASK


def test_the_check_finds_a_chunk_that_is_not_leased_any_more() -> None:
    with Heap() as heap:
        heap.alloc(0, 1000)
        heap.release(0, 0)
        assert heap.wrong(0) & CODE_MASK


@pytest.mark.process
@pytest.mark.parametrize(
    ("misuse", "said"),
    [
        ("heap.free(0, offset); heap.free(0, offset)", "is freed twice"),
        ("heap.free(1, offset); heap.free(1, offset)", "is freed twice"),
        ("lib.mp_block_take_back(heap.slots[0], offset)", "was never freed"),
        ("heap.free(1, offset); lib.mp_block_take_back(heap.slots[1], offset)", "has not carved it"),
        ("heap.free(0, offset + 64)", "has no header"),
        ("heap.free(0, 1 << 40)", "is not in the data region"),
    ],
)
def test_a_misused_block_ends_the_process_with_a_line_that_names_it(misuse: str, said: str) -> None:
    program = (
        "from megaphone._core import lib\nfrom tests.native.heap import Heap\n"
        "heap = Heap()\nkept = heap.alloc(0, 1000)\noffset = heap.alloc(0, 1000)\nheap.alloc(0, 1000)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program + misuse], capture_output=True, text=True, check=False)
    assert ran.returncode == -signal.SIGABRT
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1
