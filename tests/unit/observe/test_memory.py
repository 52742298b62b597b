"""Memory and machine: what is read from the kernel, and what happens when it has nothing to tell."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from megaphone.observe import memory
from megaphone.observe.machine import cpu_model, describe_machine, memory_info, shmem_huge_pages
from megaphone.observe.memory import MemoryWatch, pss_bytes, rss_bytes

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

MIB = 1 << 20


def test_pss_grows_with_the_pages_that_are_touched() -> None:
    before = pss_bytes(os.getpid())
    with mmap.mmap(-1, 16 * MIB) as pages:
        pages.write(b"\x01" * (16 * MIB))
        after = pss_bytes(os.getpid())
    assert before is not None
    assert after is not None
    assert after - before > 12 * MIB


def test_rss_of_this_process_is_at_least_a_page() -> None:
    resident = rss_bytes(os.getpid())
    assert resident is not None
    assert resident >= os.sysconf("SC_PAGE_SIZE")


def test_a_process_that_is_gone_counts_as_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert pss_bytes(child.pid) is None
    assert rss_bytes(child.pid) is None
    assert MemoryWatch([child.pid]).sample() == 0


def test_a_process_that_ended_but_was_not_waited_for_counts_as_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not pss_bytes(child.pid)
    child.wait()


def test_the_watch_adds_the_processes_up_and_keeps_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: dict[int, int | None] = {1: 100, 2: 50}
    monkeypatch.setattr(memory, "pss_bytes", sizes.get)
    watch = MemoryWatch(iter([1, 2]))
    assert watch.sample() == 150
    sizes[2] = None
    assert watch.sample() == 100
    assert (watch.pss_bytes_max, watch.samples) == (150, 2)


def test_the_machine_is_described_in_plain_values() -> None:
    machine = describe_machine()
    assert json.loads(json.dumps(machine)) == machine
    assert all(value not in ("", 0) for value in machine.values())


def test_files_of_the_kernel_are_read(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: Fast: 3 GHz\n")
    (tmp_path / "meminfo").write_text("MemTotal:  16 kB\nHugePages_Total:  0\nodd\n")
    (tmp_path / "shmem").write_text("always within_size [advise] never\n")
    assert cpu_model(tmp_path / "cpuinfo") == "Fast: 3 GHz"
    assert memory_info(tmp_path / "meminfo") == {"MemTotal": 16384}
    assert shmem_huge_pages(tmp_path / "shmem") == "advise"


def test_files_that_the_kernel_lacks_are_not_missed(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert cpu_model(missing)
    assert memory_info(missing) == {}
    assert shmem_huge_pages(missing) == "unknown"
