"""The rival from the standard library: multiprocessing.Queue, one per direction, as most people would begin.

Every batch is pickled by a thread, goes through a pipe, and is unpickled at the other end.
"""

from __future__ import annotations

import multiprocessing
import platform
import queue
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from megaphone.bench.rivals.common import WORKERS, Rival, Share, Task, main
from megaphone.bench.rivals.pair import JOBS, SLOTS, Message, run_pair

if TYPE_CHECKING:
    from multiprocessing.queues import Queue

# Sleeping in the pipe leaves the core to the threads that pickle.
WAIT_SECONDS: Final = 0.005


class QueueLink:
    """One worker's ends of the two queues."""

    def __init__(self, outgoing: Queue[Message], incoming: Queue[Message]) -> None:
        self._out, self._in = outgoing, incoming

    def send(self, message: Message) -> bool:
        """Give the message to the queue's thread, or return False: as many are on their way as may be."""
        try:
            self._out.put_nowait(message)
        except queue.Full:
            return False
        return True

    def receive(self, wait: bool = False) -> Message | None:
        """Return the next message, arrays of its own, or None."""
        try:
            return self._in.get(wait, WAIT_SECONDS)
        except queue.Empty:
            return None

    def close(self) -> None:
        """Let the queue's thread write what it still has."""
        self._out.close()
        self._out.join_thread()


def run(task: Task) -> Sequence[Share]:
    """Do the task over two queues."""
    context = multiprocessing.get_context("fork")
    queues: list[Queue[Message]] = [context.Queue(SLOTS) for _ in range(WORKERS)]
    return run_pair(task, lambda me, start: JOBS[task.job](QueueLink(queues[me], queues[1 - me]), task, me, start))


RIVAL: Final = Rival(
    name="queue",
    how={
        "count": "two processes, a multiprocessing.Queue of 8 batches per direction",
        "transport": "a multiprocessing.Queue of 8 batches; latency by ping-pong, halved",
    },
    version=platform.python_version,
    run=run,
)

if __name__ == "__main__":
    sys.exit(main(RIVAL))
