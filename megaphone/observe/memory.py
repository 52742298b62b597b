"""What a set of processes occupies together.

RSS counts a shared page once in every process that maps it, so it overstates a system whose data is all shared.  PSS
divides each page by the number of its mappings; over all processes of a run it adds up to what the run really costs.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_PSS = b"Pss:"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def pss_bytes(pid: int) -> int | None:
    """Return the proportional set size of one process, or None if it is gone or belongs to somebody else.

    Cost: the kernel walks the page tables of the process, about 1 ms for each 100 MB that it maps; not for hot paths.
    """
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_bytes()
    except OSError:
        return None
    for line in rollup.splitlines():
        if line.startswith(_PSS):
            return int(line.split()[1]) * 1024
    return None


def rss_bytes(pid: int) -> int | None:
    """Return the resident set size of one process, or None if it is gone; cheap, and counts shared pages in full."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_bytes().split()
    except OSError:
        return None
    return int(fields[1]) * _PAGE_BYTES if len(fields) > 1 else None


class MemoryWatch:
    """The peak of what a set of processes occupies, as far as it was sampled.

    Args:
        pids: the processes; those that have ended count as 0 from then on.
    """

    __slots__ = ("pids", "pss_bytes_max", "samples")

    def __init__(self, pids: Iterable[int]) -> None:
        self.pids = tuple(pids)
        self.pss_bytes_max = 0
        self.samples = 0

    def sample(self) -> int:
        """Return what the processes occupy now, in bytes (PSS), and remember the peak."""
        total = sum(pss_bytes(pid) or 0 for pid in self.pids)
        self.pss_bytes_max = max(self.pss_bytes_max, total)
        self.samples += 1
        return total
