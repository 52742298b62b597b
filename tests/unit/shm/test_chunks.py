"""Chunks: leased by one slot at a time, committed before they are touched, grown ahead of need by the parent."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from megaphone.shm.limits import MIB
from tests.native.heap import JUMBO, PIECE_BYTES, Heap

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[3]
CHUNK_COUNT = 16
AHEAD_BYTES = MIB // 8


@pytest.fixture
def heap() -> Iterator[Heap]:
    with Heap(slot_count=2, memory_bytes=CHUNK_COUNT * MIB, chunk_bytes=MIB) as made:
        yield made


@pytest.fixture
def wake_fd() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    yield fd
    os.close(fd)


def wakes(fd: int) -> int:
    """Return how often the eventfd has been written since the last look."""
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


def test_leases_begin_at_the_lowest_chunk_and_are_never_shared(heap: Heap) -> None:
    assert [heap.lease(index % 2) for index in range(CHUNK_COUNT)] == list(range(CHUNK_COUNT))
    assert heap.lease(0) == -errno.ENOMEM


def test_a_released_chunk_is_leased_again_by_any_slot(heap: Heap) -> None:
    for _ in range(CHUNK_COUNT):
        heap.lease(0)
    heap.release(0, 5)
    assert heap.lease(1) == 5


def test_a_run_is_contiguous_and_all_or_none(heap: Heap) -> None:
    for _ in range(CHUNK_COUNT):
        heap.lease(0)
    for chunk in (2, 4, 5, 9, 10, 11):
        heap.release(0, chunk)
    assert heap.lease(1, run=4) == -errno.ENOMEM
    assert heap.lease(1, run=3) == 9
    assert heap.lease(1, run=2) == 4
    assert heap.lease(1) == 2


def test_releasing_a_run_frees_every_chunk_of_it(heap: Heap) -> None:
    assert heap.lease(0, run=CHUNK_COUNT) == 0
    heap.release(0, 0)
    assert heap.lease(1, run=CHUNK_COUNT) == 0


@pytest.mark.parametrize("run", [0, CHUNK_COUNT + 1, 0xFFFFFFFF])
def test_a_run_that_no_region_holds_is_refused(heap: Heap, run: int) -> None:
    assert heap.lease(0, run) == -errno.ENOMEM
    assert heap.lease(0) == 0


def test_the_last_run_ends_where_the_region_does(heap: Heap) -> None:
    assert heap.lease(0, run=CHUNK_COUNT - 2) == 0
    assert heap.lease(1, run=3) == -errno.ENOMEM
    assert heap.lease(1, run=2) == CHUNK_COUNT - 2


def test_a_run_for_a_jumbo_batch_never_begins_at_the_offset_that_means_none(heap: Heap) -> None:
    assert heap.lease(0, run=2, kind=JUMBO) == 1
    assert heap.lease(0) == 0


def test_committed_chunks_are_leased_before_fresh_ones(heap: Heap) -> None:
    for _ in range(4):
        heap.lease(0)
    heap.commit(0, 3, MIB)
    for chunk in range(4):
        heap.release(0, chunk)
    assert heap.lease(1) == 3
    assert heap.lease(1) == 0


def test_the_run_with_the_most_committed_memory_is_leased_first(heap: Heap) -> None:
    heap.lease(0, run=8)
    heap.commit(0, 0, PIECE_BYTES)
    heap.release(0, 0)
    assert heap.lease(0, run=6) == 0
    assert heap.lease(1, run=2) == 6
    heap.commit(1, 6, 2 * MIB)
    heap.release(0, 0)
    heap.release(1, 6)
    assert heap.lease(0, run=2) == 6


def test_releasing_keeps_memory_committed(heap: Heap) -> None:
    chunk = heap.lease(0)
    assert heap.commit(0, chunk, MIB) == 0
    heap.release(0, chunk)
    assert heap.committed_bytes == heap.allocated_bytes == MIB
    assert heap.lease(1) == chunk
    assert heap.commit(1, chunk, MIB) == 0
    assert heap.committed_bytes == heap.allocated_bytes == MIB


def test_a_lease_commits_nothing(heap: Heap) -> None:
    heap.lease(0, run=4)
    assert heap.committed_bytes == heap.allocated_bytes == 0


@pytest.mark.parametrize(
    ("upto_bytes", "committed_bytes"),
    [(0, 0), (1, PIECE_BYTES), (PIECE_BYTES, PIECE_BYTES), (PIECE_BYTES + 1, 2 * PIECE_BYTES), (MIB, MIB)],
)
def test_commit_gives_whole_pieces_and_says_so(heap: Heap, upto_bytes: int, committed_bytes: int) -> None:
    chunk = heap.lease(0)
    assert heap.commit(0, chunk, upto_bytes) == 0
    assert heap.commit(0, chunk, upto_bytes) == 0
    assert heap.committed_bytes == heap.allocated_bytes == committed_bytes


def test_commit_across_a_run_raises_each_chunk(heap: Heap) -> None:
    chunk = heap.lease(0, run=3)
    assert heap.commit(0, chunk, 2 * MIB + 1) == 0
    assert heap.committed_bytes == heap.allocated_bytes == 2 * MIB + PIECE_BYTES


def test_the_parent_is_woken_once_each_time_the_room_ahead_runs_low(wake_fd: int) -> None:
    with Heap(wake_fd=wake_fd) as heap:
        chunk = heap.lease(0)
        heap.commit(0, chunk, PIECE_BYTES)
        heap.used(0, chunk, 64)
        assert wakes(wake_fd) == 0
        for used_bytes in range(AHEAD_BYTES, PIECE_BYTES, 1024):
            heap.used(0, chunk, used_bytes)
        assert wakes(wake_fd) == 1
        assert heap.grow_ahead() > 0
        for used_bytes in range(PIECE_BYTES, PIECE_BYTES + AHEAD_BYTES // 2, 1024):
            heap.used(0, chunk, used_bytes)
        assert wakes(wake_fd) == 0
        while heap.grow_ahead():
            pass
        heap.commit(0, chunk, MIB)
        heap.used(0, chunk, MIB)
        assert wakes(wake_fd) == 0


def test_a_mark_that_falls_or_stays_wakes_nobody(wake_fd: int) -> None:
    with Heap(wake_fd=wake_fd) as heap:
        chunk = heap.lease(0)
        heap.used(0, chunk, 4096)
        assert wakes(wake_fd) == 1
        heap.used(0, chunk, 64)
        heap.used(0, chunk, 4096)
        assert wakes(wake_fd) == 0


def test_the_parent_keeps_twice_the_room_ahead_of_what_is_used(heap: Heap) -> None:
    chunk = heap.lease(0)
    heap.used(0, chunk, MIB // 2)
    assert heap.grow_ahead() == heap.committed_bytes == heap.allocated_bytes == MIB // 2 + 2 * AHEAD_BYTES
    assert heap.grow_ahead() == 0


def test_the_parent_grows_nothing_for_chunks_that_are_free_or_unused(heap: Heap) -> None:
    heap.lease(0)
    chunk = heap.lease(0)
    heap.used(0, chunk, 64)
    heap.release(0, chunk)
    assert heap.grow_ahead() == 0


def test_the_parent_stops_at_its_budget_and_goes_on_later(heap: Heap) -> None:
    chunk = heap.lease(0)
    heap.used(0, chunk, MIB // 2)
    assert heap.grow_ahead(budget_bytes=1) == PIECE_BYTES
    assert heap.grow_ahead(budget_bytes=1) == PIECE_BYTES
    assert heap.committed_bytes == 2 * PIECE_BYTES


def test_the_parent_goes_on_in_the_next_chunk_of_a_run(heap: Heap) -> None:
    chunk = heap.lease(0, run=2)
    heap.used(0, chunk, MIB - AHEAD_BYTES // 2)
    assert heap.grow_ahead() == MIB + 2 * PIECE_BYTES


def test_the_parent_grows_nothing_where_the_next_block_like_the_last_does_not_fit(wake_fd: int) -> None:
    with Heap(wake_fd=wake_fd) as heap:
        chunk = heap.lease(0)
        heap.used(0, chunk, 64)
        heap.grow_ahead()
        before, woken = heap.committed_bytes, wakes(wake_fd)
        heap.commit(0, chunk, MIB * 7 // 10)
        held = heap.committed_bytes
        heap.used(0, chunk, MIB * 7 // 10)
        assert (wakes(wake_fd), heap.grow_ahead()) == (0, 0)
        # Small ones do fit, and have what they need in time again.
        heap.used(0, chunk, MIB * 7 // 10 + 64)
        assert woken == 1
        assert heap.grow_ahead() > 0
        assert before < held < heap.committed_bytes


def test_the_parent_is_woken_for_small_blocks_after_one_that_was_not_worth_growing_for(wake_fd: int) -> None:
    with Heap(wake_fd=wake_fd) as heap:
        chunk = heap.lease(0)
        heap.used(0, chunk, 64)
        while heap.grow_ahead():
            pass
        assert wakes(wake_fd) == 1
        large_bytes = MIB * 7 // 10
        heap.commit(0, chunk, large_bytes)
        heap.used(0, chunk, large_bytes)
        assert wakes(wake_fd) == 0
        # The first small one says that it is worth it again. Nobody has looked yet, and nobody is told twice.
        for used_bytes in range(large_bytes + 1024, MIB * 3 // 4, 1024):
            heap.used(0, chunk, used_bytes)
        assert wakes(wake_fd) == 1
        assert heap.grow_ahead() > 0


def test_a_parent_that_looked_while_growing_was_not_worth_it_is_woken_again(wake_fd: int) -> None:
    with Heap(wake_fd=wake_fd) as heap:
        chunk = heap.lease(0)
        heap.commit(0, chunk, PIECE_BYTES)
        heap.used(0, chunk, PIECE_BYTES)
        assert wakes(wake_fd) == 1
        # It comes late, and what it finds is not what it was woken for.
        heap.used(0, chunk, MIB * 7 // 10)
        assert (wakes(wake_fd), heap.grow_ahead()) == (0, 0)
        heap.used(0, chunk, MIB * 7 // 10 + 64)
        assert wakes(wake_fd) == 1
        assert heap.grow_ahead() > 0


def test_blocks_after_a_large_one_in_its_chunk_wake_the_parent(wake_fd: int) -> None:
    with Heap(memory_bytes=64 * MIB, chunk_bytes=64 * MIB, wake_fd=wake_fd) as heap:
        assert heap.alloc(0, 36 * MIB)
        heap.grow_ahead()
        wakes(wake_fd)
        woken = 0
        for _ in range(26 * MIB // (64 << 10)):
            assert heap.alloc(0, (64 << 10) - 64)
            if wakes(wake_fd):
                woken += 1
                while heap.grow_ahead():
                    pass
        # It grows to twice what it keeps ahead, 4 MiB, and is woken again when half of that is used.
        assert 4 <= woken <= 7


def test_growing_ahead_leaves_what_is_there(heap: Heap) -> None:
    chunk = heap.lease(0)
    heap.commit(0, chunk, 64)
    heap.buffer(0, PIECE_BYTES)[:] = bytes(range(256)) * (PIECE_BYTES // 256)
    heap.used(0, chunk, PIECE_BYTES)
    assert heap.grow_ahead() > 0
    assert bytes(heap.buffer(0, PIECE_BYTES)) == bytes(range(256)) * (PIECE_BYTES // 256)
    assert bytes(heap.buffer(PIECE_BYTES, PIECE_BYTES)) == bytes(PIECE_BYTES)


def test_parent_and_holder_grow_one_chunk_at_once_and_count_it_once() -> None:
    chunk_bytes = 8 * MIB
    with Heap(memory_bytes=8 * chunk_bytes, chunk_bytes=chunk_bytes) as heap:
        chunks = [heap.lease(0) for _ in range(8)]
        done = threading.Event()

        def grow() -> None:
            while not done.is_set():
                heap.grow_ahead(PIECE_BYTES)

        parent = threading.Thread(target=grow)
        parent.start()
        try:
            for chunk in chunks:
                for upto_bytes in range(PIECE_BYTES // 2, chunk_bytes + 1, PIECE_BYTES // 2):
                    heap.used(0, chunk, upto_bytes)
                    assert heap.commit(0, chunk, upto_bytes) == 0
        finally:
            done.set()
            parent.join()
        assert heap.committed_bytes == heap.allocated_bytes == 8 * chunk_bytes


@pytest.mark.process
def test_slots_that_lease_at_once_never_hold_the_same_chunk_and_lose_none(tmp_path: Path) -> None:
    # In C, because Python's threads meet too seldom inside of a call.
    program = tmp_path / "lease_race"
    parts = (
        "tests/native/lease_race.c",
        "megaphone/shm/chunk.c",
        "megaphone/shm/huge.c",
        "megaphone/shm/park.c",
        "megaphone/shm/ring.c",
    )
    sources = [str(ROOT / part) for part in parts]
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-pthread", f"-I{ROOT / 'megaphone'}"]
    subprocess.run([os.environ.get("CC", "cc"), *flags, *sources, "-o", str(program)], check=True)
    ran = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "ok\n"), ran.stderr


FULL_FILE_SYSTEM = """
import errno, os, subprocess
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", "/dev/shm"], check=True)
from megaphone.shm import region
from megaphone.shm.limits import MIB
# The region is sparse: what is asked for here is more than the mount has, and nobody looks before it is needed.
region._refuse_what_is_not_there = lambda *_: None
from tests.native.heap import Heap
with Heap(memory_bytes=16 * MIB) as heap:
    chunk = heap.lease(0, run=8)
    assert heap.commit(0, chunk, 8 * MIB) == -errno.ENOSPC
    assert 2 * MIB <= heap.committed_bytes <= heap.allocated_bytes <= 4 * MIB
    heap.buffer(chunk * MIB, 2 * MIB)[:] = bytes(2 * MIB)
    heap.release(0, chunk)
    sizes = []
    while offset := heap.alloc(1, 300_000):
        heap.buffer(offset, 300_000)[:] = bytes(300_000)
        sizes.append(offset)
    heap.assert_sound()
    assert len(sizes) >= 6, sizes
    heap.free(1, sizes[0])
    assert heap.alloc(1, 300_000) == sizes[0]
print("survived")
"""


@pytest.mark.process
def test_a_full_dev_shm_is_an_error_number_and_not_a_dead_process() -> None:
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("private mounts need privileges that this user does not have")
    ran = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", FULL_FILE_SYSTEM], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "survived\n"), ran.stderr
