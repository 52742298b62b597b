"""Ctrl-C and TERM while a run is under way: noted when they come, acted upon where nothing can be left half done.

An exception that a signal raises between two instructions could lose a process or a descriptor that has just been
made.  So handlers are replaced by one that takes a note and wakes the caller's loop, and the loop calls what was there
before at a point of its own choice: whatever that raises then ends the run like any other exception, and if it raises
nothing the run goes on.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final, NoReturn

EXIT_TERMINATED: Final = 128 + signal.SIGTERM


class DeferredSignals:
    """Holds SIGINT and SIGTERM back inside a ``with`` block.

    Outside the main thread nothing is replaced, because signals are never handled there; and one that is ignored
    stays ignored.

    Attributes:
        wake_fd: eventfd that the waiting loop polls.
    """

    def __init__(self, wake_fd: int) -> None:
        self.wake_fd = wake_fd
        self._before: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._noted: list[int] = []

    def handle(self) -> None:
        """Do what each signal that has come would have done; raises what its handler raises."""
        while self._noted:
            number = self._noted.pop(0)
            self._before[number](number, None)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._noted.append(number)
        os.eventfd_write(self.wake_fd, 1)

    def __enter__(self) -> DeferredSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(number)
                if before is signal.SIG_DFL and number == signal.SIGTERM:
                    self._before[number] = _terminate
                elif callable(before) and not isinstance(before, signal.Handlers):
                    self._before[number] = before
                else:
                    continue
                signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is _terminate else before)
        if kind is None:
            self.handle()


def _terminate(_: int, __: FrameType | None) -> NoReturn:
    raise SystemExit(EXIT_TERMINATED)
