"""Blocks under any sequence of requests: they keep their content, their lists stay sound, and memory does not grow."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from megaphone.shm.limits import MIB
from tests.native.heap import HEADER_BYTES, Heap

SLOT_COUNT = 3
MEMORY_BYTES = 8 * MIB
COMMITTED_PER_LIVE_MAX = 1.5
"""The design's bound, next to one chunk for each slot."""

sizes = st.one_of(
    st.integers(1, 4096),
    st.integers(6, 20).map(lambda power: 1 << power),
    st.integers(1, 3 * MIB),
)
slots = st.integers(0, SLOT_COUNT - 1)


class Blocks(RuleBasedStateMachine):
    """Slots allocate, grow, hand over and free; the model is what each block was told to hold."""

    def __init__(self) -> None:
        super().__init__()
        self.heap = Heap(slot_count=SLOT_COUNT, memory_bytes=MEMORY_BYTES)
        self.held: dict[int, tuple[int, bytes]] = {}
        self.serial = 0
        self.is_full = False

    def teardown(self) -> None:
        for offset in list(self.held):
            self.heap.free(0, offset)
        self.heap.deliver()
        self.heap.assert_sound()
        # The queues of freed blocks are blocks too; nothing else may be left.
        assert sum(self.heap.statistics(slot).blocks for slot in range(SLOT_COUNT)) <= SLOT_COUNT * (SLOT_COUNT - 1)
        self.heap.__exit__(None, None, None)

    def fill(self, offset: int, size_bytes: int) -> None:
        """Mark both ends of a block; sizes are at least a cache line."""
        self.serial += 1
        mark = self.serial.to_bytes(8, "little")
        self.heap.buffer(offset, 8)[:] = mark
        self.heap.buffer(offset + size_bytes - 8, 8)[:] = mark
        self.held[offset] = (size_bytes, mark)

    def pick(self, index: int) -> int:
        return sorted(self.held)[index % len(self.held)]

    @initialize(order=st.permutations(range(SLOT_COUNT)))
    def every_slot_has_something(self, order: list[int]) -> None:
        for slot in order:
            self.allocate(slot, 100)

    @rule(slot=slots, asked_bytes=sizes)
    def allocate(self, slot: int, asked_bytes: int) -> None:
        offset = self.heap.alloc(slot, asked_bytes)
        if offset:
            assert offset not in self.held
            assert self.heap.room(slot, offset) >= asked_bytes
            self.fill(offset, self.heap.room(slot, offset))

    @precondition(lambda self: self.held)
    @rule(slot=slots, index=st.integers(0, 1 << 16))
    def free(self, slot: int, index: int) -> None:
        offset = self.pick(index)
        del self.held[offset]
        self.heap.free(slot, offset)

    @precondition(lambda self: self.held)
    @rule(slot=slots, index=st.integers(0, 1 << 16))
    def double(self, slot: int, index: int) -> None:
        old = self.pick(index)
        offset = self.heap.alloc(slot, 2 * self.held[old][0])
        if offset:
            self.fill(offset, self.heap.room(slot, offset))
            del self.held[old]
            self.heap.free(slot, old)

    @rule()
    def deliver(self) -> None:
        self.heap.deliver()

    @rule(slot=slots)
    def trim(self, slot: int) -> None:
        self.heap.trim(slot)

    @invariant()
    def everything_is_sound(self) -> None:
        self.heap.assert_sound()
        for offset, (size_bytes, mark) in self.held.items():
            assert bytes(self.heap.buffer(offset, 8)) == mark
            assert bytes(self.heap.buffer(offset + size_bytes - 8, 8)) == mark
        extents = sorted((offset - HEADER_BYTES, offset + size_bytes) for offset, (size_bytes, _) in self.held.items())
        assert all(end <= begin for (_, end), (begin, _) in pairwise(extents))
        assert self.heap.committed_bytes == self.heap.allocated_bytes <= MEMORY_BYTES


TestBlocks = Blocks.TestCase


