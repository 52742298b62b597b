"""Grows memory ahead of the workers' need, in a thread of the caller's process that gives way to them.

    a worker nears the end of what is committed -> eventfd -> this thread: allocate, touch -> the watermark rises

On a machine whose cores the workers fill, whoever is woken takes the core of a worker: at the supervisor's own priority
it took that of the one that had called, in the middle of its allocation, for as long as touching took (2 to 5 ms). So
the thread has a lower one. Where no core is free in time, a worker commits 256 KiB at a time for itself: later, but not
for long. So a run also goes on where the system refuses the thread, or the lower priority.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from typing import TYPE_CHECKING, Final

from megaphone._core import lib

if TYPE_CHECKING:
    from megaphone.dataflow.memory import RunMemory

NICENESS: Final = 10
"""Added to the caller's, for this thread alone: a process that has raised its own may not lower it again."""
_NICENESS_MAX: Final = 19
GROW_BYTES: Final = 1 << 20
"""Between two looks at whether the run is over: about 3 ms."""


class Grower:
    """The thread; begins when it is made.

    Args:
        memory: of the run; its ``wake_fd`` is the eventfd to which workers write.  Must stay open until `end`.

    Attributes:
        error: what ended the thread before its time, a defect of ours; None as long as nothing did.
    """

    def __init__(self, memory: RunMemory) -> None:
        self.error: BaseException | None = None
        self._memory = memory
        self._end_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="megaphone-grower", daemon=True)
        # It inherits the mask: a signal that this thread took would not wake the loop of the main one.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._thread.start()
        except RuntimeError:
            # The system has no room for a thread: workers commit for themselves.
            self._close()
        except BaseException:
            self._close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    @property
    def native_id(self) -> int | None:
        """The kernel's number of the thread; None where the system has refused one."""
        return self._thread.native_id

    def wake(self) -> None:
        """Have it look, as a worker would."""
        os.eventfd_write(self._memory.wake_fd, 1)

    def end(self) -> None:
        """Stop, and return when the thread no longer touches the memory; a second call does nothing."""
        if self._end_fd < 0:
            return
        os.eventfd_write(self._end_fd, 1)
        self._thread.join()
        self._close()

    def _close(self) -> None:
        os.close(self._end_fd)
        self._end_fd = -1

    def _run(self) -> None:
        try:
            self._grow()
        except BaseException as error:  # noqa: BLE001 - whoever made the thread raises it: here nobody would see it
            self.error = error

    def _grow(self) -> None:
        # Giving way is a courtesy: a sandbox may refuse the calls, and growing at the caller's priority still helps.
        with contextlib.suppress(OSError):
            own = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, own, min(os.getpriority(os.PRIO_PROCESS, own) + NICENESS, _NICENESS_MAX))
        memory, poll = self._memory, select.poll()
        for fd in (memory.wake_fd, self._end_fd):
            poll.register(fd, select.POLLIN)
        growing = False
        while True:
            ready = {fd for fd, _ in poll.poll(0 if growing else None)}
            if self._end_fd in ready:
                return
            if memory.wake_fd in ready:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(memory.wake_fd)
            grown = int(lib.mp_chunks_grow_ahead(memory.control, memory.data, memory.data_fd, GROW_BYTES))
            growing = grown >= GROW_BYTES
