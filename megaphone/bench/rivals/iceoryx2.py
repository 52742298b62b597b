"""The rival that is made for this: iceoryx2, zero-copy publish and subscribe between processes, from Python.

One service per direction, of slices of bytes: a message is written into a loaned sample and read where it lies.  The
publisher may not block, or two full queues would wait for each other, and it cannot ask for room; so the reader says
in a shared word how many samples it has given back.

iceoryx2 keeps files in a folder and in /dev/shm, and leaves one of them also after a clean end.  Here both have this
run's name, by which they are removed, however the workers ended.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import mmap
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from megaphone.bench.rivals.common import WORKERS, Rival, Share, Task, U64Array, main
from megaphone.bench.rivals.leftovers import folder_of_run, name_of_run
from megaphone.bench.rivals.pair import JOBS, SLOTS, Message, column_count, columns_of, run_pair


class SampleLink:
    """One worker's publisher and subscriber."""

    def __init__(self, task: Task, me: int, folder: Path, prefix: str, given_back: U64Array) -> None:
        import iceoryx2 as iox

        iox.set_log_level(iox.LogLevel.Error)
        config = iox.config.default()
        config.global_cfg.root_path = iox.Path.new(str(folder))
        config.global_cfg.prefix = iox.FileName.new(prefix)
        node = iox.NodeBuilder.new().config(config)
        self._node = node.signal_handling_mode(iox.SignalHandlingMode.Disabled).create(iox.ServiceType.Ipc)
        self._columns = column_count(task)
        self._given_back_out, self._given_back_in = given_back[me : me + 1], given_back[1 - me : 2 - me]
        self._sent = self._received = 0
        self._sample: Any = None
        services = [self._service(iox, writer) for writer in range(WORKERS)]
        publisher = services[me].publisher_builder().initial_max_slice_len(task.batch_bytes)
        self._publisher = publisher.backpressure_strategy(iox.BackpressureStrategy.DiscardData).create()
        self._subscriber = services[1 - me].subscriber_builder().buffer_size(SLOTS).create()
        self._services = services

    def _service(self, iox: Any, writer: int) -> Any:
        builder = self._node.service_builder(iox.ServiceName.new(f"from/{writer}"))
        builder = builder.publish_subscribe(iox.Slice[ctypes.c_uint8]).enable_safe_overflow(False).history_size(0)
        builder = builder.payload_alignment(iox.Alignment.new(64))
        return builder.subscriber_max_buffer_size(SLOTS).max_publishers(1).max_subscribers(1).open_or_create()

    def send(self, message: Message) -> bool:
        """Write the message into a loaned sample and send it, or return False: SLOTS are on their way."""
        if self._sent - int(self._given_back_out[0]) >= SLOTS:
            return False
        sample = self._publisher.loan_slice_uninit(sum(column.nbytes for column in message))
        words = _words(sample)
        at = 0
        for column in message:
            words[at : at + len(column)] = column
            at += len(column)
        readers = sample.assume_init().send()
        if readers != 1:
            text = f"a sample went to {readers} subscribers"
            raise RuntimeError(text)
        self._sent += 1
        return True

    def receive(self, wait: bool = False) -> Message | None:
        """Return the next sample where it lies, given back by the next call, or None."""
        if self._sample is not None:
            self._sample.delete()
            self._received += 1
            self._given_back_in[0] = self._received
        self._sample = self._subscriber.receive()
        if self._sample is None:
            if wait:
                os.sched_yield()
            return None
        return columns_of(_words(self._sample), self._columns)

    def close(self) -> None:
        """Give back the last sample; the ports go with the process."""
        if self._sample is not None:
            self._sample.delete()
            self._sample = None


def _words(sample: Any) -> U64Array:
    # Bytes and not words, because iceoryx2 0.10 gives a slice of words eight times its length, past its end.
    payload = sample.payload()
    if not payload.len():
        return np.empty(0, np.uint64)
    return np.frombuffer(payload.as_memory_view(), np.uint64)


def run(task: Task) -> Sequence[Share]:
    """Do the task over two services."""
    given_back = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.uint64, WORKERS)
    prefix = name_of_run()  # of this program, not of the workers
    with folder_of_run() as folder:
        return run_pair(
            task,
            lambda me, start: JOBS[task.job](SampleLink(task, me, folder, prefix, given_back), task, me, start),
        )


def version() -> str:
    """Import iceoryx2 and return its version."""
    import iceoryx2  # noqa: F401 - whether it can be imported is the question

    return importlib.metadata.version("iceoryx2")


RIVAL: Final = Rival(
    name="iceoryx2",
    how={
        "count": "two processes, a service per direction with a buffer of 8 loaned samples, polled",
        "transport": "a service with a buffer of 8 loaned samples, polled; latency by ping-pong, halved",
    },
    version=version,
    run=run,
)

if __name__ == "__main__":
    sys.exit(main(RIVAL))
