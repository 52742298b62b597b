"""Regions and limits: nothing is left behind, nothing is unmapped under a view, and a shortage is one clear line."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import posix_ipc
import psutil
import pytest

from megaphone._core import ffi
from megaphone.errors import InternalError, SharedMemoryError, UsageError
from megaphone.shm import limits, region
from megaphone.shm.limits import GIB, KIB, MIB, Limits, default_memory_bytes, parse_size
from megaphone.shm.region import Region, What

PAGE_BYTES = 4096


def write(made: Region, offset: int, content: bytes) -> None:
    """Store bytes as C does."""
    ffi.memmove(made.pointer + offset, content, len(content))


def mapped_region_count() -> int:
    """Return how many mappings of nameless segments this process has."""
    return Path("/proc/self/maps").read_text().count("/megaphone-")


@pytest.mark.parametrize("what", ["control", "data"])
def test_a_new_region_is_zeroed_private_and_has_no_name(what: What) -> None:
    before = sorted(os.listdir("/dev/shm"))  # noqa: PTH208 - names alone
    with Region.create(MIB, what) as made:
        assert sorted(os.listdir("/dev/shm")) == before  # noqa: PTH208
        status = os.fstat(made.fd)
        assert (status.st_size, status.st_nlink, status.st_mode & 0o777) == (MIB, 0, 0o600)
        assert not os.get_inheritable(made.fd)
        assert bytes(ffi.buffer(made.pointer, MIB)) == bytes(MIB)


def test_the_control_region_is_committed_whole_and_the_data_region_is_sparse() -> None:
    with Region.create(MIB, "control") as control, Region.create(MIB, "data") as data:
        assert os.fstat(control.fd).st_blocks * 512 == MIB
        assert os.fstat(data.fd).st_blocks == 0


def test_what_c_writes_is_seen_through_the_read_only_mapping() -> None:
    with Region.create(MIB, "data") as made:
        write(made, 5000, b"here")
        assert bytes(made.view(5000, 4)) == b"here"
        assert ffi.buffer(made.view_pointer + 5000, 4)[:] == b"here"
        assert made.view_pointer != made.pointer


def test_a_view_is_read_only_for_good() -> None:
    with Region.create(MIB, "data") as made:
        array = np.frombuffer(made.view(0, 64), dtype=np.uint64)
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.setflags(write=True)


def test_the_control_region_has_no_read_only_mapping() -> None:
    with Region.create(MIB, "control") as made:
        assert made.view_pointer == ffi.NULL
        with pytest.raises(InternalError, match="control region"):
            made.view(0, 8)


@pytest.mark.parametrize(("offset", "size_bytes"), [(-1, 8), (0, -1), (MIB - 7, 8), (MIB + 1, 0)])
def test_a_view_beyond_the_region_is_refused(offset: int, size_bytes: int) -> None:
    with Region.create(MIB, "data") as made, pytest.raises(InternalError, match="no view"):
        made.view(offset, size_bytes)


def test_a_view_outlives_the_region_it_was_taken_from() -> None:
    made = Region.create(MIB, "data")
    write(made, 64, b"still here")
    array = np.frombuffer(made.view(64, 10), dtype=np.uint8)
    made.close()
    del made
    gc.collect()
    assert array.tobytes() == b"still here"


def test_what_is_held_keeps_the_mappings_for_pointers_of_c() -> None:
    made = Region.create(MIB, "data")
    write(made, 64, b"still here")
    address, held = made.pointer + 64, made.hold()
    made.close()
    gc.collect()
    assert ffi.buffer(address, 10)[:] == b"still here"
    del held


def test_closing_twice_is_once_and_a_closed_region_says_so() -> None:
    made = Region.create(MIB, "data")
    made.close()
    made.close()
    for use in (lambda: made.pointer, lambda: made.view_pointer, lambda: made.view(0, 1)):
        with pytest.raises(InternalError, match="closed"):
            use()


def test_a_hundred_regions_leave_no_descriptor_and_no_mapping() -> None:
    process = psutil.Process()
    descriptors, mappings = process.num_fds(), mapped_region_count()
    for _ in range(100):
        with Region.create(MIB, "control") as control, Region.create(MIB, "data") as data:
            write(control, 0, b"x")
            write(data, 0, b"x")
    gc.collect()
    assert (process.num_fds(), mapped_region_count()) == (descriptors, mappings)


ATTACH = """
import sys
from megaphone._core import ffi
from megaphone.shm.region import Region
with Region.attach(int(sys.argv[1]), int(sys.argv[2]), "data") as made:
    assert bytes(made.view(100, 6)) == b"parent"
    ffi.memmove(made.pointer + 200, b"child", 5)
    import os
    assert not os.get_inheritable(made.fd)
