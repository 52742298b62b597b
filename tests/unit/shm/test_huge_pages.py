"""Huge pages behind the data region: whole ones or none, and never less memory than the watermark says."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from megaphone._core import ffi, lib
from megaphone.errors import UsageError
from megaphone.shm.limits import HUGE_PAGES_VARIABLE, MIB, huge_pages_wanted
from megaphone.shm.region import HUGE_PAGE_BYTES, Region, huge_pages_are_granted
from tests.native.heap import PIECE_BYTES, Heap

CHUNK_BYTES = 4 * MIB
REFUSALS_MAX = 8
"""MP_HUGE_REFUSALS_MAX."""
GRANTED = huge_pages_are_granted()
needs_huge_pages = pytest.mark.skipif(not GRANTED, reason="this kernel grants no huge pages for shared memory")


def huge_bytes(heap: Heap) -> int:
    return int(lib.mp_huge_bytes(heap.control.pointer))


@needs_huge_pages
def test_a_commit_takes_whole_huge_pages_that_are_zero_and_exist() -> None:
    with Heap(memory_bytes=16 * MIB, chunk_bytes=CHUNK_BYTES, huge_pages=True) as heap:
        chunk = heap.lease(0)
        assert heap.commit(0, chunk, 1) == 0
        assert heap.committed_bytes == heap.allocated_bytes == huge_bytes(heap) == HUGE_PAGE_BYTES
        assert heap.commit(0, chunk, HUGE_PAGE_BYTES + 1) == 0
        assert heap.committed_bytes == heap.allocated_bytes == huge_bytes(heap) == 2 * HUGE_PAGE_BYTES
        assert not np.frombuffer(heap.data.view(0, CHUNK_BYTES), np.uint64).any()


@needs_huge_pages
def test_growing_ahead_takes_huge_pages_as_well() -> None:
    with Heap(memory_bytes=16 * MIB, chunk_bytes=CHUNK_BYTES, huge_pages=True) as heap:
        chunk = heap.lease(0)
        heap.used(0, chunk, 64)
        grown = heap.grow_ahead()
        assert grown == heap.committed_bytes == heap.allocated_bytes == huge_bytes(heap) == HUGE_PAGE_BYTES


@pytest.mark.parametrize("chunk_bytes", [MIB, CHUNK_BYTES])
def test_without_huge_pages_commits_are_pieces(chunk_bytes: int) -> None:
    # In chunks of 1 MiB no huge page fits, whether they are asked for or not.
    with Heap(memory_bytes=16 * MIB, chunk_bytes=chunk_bytes, huge_pages=chunk_bytes < HUGE_PAGE_BYTES) as heap:
        chunk = heap.lease(0)
        assert heap.commit(0, chunk, 1) == 0
        assert heap.committed_bytes == heap.allocated_bytes == PIECE_BYTES
        assert huge_bytes(heap) == 0


def test_where_no_huge_page_fits_memory_is_given_in_pieces_and_soon_not_asked_for() -> None:
    with Heap(memory_bytes=64 * MIB, chunk_bytes=CHUNK_BYTES, huge_pages=True) as heap:
        # A mapping that lies across huge pages: the kernel would grant nothing, and report that as done.
        room, ahead_bytes = mmap.mmap(-1, 80 * MIB), CHUNK_BYTES // 4 + PIECE_BYTES
        begin = ffi.from_buffer(room)
        across = begin + (-int(ffi.cast("uintptr_t", begin)) % HUGE_PAGE_BYTES + 4096)
        for count in range(1, REFUSALS_MAX + 1):
            heap.used(0, heap.lease(0), 64)
            # Twice what is kept ahead, and no more: the kernel's success meant nothing.
            assert lib.mp_chunks_grow_ahead(heap.control.pointer, across, heap.data.fd, 1 << 40) == ahead_bytes
            assert heap.committed_bytes == heap.allocated_bytes == count * ahead_bytes
            assert huge_bytes(heap) == 0
        # Given up: a mapping in which one fits is not asked for either.
        assert heap.commit(0, heap.lease(0), 1) == 0
        assert huge_bytes(heap) == 0


@needs_huge_pages
def test_in_the_timed_part_of_a_run_a_slot_takes_a_piece_and_only_what_is_ahead_of_need_is_huge() -> None:
    with Heap(memory_bytes=16 * MIB, chunk_bytes=CHUNK_BYTES, huge_pages=True) as heap:
        lib.mp_origin_set(heap.control.pointer, 1)
        chunk = heap.lease(0)
        assert heap.commit(0, chunk, 1) == 0
        assert heap.committed_bytes == heap.allocated_bytes == PIECE_BYTES
        assert huge_bytes(heap) == 0
        heap.used(0, chunk, HUGE_PAGE_BYTES)
        heap.grow_ahead()
        assert huge_bytes(heap) == HUGE_PAGE_BYTES
        assert heap.committed_bytes == heap.allocated_bytes == 2 * HUGE_PAGE_BYTES


@needs_huge_pages
@pytest.mark.parametrize(
    ("origin_ns", "took_ns", "asked"), [(1, 2_000_000, False), (1, 900_000, True), (0, 2_000_000, True)]
)
def test_after_a_page_that_was_dear_in_the_timed_part_nobody_asks(origin_ns: int, took_ns: int, *, asked: bool) -> None:
    with Heap(memory_bytes=16 * MIB, chunk_bytes=CHUNK_BYTES, huge_pages=True) as heap:
        if origin_ns:
            lib.mp_origin_set(heap.control.pointer, origin_ns)
        lib.mp_huge_took(heap.control.pointer, took_ns)
        heap.used(0, heap.lease(0), 64)
        heap.grow_ahead()
        assert huge_bytes(heap) == (HUGE_PAGE_BYTES if asked else 0)


@needs_huge_pages
def test_two_growers_count_a_huge_page_once() -> None:
    with Heap(memory_bytes=16 * MIB, chunk_bytes=CHUNK_BYTES, huge_pages=True) as heap:
        chunk = heap.lease(0)
        at = ffi.cast("char *", heap.data.pointer) + chunk * CHUNK_BYTES
        os.posix_fallocate(heap.data.fd, chunk * CHUNK_BYTES, 4096)
        assert lib.mp_huge_request(at) == 1  # what the other one has asked for, before it raises the watermark
        np.frombuffer(ffi.buffer(at, HUGE_PAGE_BYTES), np.uint64)[:] = 7
        assert heap.commit(0, chunk, 1) == 0
        assert huge_bytes(heap) == heap.committed_bytes == HUGE_PAGE_BYTES
        assert (np.frombuffer(ffi.buffer(at, HUGE_PAGE_BYTES), np.uint64) == 7).all()


@pytest.mark.parametrize("size_bytes", [MIB, 3 * MIB, 64 * MIB])
def test_a_region_is_mapped_where_huge_pages_fit(size_bytes: int) -> None:
    with Region.create(size_bytes, "data") as region:
        assert int(ffi.cast("uintptr_t", region.pointer)) % HUGE_PAGE_BYTES == 0
        assert int(ffi.cast("uintptr_t", region.view_pointer)) % HUGE_PAGE_BYTES == 0


def test_mapping_leaves_no_room_behind() -> None:
    def mapped_bytes() -> int:
        with open("/proc/self/statm") as statm:  # noqa: PTH123 - one line of the kernel's
            return int(statm.read().split()[0]) * 4096

    def make() -> None:
        with Region.create(64 * MIB, "data"):
            pass

    make()
    before = mapped_bytes()
    for _ in range(16):
        make()
    assert mapped_bytes() - before < 64 * MIB


@pytest.mark.parametrize(("said", "wanted"), [(None, True), ("ask", True), ("never", False)])
def test_the_variable_decides_whether_a_run_asks(
    monkeypatch: pytest.MonkeyPatch, said: str | None, *, wanted: bool
) -> None:
    monkeypatch.delenv(HUGE_PAGES_VARIABLE, raising=False)
    if said is not None:
        monkeypatch.setenv(HUGE_PAGES_VARIABLE, said)
    assert huge_pages_wanted() is wanted


def test_any_other_word_is_refused_with_the_words_that_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HUGE_PAGES_VARIABLE, "yes")
    with pytest.raises(UsageError, match=r"MEGAPHONE_HUGE_PAGES='yes': use ask .* or never"):
        huge_pages_wanted()


@needs_huge_pages
@pytest.mark.process
def test_a_run_has_its_batches_in_huge_pages_unless_it_is_told_not_to() -> None:
    def run(said: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "megaphone", "exchange", "--records", "500000", "--memory", "256M",
                   "--format", "json"]  # fmt: skip
        done = subprocess.run(
            command, env=os.environ | {HUGE_PAGES_VARIABLE: said}, capture_output=True, text=True, check=True
        )
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    asked, never = run("ask"), run("never")
    assert never["memory"]["huge_bytes"] == 0
    assert asked["memory"]["huge_bytes"] >= 2 * HUGE_PAGE_BYTES
    assert asked["memory"]["huge_bytes"] <= asked["memory"]["committed_bytes"]
    assert asked["checksum_outputs"] == never["checksum_outputs"]
