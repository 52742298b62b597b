"""Slots over a small region of their own, for tests of what lives in bins: no worker, no dataflow, no hand-over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from megaphone._core import ffi, lib
from megaphone.shm.counters import COUNTER_INDEX
from megaphone.shm.region import Region
from megaphone.state.access import StoreAccess
from megaphone.state.stores import Store

MIB = 1 << 20


class SlotMemory:
    """Some slots of one region, and the bins of one stateful operator.

    Attributes:
        slots: one cdata ``mp_slot *`` per slot.
    """

    def __init__(self, slots: int = 2, memory_mib: int = 64, bin_shift: int = 2) -> None:
        limits = ffi.new("mp_limits *")
        # One slot more holds what others shall not find: see without().
        limits.slots, limits.ring_cells, limits.locations, limits.paths, limits.keyed = slots + 1, 64, 1, 1, 1
        limits.data_bytes, limits.chunk_bytes, limits.slab_bytes = memory_mib * MIB, MIB, MIB // 16
        limits.bin_shift[0] = bin_shift
        self.bin_shift = bin_shift
        self._control = Region.create(int(lib.mp_control_bytes(limits)), "control")
        self._data = Region.create(memory_mib * MIB, "data")
        assert lib.mp_control_init(self._control.pointer, limits) == 0
        self.slots: list[Any] = [
            lib.mp_slot_attach(
                self._control.pointer, self._data.pointer, self._data.view_pointer, index, self._data.fd, -1
            )
            for index in range(slots + 1)
        ]
        self._holder = self.slots.pop()

    def access(self, store: Store, hash_name: str, **more: Any) -> list[StoreAccess]:
        """Return one access per slot; the first slot owns all bins."""
        accesses = [StoreAccess(slot, store, 0, self.bin_shift, hash_name, **more) for slot in self.slots]
        for bin_id in range(1 << self.bin_shift):
            self.give(accesses, bin_id, 0)
        return accesses

    def give(self, accesses: list[StoreAccess], bin_id: int, slot: int) -> None:
        """Let a slot own a bin, as after a hand-over."""
        assert lib.mp_store_adopt(self.slots[slot], accesses[slot].c, bin_id) == 0

    def counter(self, name: str) -> int:
        """Return the sum of a counter over all slots."""
        return sum(
            int(lib.mp_counter_read(self._control.pointer, index, COUNTER_INDEX[name]))
            for index in range(len(self.slots))
        )

    @contextmanager
    def without(self, slot: int, spare: int = 0) -> Iterator[None]:
        """Let a slot find no block but ``spare`` of some hundred bytes while this lasts.

        The pool is held by a slot of its own, which gives all of it back: what the slot itself takes from the pool
        would stay its own wherever something of it lives on, and the next slot would find nothing.
        """
        carver = self.slots[slot]
        # Two for each that is spared, so that what is freed has no free neighbour to join; of two sizes, so that memory
        # ends at a table, a directory or a page.
        small = [int(lib.mp_block_alloc(carver, (768, 256)[number // 2 % 2])) for number in range(2 * spare)]
        held, hogs = self._hogged(self._holder, MIB // 2), self._hogged(carver, MIB // 2)
        for block in small[::2]:
            lib.mp_block_free(carver, block)
        hogs += small[1::2]
        try:
            yield
        finally:
            for owner, blocks in ((carver, hogs), (self._holder, held)):
                for block in blocks:
                    lib.mp_block_free(owner, block)
                lib.mp_block_trim(owner)

    @staticmethod
    def _hogged(slot: Any, size_bytes: int) -> list[int]:
        """Return blocks of a slot that leave it none of 64 bytes or more."""
        hogs = []
        while size_bytes >= 64:
            while block := int(lib.mp_block_alloc(slot, size_bytes)):
                hogs.append(block)
            size_bytes //= 2
        return hogs

    def close(self) -> None:
        for slot in (*self.slots, self._holder):
            lib.mp_slot_detach(slot)
        self._control.close()
        self._data.close()
