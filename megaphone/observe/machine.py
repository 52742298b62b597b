"""What a figure was measured on; every report names it, because no figure means anything without."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy as np

SHMEM_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")


def describe_machine() -> dict[str, str | int]:
    """Return the machine by name: plain strings and integers, ready for JSON; sizes in bytes."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count() or 1,
        "cores_usable": len(os.sched_getaffinity(0)),
        "memory_bytes": memory_info().get("MemTotal", 0),
        "kernel": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "numpy": np.__version__,
        "page_bytes": os.sysconf("SC_PAGE_SIZE"),
        "shmem_huge_pages": shmem_huge_pages(),
    }


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's name; the architecture where the kernel gives none (as on many ARM machines)."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()


def memory_info(meminfo: Path = Path("/proc/meminfo")) -> dict[str, int]:
    """Return the kernel's figures on memory by their names there, in bytes; empty where there are none."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return {}
    sizes = {}
    for line in lines:
        name, _, rest = line.partition(":")
        fields = rest.split()
        if len(fields) == 2 and fields[1] == "kB":
            sizes[name] = int(fields[0]) * 1024
    return sizes


def shmem_huge_pages(setting: Path = SHMEM_HUGE_PAGES) -> str:
    """Return the kernel's choice for huge pages in shared memory (``never``, ``advise``, ...), or ``unknown``."""
    try:
        words = setting.read_text().split()
    except OSError:
        return "unknown"
    return next((word[1:-1] for word in words if word.startswith("[")), "unknown")
