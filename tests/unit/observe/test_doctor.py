"""The doctor: every trouble has a cure, and a good machine gets no advice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from megaphone.observe import doctor
from megaphone.observe.doctor import HostFacts, doctor_lines, examine

GIB = 1 << 30
MIB = 1 << 20

LIMITS = {
    "memory_bytes": 4 * GIB,
    "chunk_bytes": 64 * MIB,
    "slab_bytes": MIB,
    "ring_cells": 1024,
    "slots_max": 64,
}
GOOD = HostFacts(
    system="Linux",
    kernel="6.1.0-13-amd64",
    python=(3, 11, 7),
    cores=8,
    cores_usable=8,
    shm_bytes=8 * GIB,
    shm_bytes_free=8 * GIB,
    memory_bytes=16 * GIB,
    memory_bytes_available=12 * GIB,
    cgroup_bytes_max=None,
    locked_bytes_max=8 * MIB,
    open_files_max=1024,
    shmem_huge_pages="never",
    huge_pages_granted=True,
)


def warned_topics(facts: HostFacts, limits: dict[str, int] | None = None) -> list[str]:
    """Return what the doctor warns of."""
    return [finding.topic for finding in examine(limits or LIMITS, facts) if not finding.ok]


def test_a_good_machine_gets_no_warning() -> None:
    assert warned_topics(GOOD) == []
    assert all(line.startswith("ok    ") for line in doctor_lines(LIMITS, GOOD))


@pytest.mark.parametrize(
    ("facts", "topic", "cure"),
    [
        (replace(GOOD, shm_bytes=None, shm_bytes_free=None), "shared memory", "mount -t tmpfs"),
        (replace(GOOD, shm_bytes=64 * MIB, shm_bytes_free=64 * MIB), "shared memory", "--shm-size"),
        (replace(GOOD, shm_bytes_free=MIB), "shared memory", "something fills it"),
        (replace(GOOD, memory_bytes_available=GIB), "memory", "--memory, at most 512 MiB"),
        (replace(GOOD, cgroup_bytes_max=2 * GIB), "memory", "--memory, at most 1.0 GiB"),
        (replace(GOOD, memory_bytes=None), "memory", "--memory by hand"),
        (replace(GOOD, cores_usable=1), "cores", "taskset"),
        (replace(GOOD, cores=1, cores_usable=1), "cores", "-w 1"),
        (replace(GOOD, system="Darwin"), "kernel", "Linux"),
        (replace(GOOD, kernel="5.4.0-generic"), "kernel", "5.14"),
        (replace(GOOD, python=(3, 10, 1)), "python", "3.11"),
        (replace(GOOD, open_files_max=64), "open files", "ulimit -n"),
        (replace(GOOD, shmem_huge_pages="always"), "huge pages", "advise"),
    ],
)
def test_every_trouble_is_warned_of_once_with_its_cure(facts: HostFacts, topic: str, cure: str) -> None:
    assert warned_topics(facts) == [topic]
    lines = doctor_lines(LIMITS, facts)
    position = next(index for index, line in enumerate(lines) if line.startswith("warn"))
    assert topic in lines[position]
    assert cure in lines[position + 1]
    assert sum("cure:" in line for line in lines) == 1


@pytest.mark.parametrize(
    "facts",
    [
        replace(GOOD, open_files_max=None),
        replace(GOOD, locked_bytes_max=None),
        replace(GOOD, cgroup_bytes_max=1 << 62),
        replace(GOOD, kernel="5.14.0"),
        replace(GOOD, kernel="6.x-odd"),
        replace(GOOD, shmem_huge_pages="unknown"),
        replace(GOOD, huge_pages_granted=False),
    ],
)
def test_no_limit_is_no_trouble(facts: HostFacts) -> None:
    assert warned_topics(facts) == []


def test_a_small_default_is_warned_of() -> None:
    assert warned_topics(GOOD, {**LIMITS, "memory_bytes": 32 * MIB}) == ["default"]


def test_what_a_run_would_get_is_told() -> None:
    text = "\n".join(doctor_lines(LIMITS, GOOD))
    for part in ("4.0 GiB for a run", "64.0 MiB, leased", "1.0 MiB, the longest", "1,024 cells", "64 at most"):
        assert part in text


def test_this_machine_can_be_examined() -> None:
    facts = HostFacts.gather()
    assert facts.system == "Linux"
    assert facts.cores_usable >= 1
    assert len(doctor_lines(LIMITS)) >= 13


def test_a_machine_without_the_usual_files_is_examined_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    missing = tmp_path_factory.getbasetemp() / "missing"
    monkeypatch.setattr(doctor, "SHM_FOLDER", missing)
    monkeypatch.setattr(doctor, "CGROUP_MEMORY_MAX", missing)
    facts = HostFacts.gather()
    assert (facts.shm_bytes, facts.cgroup_bytes_max) == (None, None)
