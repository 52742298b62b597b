"""Nanoseconds by what a worker was doing: the copies that Python makes, beside those that the core times itself.

    with worker.times.of("own"): ...      # counted as ``ns_own`` while it measures; nothing is counted otherwise

What the parts mean and cost is in ``timing.h``: they are disjoint, the innermost counts.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from megaphone._core import lib
from megaphone.shm.counters import COUNTER_INDEX

_NOTHING: Final = nullcontext()


class Times:
    """The switch of one worker's clocks, which are off at first.

    Args:
        slot: the worker's handle, a cffi pointer.
    """

    __slots__ = ("_is_on", "_slot")

    def __init__(self, slot: Any) -> None:  # noqa: ANN401 - cffi pointers have no type
        self._slot = slot
        self._is_on = False

    def measure(self) -> None:
        """Count times from here on, in the core and here; not from inside an operator."""
        self._is_on = True
        lib.mp_timing_set(self._slot, 1)

    def of(self, part: str) -> AbstractContextManager[None]:
        """Return what counts a block of code as a part: ``own`` for the counter ``ns_own``."""
        return _Part(self._slot, COUNTER_INDEX[f"ns_{part}"]) if self._is_on else _NOTHING


class _Part(AbstractContextManager[None]):
    """One part in progress: the one that it interrupts goes on afterwards, also after an exception."""

    __slots__ = ("_around", "_index", "_slot")

    def __init__(self, slot: Any, index: int) -> None:  # noqa: ANN401 - as above
        self._slot, self._index = slot, index
        self._around = 0

    def __enter__(self) -> None:
        self._around = int(lib.mp_timing_switch(self._slot, self._index))

    def __exit__(self, *_: object) -> None:
        lib.mp_timing_switch(self._slot, self._around)
