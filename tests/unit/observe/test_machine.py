"""The machine: what is read from the kernel, and what happens when it has nothing to tell."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from megaphone.observe.machine import cpu_model, describe_machine, memory_info, shmem_huge_pages

if TYPE_CHECKING:
    from pathlib import Path


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