class Growth:
    """Bins that double again and again, in any order, owned now by one slot and now by another.

    Args:
        seed: of everything that is random.
        slot_count: slots.
        bin_count: bins, one block each.
        least_bytes: size of each bin's first block.
        most_bytes: size that no block exceeds.
        chunk_bytes: of the region.
    """

    def __init__(
        self, seed: int, slot_count: int, bin_count: int, least_bytes: int, most_bytes: int, chunk_bytes: int = MIB
    ) -> None:
        self.rng = random.Random(seed)
        self.slot_count = slot_count
        self.most_bytes = most_bytes
        self.chunk_bytes = chunk_bytes
        self.heap = Heap(slot_count=slot_count, memory_bytes=512 * chunk_bytes, chunk_bytes=chunk_bytes)
        self.owners = [bin_id % slot_count for bin_id in range(bin_count)]
        self.sizes = [least_bytes] * bin_count
        self.offsets = [self.heap.alloc(owner, least_bytes) for owner in self.owners]
        self.live_bytes = least_bytes * bin_count
        self.live_bytes_max = self.live_bytes
        self.since_delivery = 0

    def resize(self, bin_id: int, size_bytes: int) -> None:
        """Give a bin another block, as its owner does when the table grows; the old block goes to its carver."""
        offset = self.heap.alloc(self.owners[bin_id], size_bytes)
        assert offset, f"no {size_bytes} bytes with {self.heap.committed_bytes} committed"
        self.heap.free(self.owners[bin_id], self.offsets[bin_id])
        self.live_bytes += size_bytes - self.sizes[bin_id]
        self.live_bytes_max = max(self.live_bytes_max, self.live_bytes)
        self.offsets[bin_id], self.sizes[bin_id] = offset, size_bytes
        self.since_delivery += 1
        if self.since_delivery == 64:
            self.since_delivery = 0
            self.heap.deliver()

    def migrate(self, bin_id: int) -> None:
        self.owners[bin_id] = self.rng.randrange(self.slot_count)

    def grow_all(self, is_in_phases: bool) -> None:
        """Double every bin until none may: all once before any twice, or each whenever chance says so."""
        while todo := [bin_id for bin_id, size_bytes in enumerate(self.sizes) if 2 * size_bytes <= self.most_bytes]:
            order = self.rng.sample(todo, len(todo)) if is_in_phases else self.rng.choices(todo, k=len(todo) // 2 + 1)
            for bin_id in order:
                if 2 * self.sizes[bin_id] <= self.most_bytes:
                    if self.rng.random() < 0.3:
                        self.migrate(bin_id)
                    self.resize(bin_id, 2 * self.sizes[bin_id])

    def assert_bounded(self) -> None:
        self.heap.deliver()
        self.heap.assert_sound()
        bound_bytes = COMMITTED_PER_LIVE_MAX * self.live_bytes_max + self.slot_count * self.chunk_bytes
        committed_bytes = self.heap.committed_bytes
        assert committed_bytes <= bound_bytes, f"{committed_bytes} committed, {self.live_bytes_max} live at most"


@given(
    seed=st.integers(0, 1 << 32),
    slot_count=st.integers(1, 5),
    least_bytes=st.integers(64, 3000),
    doublings=st.integers(3, 7),
    is_in_phases=st.booleans(),
)
def test_blocks_that_double_commit_at_most_half_again_of_what_lives(
    seed: int, slot_count: int, least_bytes: int, doublings: int, is_in_phases: bool
) -> None:
    growth = Growth(seed, slot_count, 500, least_bytes, least_bytes << doublings)
    with growth.heap:
        growth.grow_all(is_in_phases)
        growth.assert_bounded()


@pytest.mark.parametrize("is_in_phases", [True, False])
@pytest.mark.parametrize(
    ("slot_count", "bin_count", "least_bytes", "most_bytes"),
    [(4, 4000, 64, 16 << 10), (2, 256, 1 << 10, 512 << 10), (2, 64, 1 << 10, 2 << 20)],
    ids=["thousands", "half-chunk", "two-chunks"],
)
def test_thousands_of_doublings_stay_within_the_bound(
    slot_count: int, bin_count: int, least_bytes: int, most_bytes: int, is_in_phases: bool
) -> None:
    growth = Growth(1, slot_count, bin_count, least_bytes, most_bytes)
    with growth.heap:
        growth.grow_all(is_in_phases)
        growth.assert_bounded()


def test_a_thousand_migrations_with_growth_in_between_do_not_grow_memory() -> None:
    growth = Growth(2, 4, 512, 1000, 32_000)
    with growth.heap:
        growth.grow_all(is_in_phases=False)
        growth.assert_bounded()
        for _ in range(1000):
            for bin_id in growth.rng.sample(range(512), 16):
                growth.migrate(bin_id)
                # The new owner's table is a little larger or smaller, as keys come and go.
                growth.resize(bin_id, growth.rng.randrange(16_000, 32_000))
        growth.assert_bounded()
