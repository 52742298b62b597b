"""Several slots of one process over real regions, for tests of chunks and blocks that need no dataflow."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from megaphone._core import ffi, lib
from megaphone.shm.limits import MIB
from megaphone.shm.region import Region

if TYPE_CHECKING:
    from types import TracebackType

STORE = 2
"""MP_CHUNK_STORE."""
JUMBO = 3
"""MP_CHUNK_JUMBO."""
PIECE_BYTES = 256 * 1024
"""MP_COMMIT_PIECE: what is committed at a time."""
HEADER_BYTES = 64
"""MP_BLOCK_HEADER: what lies before each block."""
CODE_MASK = 0x3F
"""The part of a check's answer that says what is wrong; the rest is an offset."""


class Heap:
    """The C core's slots with nothing but memory; a context manager that leaves nothing behind.

    Args:
        slot_count: slots that this process hosts.
        memory_bytes: size of the data region.
        chunk_bytes: size of a chunk.
        wake_fd: eventfd that slots write to when they want memory, -1 for none.
        huge_pages: ask the kernel for huge pages.
    """

    def __init__(
        self,
        slot_count: int = 2,
        memory_bytes: int = 16 * MIB,
        chunk_bytes: int = MIB,
        wake_fd: int = -1,
        *,
        huge_pages: bool = False,
    ) -> None:
        self.slot_count = slot_count
        self.chunk_bytes = chunk_bytes
        limits = ffi.new("mp_limits *")
        limits.slots = slot_count
        limits.ring_cells = 64
        limits.data_bytes = memory_bytes
        limits.chunk_bytes = chunk_bytes
        limits.slab_bytes = chunk_bytes // 16
        limits.locations = 1
        limits.huge_pages = huge_pages
        self.control = Region.create(int(lib.mp_control_bytes(limits)), "control")
        self.data = Region.create(memory_bytes, "data")
        assert lib.mp_control_init(self.control.pointer, limits) == 0
        self.slots: list[Any] = []
        for index in range(slot_count):
            pointers = (self.control.pointer, self.data.pointer, self.data.view_pointer)
            slot = lib.mp_slot_attach(*pointers, index, self.data.fd, wake_fd)
            assert slot != ffi.NULL
            self.slots.append(slot)

    def __enter__(self) -> Heap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for slot in self.slots:
            lib.mp_slot_detach(slot)
        self.slots.clear()
        self.data.close()
        self.control.close()

    def lease(self, slot: int, run: int = 1, kind: int = STORE) -> int:
        return int(lib.mp_chunk_lease(self.slots[slot], kind, run))

    def release(self, slot: int, chunk: int) -> None:
        lib.mp_chunk_release(self.slots[slot], chunk)

    def commit(self, slot: int, chunk: int, upto_bytes: int) -> int:
        return int(lib.mp_chunk_commit(self.slots[slot], chunk, upto_bytes))

    def used(self, slot: int, chunk: int, used_bytes: int) -> None:
        lib.mp_chunk_used(self.slots[slot], chunk, used_bytes)

    def grow_ahead(self, budget_bytes: int = 1 << 40) -> int:
        return int(lib.mp_chunks_grow_ahead(self.control.pointer, self.data.pointer, self.data.fd, budget_bytes))

    def alloc(self, slot: int, size_bytes: int) -> int:
        return int(lib.mp_block_alloc(self.slots[slot], size_bytes))

    def free(self, slot: int, offset: int) -> None:
        lib.mp_block_free(self.slots[slot], offset)

    def room(self, slot: int, offset: int) -> int:
        return int(lib.mp_block_bytes(self.slots[slot], offset))

    def take_frees(self, slot: int, carver: int, count_max: int = 1 << 16) -> list[int]:
        """Return the offsets that a slot would send to a carver, oldest first."""
        offsets = ffi.new("uint64_t[]", count_max)
        count = int(lib.mp_block_frees_take(self.slots[slot], carver, offsets, count_max))
        return list(ffi.unpack(offsets, count)) if count else []

    def deliver(self) -> int:
        """Carry all freed blocks home, as the rings would; return how many offsets travelled."""
        travelled = 0
        for slot in range(self.slot_count):
            for carver in range(self.slot_count):
                while offsets := self.take_frees(slot, carver):
                    travelled += len(offsets)
                    for offset in offsets:
                        lib.mp_block_take_back(self.slots[carver], offset)
        return travelled

    def trim(self, slot: int) -> int:
        return int(lib.mp_block_trim(self.slots[slot]))

    def wrong(self, slot: int) -> int:
        """Return what the core's own check finds wrong in a slot's spans: 0 for nothing."""
        return int(lib.mp_block_check(self.slots[slot]))

    def assert_sound(self) -> None:
        for slot in range(self.slot_count):
            wrong = self.wrong(slot)
            assert wrong == 0, f"slot {slot}: code {wrong & CODE_MASK} at offset {wrong & ~CODE_MASK}"

    def statistics(self, slot: int) -> Any:
        out = ffi.new("mp_block_statistics *")
        lib.mp_block_statistics_read(self.slots[slot], out)
        return out

    @property
    def live_bytes(self) -> int:
        return sum(int(self.statistics(slot).live_bytes) for slot in range(self.slot_count))

    @property
    def committed_bytes(self) -> int:
        """What the header says is committed."""
        return int(lib.mp_committed_bytes(self.control.pointer))

    @property
    def allocated_bytes(self) -> int:
        """What the file system says is allocated."""
        return os.fstat(self.data.fd).st_blocks * 512

    def buffer(self, offset: int, size_bytes: int) -> Any:
        """Return a writable view of the data region; it must not outlive the heap."""
        return ffi.buffer(self.data.pointer + offset, size_bytes)
