"""Memory that grows ahead of need: in time, at a lower priority than the caller's, and not after its end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from megaphone._core import lib
from megaphone.dataflow import grower as module
from megaphone.dataflow.grower import NICENESS, Grower
from tests.native.heap import Heap

MIB = 1 << 20
PATIENCE_SECONDS = 20
CHUNK = 16 * MIB
AHEAD = CHUNK // 8
"""What is kept committed beyond what is used: mp_chunk_ahead."""


@pytest.fixture
def heap() -> Iterator[Heap]:
    wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        with Heap(memory_bytes=64 * MIB, chunk_bytes=CHUNK, wake_fd=wake_fd) as heap:
            heap.wake_fd = wake_fd  # type: ignore[attr-defined]
            yield heap
    finally:
        os.close(wake_fd)


def grower_of(heap: Any) -> Grower:
    memory = SimpleNamespace(
        control=heap.control.pointer, data=heap.data.pointer, data_fd=heap.data.fd, wake_fd=heap.wake_fd
    )
    return Grower(memory)  # type: ignore[arg-type]


def committed(heap: Heap) -> int:
    return int(lib.mp_committed_bytes(heap.control.pointer))


def wait_for(heap: Heap, least: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while committed(heap) < least:
        assert time.monotonic() < deadline, f"{committed(heap)} of {least} bytes"
        time.sleep(0.002)


def test_what_a_slot_nears_the_end_of_grows_without_its_doing(heap: Heap) -> None:
    grower = grower_of(heap)
    try:
        chunk = heap.lease(0)
        heap.commit(0, chunk, 100)
        heap.used(0, chunk, 100)  # wakes
        wait_for(heap, AHEAD)
        before = committed(heap)
        heap.used(0, chunk, before - AHEAD // 2)
        wait_for(heap, before + AHEAD // 2)
    finally:
        grower.end()


def test_it_gives_way_and_whoever_made_it_does_not(heap: Heap) -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    grower = grower_of(heap)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        assert grower.native_id is not None
        while os.getpriority(os.PRIO_PROCESS, grower.native_id) != min(19, before + NICENESS):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        assert os.getpriority(os.PRIO_PROCESS, 0) == before
    finally:
        grower.end()
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


def test_signals_are_left_to_the_thread_that_made_it(heap: Heap) -> None:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    grower = grower_of(heap)
    try:
        status = Path(f"/proc/self/task/{grower.native_id}/status").read_text().splitlines()
        blocked = int(next(line for line in status if line.startswith("SigBlk")).split()[1], 16)
        for number in (signal.SIGINT, signal.SIGTERM):
            assert blocked >> number - 1 & 1
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask
    finally:
        grower.end()


def test_after_its_end_nothing_grows_and_another_end_does_nothing(heap: Heap) -> None:
    descriptors = len([*Path("/proc/self/fd").iterdir()])
    grower = grower_of(heap)
    grower.end()
    grower.end()
    assert len([*Path("/proc/self/fd").iterdir()]) == descriptors
    chunk = heap.lease(0)
    heap.commit(0, chunk, 100)
    before = committed(heap)
    heap.used(0, chunk, 100)
    time.sleep(0.05)
    assert committed(heap) == before


def test_where_the_system_refuses_a_lower_priority_memory_grows_at_the_callers(
    heap: Heap, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    refused = threading.Event()

    def refuse(*_: int) -> None:
        refused.set()
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setpriority", refuse)
    grower = grower_of(heap)
    try:
        chunk = heap.lease(0)
        heap.commit(0, chunk, 100)
        heap.used(0, chunk, 100)
        wait_for(heap, AHEAD)
    finally:
        grower.end()
    assert refused.is_set()
    assert grower.error is None
    assert capfd.readouterr() == ("", "")


def test_without_a_thread_there_is_no_growing_ahead_and_nothing_is_left_behind(
    heap: Heap, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    descriptors = len([*Path("/proc/self/fd").iterdir()])
    monkeypatch.setattr(threading.Thread, "start", refuse)
    grower = grower_of(heap)
    assert grower.native_id is None
    assert len([*Path("/proc/self/fd").iterdir()]) == descriptors
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask
    grower.wake()
    grower.end()
    assert grower.error is None
    assert len([*Path("/proc/self/fd").iterdir()]) == descriptors


def test_a_start_that_is_interrupted_leaves_no_descriptor(heap: Heap, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: threading.Thread) -> None:
        raise KeyboardInterrupt

    descriptors = len([*Path("/proc/self/fd").iterdir()])
    monkeypatch.setattr(threading.Thread, "start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        grower_of(heap)
    assert len([*Path("/proc/self/fd").iterdir()]) == descriptors


def test_what_ends_the_thread_is_kept_for_whoever_made_it(
    heap: Heap, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    failure = ValueError("the core is wrong")

    def fail(*_: Any) -> int:
        raise failure

    monkeypatch.setattr(module, "lib", SimpleNamespace(mp_chunks_grow_ahead=fail))
    grower = grower_of(heap)
    try:
        grower.wake()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while grower.error is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        grower.end()
    assert grower.error is failure
    assert capfd.readouterr() == ("", "")
