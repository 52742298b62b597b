"""How much memory a run takes, and into what pieces it is cut: decided by the parent before anything is mapped.

The data region is cut into chunks, which slots lease; batches lie in slabs, which are cut from chunks.  Both shrink
with the memory, so that the 64 MB of /dev/shm that a container has by default still serve two workers.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import psutil

from megaphone.errors import UsageError

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

SHM_FOLDER = Path("/dev/shm")
CHUNK_BYTES_MAX = 64 * MIB
CHUNK_BYTES_MIN = 1 * MIB
CHUNKS_AIM = 64
"""Chunks that a small memory is cut into; a large one has more, because chunks do not grow beyond their maximum."""
SLAB_BYTES_MAX = 1 * MIB
SLABS_PER_CHUNK_MIN = 16
SLOTS_MAX = 64
RING_CELLS = 1024

CHUNKS_PER_SLOT_MIN = 4
"""A slot fills one chunk with batches while its peers read another, and a store grows from one chunk into another."""
MEMORY_BYTES_MIN = 2 * CHUNKS_PER_SLOT_MIN * CHUNK_BYTES_MIN
MEMORY_BYTES_MAX = 256 * GIB
"""Offsets in messages are 32 bits in units of 64 bytes."""

HUGE_PAGES_VARIABLE = "MEGAPHONE_HUGE_PAGES"

_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?:(?P<unit>[kmgt])(?:i?b)?|b)?", re.IGNORECASE | re.ASCII)
_UNIT_BYTES = {"": 1, "k": KIB, "m": MIB, "g": GIB, "t": 1024 * GIB}


@dataclass(frozen=True, slots=True)
class Limits:
    """The sizes of a run; the C core's ``mp_limits`` takes them with what the dataflow adds.

    Attributes:
        memory_bytes: size of the data region, whole chunks.
        chunk_bytes: what slots lease, a power of two.
        slab_bytes: what batches share, a power of two.
        ring_cells: cells of each ring, a power of two.
        slots_max: slots that the layout has room for.
    """

    memory_bytes: int
    chunk_bytes: int
    slab_bytes: int
    ring_cells: int = RING_CELLS
    slots_max: int = SLOTS_MAX

    @classmethod
    def for_memory(cls, memory_bytes: int) -> Limits:
        """Cut a data region of about this size; what is over after the last whole chunk is not taken.

        Args:
            memory_bytes: size wished for.

        Raises:
            UsageError: two slots cannot work in so little; the message has the least size.

        >>> Limits.for_memory(100 * MIB + 1)
        Limits(memory_bytes=104857600, chunk_bytes=1048576, slab_bytes=65536, ring_cells=1024, slots_max=64)
        """
        if memory_bytes < MEMORY_BYTES_MIN:
            message = (
                f"{format_size(memory_bytes)} of memory, and two workers need {format_size(MEMORY_BYTES_MIN)}: "
                f"raise --memory to {MEMORY_BYTES_MIN // MIB}M or more"
            )
            raise UsageError(message)
        chunk_bytes = min(CHUNK_BYTES_MAX, max(CHUNK_BYTES_MIN, _power_of_two_below(memory_bytes // CHUNKS_AIM)))
        return cls(
            memory_bytes=memory_bytes // chunk_bytes * chunk_bytes,
            chunk_bytes=chunk_bytes,
            slab_bytes=min(SLAB_BYTES_MAX, chunk_bytes // SLABS_PER_CHUNK_MIN),
        )

    @property
    def chunk_count(self) -> int:
        """Chunks in the data region."""
        return self.memory_bytes // self.chunk_bytes


def huge_pages_wanted() -> bool:
    """Return whether a run asks for huge pages behind its data region, as MEGAPHONE_HUGE_PAGES says.

    Raises:
        UsageError: the variable is neither ``ask`` nor ``never``.
    """
    said = os.environ.get(HUGE_PAGES_VARIABLE, "ask")
    if said not in ("ask", "never"):
        message = f"{HUGE_PAGES_VARIABLE}={said!r}: use ask (the default) or never"
        raise UsageError(message)
    return said == "ask"


def default_memory_bytes() -> int:
    """Return what a run takes when nobody says: half of what /dev/shm has free, and of what the machine can give.

    Returns:
        Bytes: at most half of all memory, at most half of what is available, not yet rounded to chunks; where there
        is no /dev/shm, half of what is available, and creating the region explains.
    """
    memory = psutil.virtual_memory()
    shm_free_bytes = free_bytes_of(SHM_FOLDER)
    bounds = [memory.total, memory.available]
    if shm_free_bytes is not None:
        bounds.append(shm_free_bytes)
    return min(int(min(bounds)) // 2, MEMORY_BYTES_MAX)


def memory_available_bytes() -> int:
    """Return how much the machine can give without swapping: the kernel's MemAvailable, in bytes."""
    return int(psutil.virtual_memory().available)


def free_bytes_of(where: Path | int) -> int | None:
    """Return the free bytes of the file system of a path or descriptor; None where it has no limit or is not there.

    Args:
        where: a folder, or an open descriptor.
    """
    try:
        status = os.statvfs(where)
    except OSError:
        return None
    # A tmpfs that was mounted without a limit says 0 of 0.
    return status.f_bavail * status.f_frsize if status.f_blocks else None


def parse_size(text: str | int, name: str = "--memory") -> int:
    """Return the bytes that a size means: a count of bytes, or a number with K, M, G or T (powers of 1024).

    Args:
        text: such as ``"512M"``, ``"1.5G"``, ``"64MiB"``, ``"65536"`` or an int; case does not matter.
        name: of the option, for the message.

    Raises:
        UsageError: it is not a size, or not above zero.

    >>> parse_size("1.5K"), parse_size("64MiB"), parse_size(4096)
    (1536, 67108864, 4096)
    """
    size_bytes = 0
    if isinstance(text, str):
        match = _SIZE.fullmatch(text.strip())
        if match:
            number, unit_bytes = match["number"], _UNIT_BYTES[(match["unit"] or "").lower()]
            # Whole numbers stay whole: a float has 53 bits and sizes may have more.
            size_bytes = int(number) * unit_bytes if number.isdigit() else int(float(number) * unit_bytes)
    elif not isinstance(text, bool):
        size_bytes = text
    if size_bytes <= 0:
        message = f"{name} {text!r} is not a size above zero: say bytes, or a number with K, M, G or T, such as 512M"
        raise UsageError(message)
    return size_bytes


def format_size(size_bytes: int) -> str:
    """Return a size for people, in the largest unit of 1024 that leaves at least 1.

    >>> format_size(64 * MIB), format_size(1536), format_size(7)
    ('64 MiB', '1.5 KiB', '7 B')
    """
    for unit_bytes, unit in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size_bytes >= unit_bytes:
            return f"{size_bytes / unit_bytes:.1f}".removesuffix(".0") + f" {unit}"
    return f"{size_bytes} B"


def _power_of_two_below(number: int) -> int:
    """Return the largest power of two that is not above a number; 0 for 0."""
    return 1 << (number.bit_length() - 1) if number > 0 else 0
