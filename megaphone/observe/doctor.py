"""What this machine offers, what a run would get of it, and what to do where that is too little."""

from __future__ import annotations

import os
import platform
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from megaphone.observe.machine import memory_info, shmem_huge_pages
from megaphone.observe.units import format_bytes, format_count
from megaphone.shm.region import huge_pages_are_granted

if TYPE_CHECKING:
    from collections.abc import Mapping

SHM_FOLDER = Path("/dev/shm")
CGROUP_MEMORY_MAX = Path("/sys/fs/cgroup/memory.max")

MEMORY_BYTES_MIN = 128 << 20
"""Below this the defaults still run, but only small jobs (64 MB, the default of containers, is the common case)."""
OPEN_FILES_MIN = 256
PYTHON_MIN = (3, 11)
KERNEL_MIN = (5, 14)
"""The first kernel with MADV_POPULATE_READ, by which state is warmed before it moves."""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What was found; sizes in bytes, None where the system does not tell or has no limit."""

    system: str
    kernel: str
    python: tuple[int, int, int]
    cores: int
    cores_usable: int
    shm_bytes: int | None
    shm_bytes_free: int | None
    memory_bytes: int | None
    memory_bytes_available: int | None
    cgroup_bytes_max: int | None
    locked_bytes_max: int | None
    open_files_max: int | None
    shmem_huge_pages: str
    huge_pages_granted: bool

    @classmethod
    def gather(cls) -> HostFacts:
        """Look at the machine that this runs on; changes nothing."""
        shm_bytes, shm_bytes_free = _file_system_bytes(SHM_FOLDER)
        memory = memory_info()
        return cls(
            system=platform.system(),
            kernel=platform.release(),
            python=sys.version_info[:3],
            cores=os.cpu_count() or 1,
            cores_usable=len(os.sched_getaffinity(0)),
            shm_bytes=shm_bytes,
            shm_bytes_free=shm_bytes_free,
            memory_bytes=memory.get("MemTotal"),
            memory_bytes_available=memory.get("MemAvailable"),
            cgroup_bytes_max=_cgroup_bytes_max(),
            locked_bytes_max=_soft_limit(resource.RLIMIT_MEMLOCK),
            open_files_max=_soft_limit(resource.RLIMIT_NOFILE),
            shmem_huge_pages=shmem_huge_pages(),
            huge_pages_granted=huge_pages_are_granted(),
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination; ``cure`` is empty where nothing is wrong."""

    topic: str
    text: str
    cure: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is nothing to do."""
        return not self.cure


def examine(limits: Mapping[str, int], facts: HostFacts) -> list[Finding]:
    """Return what was found, in the order in which it matters.

    Args:
        limits: what a run would get by default: ``memory_bytes``, ``chunk_bytes``, ``slab_bytes``, ``ring_cells`` and
            ``slots_max`` (the fields of the run's limits, as `dataclasses.asdict` gives them).
        facts: the machine.
    """
    return [
        _shared_memory(facts),
        _available_memory(limits, facts),
        _cores(facts),
        _kernel(facts),
        _python(facts),
        _open_files(facts),
        _locked_memory(facts),
        _huge_pages(facts),
        _default_memory(limits),
        Finding("chunk", f"{format_bytes(limits['chunk_bytes'])}, leased whole to a worker"),
        Finding("slab", f"{format_bytes(limits['slab_bytes'])}, the longest piece of a batch that lies in one place"),
        Finding("ring", f"{format_count(limits['ring_cells'])} cells for each ordered pair of workers"),
        Finding("workers", f"{limits['slots_max']} at most"),
    ]


def doctor_lines(limits: Mapping[str, int], facts: HostFacts | None = None) -> list[str]:
    """Return the examination as text: ``ok`` or ``warn``, the topic, what was found; a warning's cure below it.

    Args:
        limits: see `examine`.
        facts: the machine; this one if omitted.
    """
    findings = examine(limits, facts or HostFacts.gather())
    width = max(len(finding.topic) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{'ok' if finding.ok else 'warn':<4}  {finding.topic:<{width}}  {finding.text}")
        if finding.cure:
            lines.append(f"{'':<4}  {'':<{width}}  cure: {finding.cure}")
    return lines


def _shared_memory(facts: HostFacts) -> Finding:
    """Judge the file system that shared memory lies in."""
    topic = "shared memory"
    if facts.shm_bytes is None or facts.shm_bytes_free is None:
        return Finding(topic, f"{SHM_FOLDER} is not there", f"mount it: mount -t tmpfs -o size=2g tmpfs {SHM_FOLDER}")
    text = f"{format_bytes(facts.shm_bytes)} in {SHM_FOLDER}, {format_bytes(facts.shm_bytes_free)} free"
    if facts.shm_bytes < 2 * MEMORY_BYTES_MIN:
        cure = f"mount -o remount,size=2g {SHM_FOLDER}, or start the container with --shm-size=2g"
        return Finding(topic, text, cure)
    if facts.shm_bytes_free < 2 * MEMORY_BYTES_MIN:
        return Finding(topic, text, f"something fills it: look with ls -l {SHM_FOLDER} and remove what nobody uses")
    return Finding(topic, text)


def _available_memory(limits: Mapping[str, int], facts: HostFacts) -> Finding:
    """Judge whether the memory that a run may take is really there; shared memory is memory."""
    topic = "memory"
    if facts.memory_bytes is None or facts.memory_bytes_available is None:
        return Finding(topic, "the kernel does not tell", "give --memory by hand, at most half of what is free")
    text = f"{format_bytes(facts.memory_bytes_available)} available of {format_bytes(facts.memory_bytes)}"
    usable = facts.memory_bytes_available
    if facts.cgroup_bytes_max is not None and facts.cgroup_bytes_max < facts.memory_bytes:
        text += f", this container may use {format_bytes(facts.cgroup_bytes_max)}"
        usable = min(usable, facts.cgroup_bytes_max)
    if limits["memory_bytes"] > usable:
        cure = (
            f"a run may take {format_bytes(limits['memory_bytes'])}: give --memory, at most {format_bytes(usable // 2)}"
        )
        return Finding(topic, text, cure)
    return Finding(topic, text)


def _cores(facts: HostFacts) -> Finding:
    """Judge how many workers can run at once."""
    text = f"{facts.cores_usable} of {facts.cores} usable"
    if facts.cores_usable < min(2, facts.cores):
        return Finding("cores", text, "workers will take turns: lift the affinity (taskset) or the container's limit")
    if facts.cores_usable < 2:
        return Finding("cores", text, "workers will take turns on one core: use -w 1, or a machine with more cores")
    return Finding("cores", text)


def _kernel(facts: HostFacts) -> Finding:
    """Judge the operating system."""
    text = f"{facts.system} {facts.kernel}"
    if facts.system != "Linux":
        return Finding("kernel", text, "shared memory, futexes and pidfds are used as Linux has them: run it there")
    if _version(facts.kernel) < KERNEL_MIN:
        return Finding("kernel", text, "state cannot be warmed before it moves: use 5.14 or newer")
    return Finding("kernel", text)


def _python(facts: HostFacts) -> Finding:
    """Judge the interpreter."""
    text = ".".join(map(str, facts.python))
    return Finding("python", text, "" if facts.python[:2] >= PYTHON_MIN else "use Python 3.11 or newer")


def _open_files(facts: HostFacts) -> Finding:
    """Judge the limit on descriptors: every process holds two regions, its pipes and a pidfd for each worker."""
    if facts.open_files_max is None:
        return Finding("open files", "no limit")
    text = f"{format_count(facts.open_files_max)} for each process"
    return Finding("open files", text, "" if facts.open_files_max >= OPEN_FILES_MIN else "ulimit -n 1024")


def _locked_memory(facts: HostFacts) -> Finding:
    """Tell the limit on locked memory; nothing here locks any, but who compares machines wants to know."""
    limit = "no limit" if facts.locked_bytes_max is None else format_bytes(facts.locked_bytes_max)
    return Finding("locked memory", f"{limit}; runs lock none")


def _huge_pages(facts: HostFacts) -> Finding:
    """Tell whether shared memory may come in huge pages: by the kernel's own choice, and when a run asks for them."""
    setting = facts.shmem_huge_pages
    text = f"{setting} for shared memory, {'granted' if facts.huge_pages_granted else 'refused'} when a run asks"
    if setting in ("always", "force"):
        cure = "pages of 2 MiB count as used when touched: set never or advise, or expect a larger PSS"
        return Finding("huge pages", text, cure)
    return Finding("huge pages", text)


def _default_memory(limits: Mapping[str, int]) -> Finding:
    """Judge what a run would get if it asks for nothing."""
    text = f"{format_bytes(limits['memory_bytes'])} for a run by default"
    if limits["memory_bytes"] < MEMORY_BYTES_MIN:
        cure = (
            f"only small jobs will fit: free or enlarge {SHM_FOLDER} to at least {format_bytes(2 * MEMORY_BYTES_MIN)}"
        )
        return Finding("default", text, cure)
    return Finding("default", text)


def _file_system_bytes(folder: Path) -> tuple[int | None, int | None]:
    """Return size and free space of the file system that ``folder`` is in; (None, None) if it is not there."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None, None
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def _cgroup_bytes_max() -> int | None:
    """Return the memory limit of the container that this runs in, or None if there is none."""
    try:
        text = CGROUP_MEMORY_MAX.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _soft_limit(kind: int) -> int | None:
    """Return one resource limit, or None if it is unlimited."""
    soft, _ = resource.getrlimit(kind)
    return None if soft == resource.RLIM_INFINITY else soft


def _version(release: str) -> tuple[int, ...]:
    """Return the first two numbers of a kernel's release."""
    numbers = []
    for part in release.split(".")[:2]:
        digits = "".join(character for character in part if character.isdigit())
        numbers.append(int(digits) if digits else 0)
    return tuple(numbers)