"""


@pytest.mark.process
def test_a_child_attaches_through_the_descriptor_it_was_passed() -> None:
    with Region.create(MIB, "data") as made:
        write(made, 100, b"parent")
        subprocess.run([sys.executable, "-c", ATTACH, str(made.fd), str(MIB)], pass_fds=[made.fd], check=True)
        assert bytes(made.view(200, 5)) == b"child"


def test_attaching_to_a_segment_of_another_length_is_refused() -> None:
    with Region.create(MIB, "data") as made, pytest.raises(InternalError, match="1048576 bytes where 2097152"):
        Region.attach(made.fd, 2 * MIB, "data")


def test_attaching_to_a_closed_descriptor_is_refused() -> None:
    with Region.create(MIB, "data") as made:
        fd = made.fd
    with pytest.raises(InternalError, match="not open"):
        Region.attach(fd, MIB, "data")


def assert_one_line_and_nothing_open(error: SharedMemoryError, descriptors_before: int) -> None:
    assert "\n" not in str(error)
    assert error.exit_code == 4
    assert psutil.Process().num_fds() == descriptors_before


def test_a_dev_shm_that_is_too_small_is_told_with_both_sizes_and_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    descriptors = psutil.Process().num_fds()
    monkeypatch.setattr(region, "free_bytes_of", lambda _: 64 * MIB)
    with pytest.raises(SharedMemoryError, match="needs 512 MiB, /dev/shm has 64 MiB free: lower --memory to 32") as got:
        Region.create(512 * MIB, "data")
    assert "--shm-size=1g" in str(got.value)
    assert_one_line_and_nothing_open(got.value, descriptors)


def test_a_dev_shm_too_small_for_any_run_is_not_met_with_advice_to_take_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(region, "free_bytes_of", lambda _: MIB)
    with pytest.raises(SharedMemoryError, match=r"free: make /dev/shm larger"):
        Region.create(512 * MIB, "data")


def test_a_machine_with_less_memory_than_asked_for_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    descriptors = psutil.Process().num_fds()
    monkeypatch.setattr(region, "memory_available_bytes", lambda: 100 * MIB)
    with pytest.raises(SharedMemoryError, match=r"needs 200 MiB, this machine has 100 MiB .* --memory to 50M") as got:
        Region.create(200 * MIB, "data")
    assert_one_line_and_nothing_open(got.value, descriptors)


def test_a_system_call_that_fails_is_told_as_a_shortage(monkeypatch: pytest.MonkeyPatch) -> None:
    descriptors = psutil.Process().num_fds()

    def no_space(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_space)
    with pytest.raises(SharedMemoryError, match=r"No space left on device.*--shm-size") as got:
        Region.create(MIB, "control")
    assert_one_line_and_nothing_open(got.value, descriptors)


def test_no_posix_shared_memory_at_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise posix_ipc.PermissionsError

    monkeypatch.setattr(posix_ipc, "SharedMemory", refuse)
    with pytest.raises(SharedMemoryError, match="is /dev/shm mounted and writable"):
        Region.create(MIB, "control")


@pytest.mark.parametrize(
    ("memory_bytes", "chunk_bytes", "slab_bytes"),
    [
        (8 * MIB, 1 * MIB, 64 * KIB),
        (64 * MIB, 1 * MIB, 64 * KIB),
        (127 * MIB, 1 * MIB, 64 * KIB),
        (128 * MIB, 2 * MIB, 128 * KIB),
        (GIB, 16 * MIB, MIB),
        (4 * GIB, 64 * MIB, MIB),
        (100 * GIB, 64 * MIB, MIB),
    ],
)
def test_chunks_and_slabs_shrink_with_the_memory(memory_bytes: int, chunk_bytes: int, slab_bytes: int) -> None:
    made = Limits.for_memory(memory_bytes)
    assert (made.memory_bytes, made.chunk_bytes, made.slab_bytes) == (memory_bytes, chunk_bytes, slab_bytes)


@pytest.mark.parametrize("memory_bytes", [8 * MIB + 1, 100_000_000, 3 * GIB - 1])
def test_memory_is_whole_chunks_and_not_more_than_asked_for(memory_bytes: int) -> None:
    made = Limits.for_memory(memory_bytes)
    assert made.memory_bytes == made.chunk_count * made.chunk_bytes
    assert memory_bytes - made.chunk_bytes < made.memory_bytes <= memory_bytes


@pytest.mark.parametrize("memory_bytes", [-1, 0, 1, 8 * MIB - 1])
def test_less_memory_than_two_slots_need_is_refused_with_the_least_size(memory_bytes: int) -> None:
    with pytest.raises(UsageError, match="raise --memory to 8M or more"):
        Limits.for_memory(memory_bytes)


def test_the_default_is_half_of_the_scarcest(monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        total = 100 * GIB
        available = 90 * GIB

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    for shm_free_bytes, expected_bytes in ((64 * MIB, 32 * MIB), (200 * GIB, 45 * GIB), (None, 45 * GIB)):
        monkeypatch.setattr(limits, "free_bytes_of", lambda _, free_bytes=shm_free_bytes: free_bytes)
        assert default_memory_bytes() == expected_bytes


def test_the_default_in_a_container_of_64_mb_serves_two_slots() -> None:
    assert Limits.for_memory(32 * MIB).chunk_count == 32


def test_free_bytes_are_unknown_where_there_is_no_such_folder() -> None:
    assert limits.free_bytes_of(Path("/no/such/folder")) is None


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("512M", 512 * MIB),
        ("2G", 2 * GIB),
        ("64MiB", 64 * MIB),
        ("64mb", 64 * MIB),
        (" 1.5 k ", 1536),
        ("1T", 1024 * GIB),
        ("4096", 4096),
        ("4096B", 4096),
        (4096, 4096),
        ("18014398509481985", 2**54 + 1),
    ],
)
def test_sizes_are_counts_of_bytes_or_have_a_unit(text: str | int, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "M", "12X", "-5M", "1e9", "nan", "inf", "1.2.3G", "0", "0.0001K", "٣M", "5 5", 0, -1, True]
)
def test_what_is_no_size_is_refused_in_one_line_that_names_it(text: str | int) -> None:
    with pytest.raises(UsageError) as got:
        parse_size(text, "--memory")
    assert repr(text) in str(got.value)
    assert "--memory" in str(got.value)
    assert "\n" not in str(got.value)
